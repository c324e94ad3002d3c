"""Arguments of RegisteredModel, as they come over the wire."""

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import pulumi

if TYPE_CHECKING:
    from aks_inference.targets import Cluster

    Target = pulumi.Input[str] | Cluster
else:
    Target = pulumi.Input[str]


class RegisteredModelArgs(TypedDict):
    """What to register, and where."""

    target: Target
    """Required. Where the model is stored: the `target` output of a cluster; in Python also the cluster itself."""
    model_path: str
    """Required. File or folder, relative to the working directory of the program or absolute."""
    model_name: NotRequired[str]
    """Optional. 1 to 255 characters: letters, digits, `-`, `.`, `_`, first a letter or digit. Default: the resource's
    name. Registering other files under the same name makes the next version."""
    child_paths: NotRequired[list[str]]
    """Optional. Of a folder, only these files and folders, relative to it. Default: all."""
    tags: NotRequired[dict[str, str]]
    """Optional. Labels that may change. Default: none."""
    properties: NotRequired[dict[str, str]]
    """Optional. Labels that never change once set; new ones may be added. Default: none."""
    description: NotRequired[str]
    """Optional. For people."""
    model_framework: NotRequired[str]
    """Optional. Custom, TensorFlow, ScikitLearn, Onnx, TfKeras (deprecated), PyTorch or Multi."""
    model_framework_version: NotRequired[str]
    """Optional. Only with `model_framework`."""
    datasets: NotRequired[list[Any]]
    """Optional. Not supported yet: refused."""
    sample_input_dataset: NotRequired[Any]
    """Optional. Not supported yet: refused."""
    sample_output_dataset: NotRequired[Any]
    """Optional. Not supported yet: refused."""
    resource_configuration: NotRequired[Any]
    """Optional. Not supported yet (it sizes deployments without an entry script): refused."""
