"""Sending an image to a registry: only what the repository does not have, tag last."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.images.build.assemble import Image
from aks_inference_runtime.images.build.base import BaseImage, base_layer
from aks_inference_runtime.images.build.begun import Begun
from aks_inference_runtime.images.build.records import Record, write_record
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


async def name_image(
    client: RegistryClient, image: Image, target: ImageReference, cache: Path, progress: Progress, listed: bool | None
) -> None:
    """Puts the manifest of an image whose blobs were pushed under its tag. `listed`: see `Record`."""
    # Where the registry takes no manifest, the record names an image that is not there: it proves nothing.
    record = Record(image.digest, listed)
    kept = asyncio.to_thread(write_record, target, image.base.manifest.digest, cache, record)
    try:
        await asyncio.gather(client.push_manifest(target, image.manifest), kept)
    except RegistryError as error:
        if BLOB_UNKNOWN not in str(error):
            raise
        # Somebody removed layers under an image that is still listed: all are asked for.
        await push_blobs(client, image, target, cache, progress)
        await client.push_manifest(target, image.manifest)


async def push_blobs(
    client: RegistryClient,
    image: Image,
    target: ImageReference,
    cache: Path,
    progress: Progress,
    held: Awaitable[bool] | None = None,
    begun: Begun | None = None,
) -> Pushed:
    """All blobs of an image, in parallel; the first error ends the others. `held`: whether it is known that the
    repository has the base's layers."""
    slots = asyncio.Semaphore(PARALLEL)
    layers = {layer.digest: layer for layer in image.base.layers}.values()
    made_here = {one.layer.digest: one.layer for one in image.new}.values()

    async def from_base(layer: Descriptor) -> Sent:
        async with slots:
            return await _base_blob(client, image.base, layer, target, cache, progress)

    async def own(blob: Descriptor, source: UploadSource) -> Sent:
        async with slots:
            if blob.size <= UNASKED_BYTES and begun is not None:
                return await begun.push(blob, source)
            return await client.push_blob(target, blob, source, ask=blob.size > UNASKED_BYTES)

    config = image.manifest.part("config")
    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(own(one.descriptor(), UploadSource.file(one.path))) for one in made_here]
            tasks.append(group.create_task(own(config, UploadSource.of(image.config))))
            there = held is not None and await held
            if not there:
                tasks += [group.create_task(from_base(layer)) for layer in layers]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    sent = [task.result() for task in tasks] + [Sent(0, "there") for _ in layers if there]
    moved = [one for one in sent if one.how == "sent"]
    return Pushed(sum(one.bytes for one in moved), len(moved), len(sent) - len(moved))


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
