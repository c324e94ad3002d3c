"""The runtime's own image: what router, autoscaler, gates and deliveries run from, built like any other.

Its environment is this distribution's requirements, as they are installed here where they are, so that what was tested
is what runs; the package itself is the layer above it. Nothing is taken from an image that somebody would publish.
"""

from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import aks_inference_runtime
from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.images.build.application import Packed, pack
from aks_inference_runtime.images.environment.key import image_key
from aks_inference_runtime.images.environment.read import read_environment
from aks_inference_runtime.images.lookup import RegistryPlace
from aks_inference_runtime.images.reference import ImageReference

DISTRIBUTION = "pulumi-aks-inference"
RUNTIME = "runtime"
"""Of its images; see RegistryPlace.beside."""
PACKAGE_ROOT = "/opt/aks-inference/runtime"
EXTRAS = ("", "azure")
"""Model stores in Blob Storage are reached from pods, too."""
NOT_IN_PODS = frozenset({"pulumi", "uv"})
_TARGET = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
"""What markers are judged by: the image's system, not this machine's."""


def runtime_requirements() -> list[str]:
    """Of the image, pinned where the package is installed here. Raises OperationFailed where nothing says them."""
    try:
        listed = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise OperationFailed(
            f"the runtime's image cannot be made: {DISTRIBUTION} is not installed as a distribution, "
            "so its requirements are not known; install it, or give an image"
        ) from None
    return sorted(_chosen(listed))


def runtime_environment() -> dict[str, list[str]]:
    """The environment object of the runtime's image."""
    return {"pipPackages": runtime_requirements()}


def runtime_image(registry: str) -> ImageReference:
    """The name of the runtime's image in a registry: by what is in it, known before it is built. Reads the package."""
    place = RegistryPlace.parse(registry)
    key = image_key(read_environment(runtime_environment(), Path("/")))
    return ImageReference(place.registry, place.beside(RUNTIME), f"{key[:16]}-{runtime_package().tag}")


def runtime_package() -> Packed:
    """The package's files. Reads them."""
    root = Path(aks_inference_runtime.__file__).parent
    files = {
        f"{root.name}/{path.relative_to(root).as_posix()}": path
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return pack(files, {"PYTHONPATH": PACKAGE_ROOT}, ["python"], PACKAGE_ROOT)


def _chosen(listed: Sequence[str]) -> Iterator[str]:
    for text in listed:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) in NOT_IN_PODS or not _applies(requirement.marker):
            continue
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        try:
            yield f"{requirement.name}{extras}=={metadata.version(requirement.name)}"
        except metadata.PackageNotFoundError:
            yield f"{requirement.name}{extras}{requirement.specifier}"


def _applies(marker: Marker | None) -> bool:
    return marker is None or any(marker.evaluate({**_TARGET, "extra": extra}) for extra in EXTRAS)
