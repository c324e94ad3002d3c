"""Artifacts of an OCI registry, as `oras push` makes them: one layer a file, named by its title."""

from pathlib import Path, PurePosixPath

from aks_inference_runtime.api.errors import InvalidInput, NotFound
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor, Manifest
from aks_inference_runtime.models.progress import Progress, silent
from aks_inference_runtime.models.sources.address import Address
from aks_inference_runtime.models.sources.archive import ArchiveLimits, unpack

TITLE = "org.opencontainers.image.title"
UNPACK = "io.deis.oras.content.unpack"
"""How oras marks a folder that it packed as tar."""


async def artifact(client: RegistryClient, address: Address) -> Manifest:
    """The manifest of an artifact. Raises NotFound, InvalidInput, and the registry's errors."""
    reference = _reference(address)
    manifest = await client.manifest(reference)
    if manifest is None:
        raise NotFound(f"{address.text}: is not there; look at its repository and tag")
    if manifest.is_index:
        raise InvalidInput(f"{address.text}: is an index of several artifacts; name one of them by its digest")
    return manifest


async def download_artifact(
    client: RegistryClient,
    address: Address,
    manifest: Manifest,
    target: Path,
    limits: ArchiveLimits,
    progress: Progress = silent,
) -> None:
    """The files of an artifact below `target`. Raises UnsafeArchive, InvalidInput, the registry's errors."""
    reference = _reference(address).at(manifest.digest)
    layers = [layer for layer in manifest.parts("layers") if layer.annotations.get(TITLE)]
    if not layers:
        raise InvalidInput(
            f"{address.text}: has no layer with the annotation {TITLE}; push its files with `oras push`, or name an "
            f"artifact that holds files"
        )
    total, done = sum(layer.size for layer in layers), 0
    for layer in layers:
        title = layer.annotations[TITLE]
        path = target / _safe(address, title)
        if not path.exists():
            await _layer(client, reference, layer, path, limits)
        done += layer.size
        progress(done, total)


async def _layer(
    client: RegistryClient, reference: ImageReference, layer: Descriptor, path: Path, limits: ArchiveLimits
) -> None:
    if layer.annotations.get(UNPACK) != "true":
        await client.download(reference, layer, path)
        return
    packed = path.with_name(f"{path.name}.packed")
    await client.download(reference, layer, packed)
    inside = path.with_name(f"{path.name}.inside")
    try:
        unpack(packed, inside, limits)
        # oras packs a folder under its own name.
        folder = inside / path.name
        (folder if folder.is_dir() and len(list(inside.iterdir())) == 1 else inside).replace(path)
    finally:
        packed.unlink(missing_ok=True)
        if inside.is_dir():
            inside.rmdir()


def _safe(address: Address, title: str) -> PurePosixPath:
    name = PurePosixPath(title)
    if name.is_absolute() or ".." in name.parts or "\\" in title or "\0" in title or not name.parts:
        raise InvalidInput(f"{address.text}: has a layer called {title!r}, which leads outside of the folder")
    return name


def _reference(address: Address) -> ImageReference:
    return ImageReference.parse(address.text.removeprefix("oci://"))
