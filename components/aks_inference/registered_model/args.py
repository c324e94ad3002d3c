"""Arguments of RegisteredModel, as they come over the wire."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import pulumi

if TYPE_CHECKING:
    from aks_inference.component import Cluster

    Target = pulumi.Input[str] | Cluster
else:
    Target = pulumi.Input[str]


class RegisteredModelArgs(TypedDict):
    """What to register, and where."""

    target: Target
    """Required. Where the model is stored: the `target` output of a cluster; in Python also the cluster itself."""
    model_path: str
    """Required. File or folder, relative to the working directory of the program or absolute."""
    model_name: NotRequired[str | None]
    """Optional. 1 to 255 characters: letters, digits, `-`, `.`, `_`, first a letter or digit. Default: the resource's
    name. Registering other files under the same name makes the next version."""
    child_paths: NotRequired[Sequence[str] | None]
    """Optional. Of a folder, only these files and folders, relative to it. Default: all."""
    tags: NotRequired[Mapping[str, str] | None]
    """Optional. Labels that may change. Default: none."""
    properties: NotRequired[Mapping[str, str] | None]
    """Optional. Labels that never change once set; new ones may be added. Default: none."""
    description: NotRequired[str | None]
    """Optional. For people."""
    model_framework: NotRequired[str | None]
    """Optional. Custom, TensorFlow, ScikitLearn, Onnx, TfKeras (deprecated), PyTorch or Multi."""
    model_framework_version: NotRequired[str | None]
    """Optional. Only with `model_framework`."""
    datasets: NotRequired[Sequence[Any] | None]
    """Optional. Not supported yet: refused."""
    sample_input_dataset: NotRequired[Any]
    """Optional. Not supported yet: refused."""
    sample_output_dataset: NotRequired[Any]
    """Optional. Not supported yet: refused."""
    resource_configuration: NotRequired[Any]
    """Optional. Not supported yet (it sizes deployments without an entry script): refused."""
