"""Sending an image to a registry: only what the repository does not have, tag last."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.images.build.assemble import Image
from aks_inference_runtime.images.build.base import BaseImage, base_layer
from aks_inference_runtime.images.build.kept import write_whole
from aks_inference_runtime.images.build.run import Progress
from aks_inference_runtime.images.errors import RegistryError
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import BLOB_UNKNOWN, RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor
from aks_inference_runtime.images.registry.transport import SMALL_BYTES
from aks_inference_runtime.images.registry.upload import Sent, UploadSource

PARALLEL = 4
UNASKED_BYTES = SMALL_BYTES
"""Blobs up to this size are sent without asking for them before: the question costs as much."""


@dataclass(frozen=True)
class Pushed:
    """What a push cost."""

    sent_bytes: int
    sent_blobs: int
    kept_blobs: int
    """Blobs that the repository had, or that were mounted from another."""


async def push_image(
    client: RegistryClient, image: Image, target: ImageReference, cache: Path, progress: Progress
) -> Pushed:
    """An image under a tag. An image of the same base that is in the repository tells that the base's layers are."""
    record = _record(image, target, cache)
    try:
        pushed = await push_blobs(client, image, target, cache, progress, record)
        await client.push_manifest(target, image.manifest)
    except RegistryError as error:
        if BLOB_UNKNOWN not in str(error) or not record.exists():
            raise
        # Somebody removed layers under an image that is still listed: all are asked for.
        record.unlink(missing_ok=True)
        pushed = await push_blobs(client, image, target, cache, progress)
        await client.push_manifest(target, image.manifest)
    await asyncio.to_thread(write_whole, record, image.digest.encode())
    return pushed


async def push_blobs(
    client: RegistryClient,
    image: Image,
    target: ImageReference,
    cache: Path,
    progress: Progress,
    record: Path | None = None,
) -> Pushed:
    """All blobs of an image, in parallel; the first error ends the others. `record`: see `push_image`."""
    slots = asyncio.Semaphore(PARALLEL)
    layers = {layer.digest: layer for layer in image.base.layers}.values()
    made_here = {one.layer.digest: one.layer for one in image.new}.values()

    async def from_base(layer: Descriptor, held: "asyncio.Task[bool]") -> Sent:
        if await held:
            return Sent(0, "there")
        async with slots:
            return await _base_blob(client, image.base, layer, target, cache, progress)

    async def made(layer: Descriptor, path: Path) -> Sent:
        async with slots:
            return await client.push_blob(target, layer, UploadSource.file(path), ask=layer.size > UNASKED_BYTES)

    config = image.manifest.part("config")
    own = UploadSource.of(image.config)
    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(made(one.descriptor(), one.path)) for one in made_here]
            tasks.append(group.create_task(client.push_blob(target, config, own, ask=config.size > UNASKED_BYTES)))
            held = group.create_task(_held(client, target, record))
            tasks += [group.create_task(from_base(layer, held)) for layer in layers]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    sent = [task.result() for task in tasks]
    moved = [one for one in sent if one.how == "sent"]
    return Pushed(sum(one.bytes for one in moved), len(moved), len(sent) - len(moved))


def _record(image: Image, target: ImageReference, cache: Path) -> Path:
    """Where the digest stands of the image of this base that was pushed to this repository last."""
    name = f"{target.api_host}/{target.repository} {image.base.manifest.digest}"
    return cache / "pushed" / hashlib.sha256(name.encode()).hexdigest()


async def _held(client: RegistryClient, target: ImageReference, record: Path | None) -> bool:
    """Whether the recorded image is in the repository: a registry keeps what its manifests name."""
    try:
        digest = await asyncio.to_thread(record.read_text, "ascii") if record else ""
    except (OSError, UnicodeDecodeError):
        return False
    return digest.startswith("sha256:") and await client.head(target.at(digest)) is not None


async def _base_blob(
    client: RegistryClient, base: BaseImage, layer: Descriptor, target: ImageReference, cache: Path, progress: Progress
) -> Sent:
    source = base.reference
    if await client.has_blob(target, layer.digest):
        return Sent(0, "there")
    if source.api_host == target.api_host and await client.mount(target, layer.digest, source.repository):
        return Sent(0, "mounted")
    progress(f"copying the base's layer {layer.digest[:19]} ({layer.size / 1e6:.1f} MB) from {source.registry}")
    path = await base_layer(client, base, layer, cache)
    return await client.push_blob(target, layer, UploadSource.file(path))
