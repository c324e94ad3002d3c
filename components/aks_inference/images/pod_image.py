"""Which image the pods of a version run from: a given one, a custom one, or one that is found or built."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aks_inference.findings import Finding
from aks_inference.folder_findings import context_findings
from aks_inference_runtime.api.endpoint import Code
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits

if TYPE_CHECKING:
    from aks_inference.images.custom import CustomImage
    from aks_inference.service.inference import Inference
    from aks_inference.service.settings import VersionSettings
    from aks_inference.targets import TargetChoice

BUILT = "found or built when it is applied"
"""Stands for an image that is not known yet, where a text is asked for."""
CODE_SETTINGS = ("inference_config", "inference_config_file")
CONTAINER_SETTINGS = ("image", "container_port", "score_path", "swagger_path", "health_path", "health_port")


@dataclass(frozen=True)
class PodImage:
    """Beside what the version says of its container."""

    content: Mapping[str, Any] | None = None
    """To be found or built: what it holds, as an Image's inputs."""
    custom: "CustomImage | None" = None
    shared_memory: int | None = None
    """MiB; None: the node's own."""


GIVEN = PodImage()


def builds(settings: "VersionSettings", target: "TargetChoice | None") -> bool:
    """Whether the image is one to be found or built."""
    on_cluster = target is not None and target.on_cluster
    return on_cluster and settings.image is None and settings.custom_image is None


def registry_rules(target: "TargetChoice") -> Iterator[Finding]:
    """An image that is to be found or built needs a place."""
    if target.kubernetes is None or target.kubernetes.registry is None:
        mend = "add @image with the packages of the environment and the scoring server, or give the runtime a @registry"
        yield Finding(("image",), "is required on a Kubernetes target without a registry", mend)


def custom_rules(settings: "VersionSettings") -> Iterator[Finding]:
    """What a custom image has of its own is not said beside it."""
    if settings.custom_image is None:
        return
    for name in (*CODE_SETTINGS, *CONTAINER_SETTINGS):
        if getattr(settings, name) is not None:
            yield Finding((name,), "cannot be combined with @custom_image", "leave it out")


def built_image(inference: "Inference") -> dict[str, Any]:
    """What the image of a version holds: its environment with the scoring server, the code as a layer of its own."""
    code, environment = inference.code, inference.environment
    content = environment.image or {"environment": {"pipPackages": list(environment.environment.pip_packages)}}
    return {
        **content,
        "scoringServer": True,
        "entryScript": code.entry_script,
        "sourceDirectory": code.source_directory,
        **raised(inference.limits),
    }


def raised(limits: ContextLimits) -> dict[str, int]:
    """Limits of folders that are not Azure ML's, as inputs of a resource."""
    given = {"maxMb": (limits.max_mb, AZURE_ML.max_mb), "maxFiles": (limits.max_files, AZURE_ML.max_files)}
    return {name: value for name, (value, usual) in given.items() if value != usual}


def layer_rules(code: Code, limits: ContextLimits) -> Iterator[Finding]:
    """Whether the folder can be a layer: nothing leaves it, its limits hold."""
    if code.source_directory is None:
        return
    from aks_inference_runtime.images.context import context_files

    try:
        context_files(Path(code.source_directory), limits)
    except InvalidInput as error:
        yield from context_findings(("inference_config", "source_directory"), error)
