"""Sending an image to a registry: only what the repository does not have, tag last."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.images.build.assemble import Image
from aks_inference_runtime.images.build.base import BaseImage, base_layer
from aks_inference_runtime.images.build.run import Progress
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor
from aks_inference_runtime.images.registry.upload import Sent, UploadSource

PARALLEL = 4


@dataclass(frozen=True)
class Pushed:
    """What a push cost."""

    sent_bytes: int
    sent_blobs: int
    kept_blobs: int
    """Blobs that the repository had, or that were mounted from another."""


async def push_blobs(
    client: RegistryClient, image: Image, target: ImageReference, cache: Path, progress: Progress
) -> Pushed:
    """All blobs of an image, in parallel; the first error ends the others."""
    slots = asyncio.Semaphore(PARALLEL)
    layers = {layer.digest: layer for layer in image.base.layers}.values()
    made_here = {one.layer.digest: one.layer for one in image.new}.values()

    async def from_base(layer: Descriptor) -> Sent:
        async with slots:
            return await _base_blob(client, image.base, layer, target, cache, progress)

    async def made(layer: Descriptor, path: Path) -> Sent:
        async with slots:
            return await client.push_blob(target, layer, UploadSource.file(path))

    config = image.manifest.part("config")
    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(from_base(layer)) for layer in layers]
            tasks += [group.create_task(made(one.descriptor(), one.path)) for one in made_here]
            tasks.append(group.create_task(client.push_blob(target, config, UploadSource.of(image.config))))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    sent = [task.result() for task in tasks]
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
