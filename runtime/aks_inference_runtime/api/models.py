"""What is known of a model beside its files (azureml-core 1.61, Model; reference: azureml-v1.md 4.1, 4.2)."""

import re
from enum import StrEnum

from pydantic import Field

from aks_inference_runtime.api.base import Wire

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$"


_REMOTE = re.compile(r"(?i)(https?|az|oci)://|(runs|models):/")


def is_remote(path: str) -> bool:
    """Whether a model's path names something that is not on this machine (see models.sources.address)."""
    return bool(_REMOTE.match(path))


class Framework(StrEnum):
    """Frameworks of Azure ML's registry."""

    CUSTOM = "Custom"
    TENSORFLOW = "TensorFlow"
    SCIKIT_LEARN = "ScikitLearn"
    ONNX = "Onnx"
    TF_KERAS = "TfKeras"
    PYTORCH = "PyTorch"
    MULTI = "Multi"


class DatasetReference(Wire):
    """Data that a model was made from."""

    relationship: str
    """What the data was for: `training`, `validation` …"""
    dataset: str
    """Its id or address."""


class ResourceConfiguration(Wire):
    """What a service of this model alone asks for, when it is deployed without an entry script."""

    cpu: float | None = Field(None, gt=0)
    memory_in_gb: float | None = Field(None, gt=0)
    gpu: int | None = Field(None, ge=0)


class ModelFacts(Wire):
    """What is known of a model version.

    With the same files, another framework or other properties make another version; all the rest is replaced in place.
    """

    tags: dict[str, str] = Field(default_factory=dict)
    properties: dict[str, str] = Field(default_factory=dict)
    description: str | None = None
    framework: str | None = None
    framework_version: str | None = None
    source: str | None = None
    """The remote address that the files came from."""
    run_id: str | None = None
    experiment_name: str | None = None
    datasets: tuple[DatasetReference, ...] = ()
    parent_model_id: str | None = None
    """`name:version` of the model that it was made from."""
    sample_input_dataset: str | None = None
    sample_output_dataset: str | None = None
    resource_configuration: ResourceConfiguration | None = None


IDENTITY = frozenset({"properties", "framework", "framework_version"})
"""Facts that belong to one version for good."""
