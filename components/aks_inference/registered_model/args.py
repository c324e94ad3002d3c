"""Arguments of RegisteredModel, as they come over the wire."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

import pulumi

if TYPE_CHECKING:
    from aks_inference.component import Cluster, Component

    Target = pulumi.Input[str] | Cluster
    JobOutputs = pulumi.Input[str] | Component
else:
    JobOutputs = pulumi.Input[str]
    Target = pulumi.Input[str]


class DatasetArgs(TypedDict):
    """Data that a model was made from."""

    relationship: str
    """Required. What the data was for: `training`, `validation` …"""
    dataset: str
    """Required. Its id or address."""


class ResourceConfigurationArgs(TypedDict):
    """What a service of the model asks for when it is deployed without an entry script."""

    cpu: NotRequired[float | None]
    """Optional. Cores. Default: that of the service."""
    memory_in_gb: NotRequired[float | None]
    """Optional. Memory in GB. Default: that of the service."""
    gpu: NotRequired[int | None]
    """Optional. GPUs. Default: that of the service."""


class RegisteredModelArgs(TypedDict):
    """What to register, and where."""

    target: NotRequired[Target | None]
    """Conditional. Where the model is stored: the `target` output of a cluster; in Python also the cluster itself.
    Required unless `store` is given."""
    store: NotRequired[str | None]
    """Optional. A store of its own in place of a target: `az://account/container[/prefix]`,
    `oci://registry[/repository]` or an absolute folder."""
    model_path: NotRequired[str | None]
    """Conditional. File or folder, relative to the working directory of the program or absolute; required unless
    `run_id` is given. Or `https://…`, `az://account/container/path`, `oci://registry/repository:tag`,
    `runs:/RUN_ID/PATH`, `models:/NAME/VERSION` and `models:/NAME@ALIAS` of an MLflow server. With `run_id`: the path in
    the run; default there: the model's name."""
    job_outputs: NotRequired[JobOutputs | None]
    """Optional. The `outputs_path` of a TrainingJob; in Python also the TrainingJob itself. `model_path` is then a file
    or folder in it; default there: all of it. Default: none."""
    model_name: NotRequired[str | None]
    """Optional. 1 to 255 characters: letters, digits, `-`, `.`, `_`, first a letter or digit. Default: the resource's
    name. Registering other files under the same name makes the next version."""
    child_paths: NotRequired[Sequence[str] | None]
    """Optional. Of a folder, only these files and folders, relative to it. Default: all."""
    unpack: NotRequired[bool | None]
    """Optional. True: a remote zip or tar stands for the files in it. Default: false, it is a file like others."""
    tracking_uri: NotRequired[str | None]
    """Optional. The MLflow server. Default: the variable `MLFLOW_TRACKING_URI`."""
    tags: NotRequired[Mapping[str, str] | None]
    """Optional. Labels that may change. Default: none."""
    properties: NotRequired[Mapping[str, str] | None]
    """Optional. Labels of one version: other ones make the next version of the same files. Default: none."""
    description: NotRequired[str | None]
    """Optional. For people."""
    model_framework: NotRequired[str | None]
    """Optional. Custom, TensorFlow, ScikitLearn, Onnx, TfKeras (deprecated), PyTorch or Multi."""
    model_framework_version: NotRequired[str | None]
    """Optional. Only with `model_framework`."""
    run_id: NotRequired[str | None]
    """Optional. The run of an MLflow server that made the model; with it, `model_path` is a path in the run."""
    experiment_name: NotRequired[str | None]
    """Optional. The experiment of the run; a run of another one is refused."""
    datasets: NotRequired[Sequence[DatasetArgs] | None]
    """Optional. Data that the model was made from. Default: none."""
    parent_model: NotRequired[str | None]
    """Optional. `name:version` of the model that it was made from."""
    sample_input_dataset: NotRequired[str | None]
    """Optional. Id or address of sample input."""
    sample_output_dataset: NotRequired[str | None]
    """Optional. Id or address of sample output."""
    resource_configuration: NotRequired[ResourceConfigurationArgs | None]
    """Optional. What a service of this model asks for when it is deployed without an entry script."""
