"""Sending an image to a registry: only what the repository does not have, tag last."""

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aks_inference_runtime.api.errors import AksInferenceError
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

TAKE_BACK_S = 5.0
"""A registry that does not answer forgets what was begun by itself."""


@dataclass(frozen=True)
class Pushed:
    """What a push cost."""

    sent_bytes: int
    sent_blobs: int
    kept_blobs: int
    """Blobs that the repository had, or that were mounted from another."""


class Begun:
    """Uploads to a repository that are begun before it is known of what; an async context manager that takes back those
    that were not needed. Only where this machine has sent an image before: who only reads begins none."""

    def __init__(self, client: RegistryClient, target: ImageReference, cache: Path, count: int) -> None:
        self._client = client
        self._target = target
        self._count = count if _records(target, cache).is_dir() else 0
        self._tasks: list[asyncio.Task[str]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client.open_upload(self._target)) for _ in range(self._count)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What failed, or was given up, waits for no answer that is still to come.
        late = [task for task in self._tasks if kind is not None and not task.done()]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await asyncio.gather(*(self._take_back(task) for task in self._tasks if task not in late))

    async def _take_back(self, task: "asyncio.Task[str]") -> None:
        with contextlib.suppress(AksInferenceError, TimeoutError):
            async with asyncio.timeout(TAKE_BACK_S):
                await self._client.cancel_upload(self._target, await task)

    async def take(self) -> str | None:
        """Where one goes on; None: there is none, or the registry refused it, as it will say again."""
        if not self._tasks:
            return None
        with contextlib.suppress(AksInferenceError):
            return await self._tasks.pop()
        return None


async def push_image(
    client: RegistryClient,
    image: Image,
    target: ImageReference,
    cache: Path,
    progress: Progress,
    begun: Begun | None = None,
) -> Pushed:
    """An image under a tag. An image of the same base that is in the repository tells that the base's layers are."""
    record = _record(image, target, cache)
    try:
        pushed = await push_blobs(client, image, target, cache, progress, record, begun)
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
    begun: Begun | None = None,
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

    async def own(blob: Descriptor, source: UploadSource) -> Sent:
        if blob.size > UNASKED_BYTES:
            async with slots:
                return await client.push_blob(target, blob, source)
        opened = await begun.take() if begun else None
        async with slots:
            return await client.push_blob(target, blob, source, ask=False, opened=opened)

    config = image.manifest.part("config")
    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(own(one.descriptor(), UploadSource.file(one.path))) for one in made_here]
            tasks.append(group.create_task(own(config, UploadSource.of(image.config))))
            held = group.create_task(_held(client, target, record))
            tasks += [group.create_task(from_base(layer, held)) for layer in layers]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    sent = [task.result() for task in tasks]
    moved = [one for one in sent if one.how == "sent"]
    return Pushed(sum(one.bytes for one in moved), len(moved), len(sent) - len(moved))


def _record(image: Image, target: ImageReference, cache: Path) -> Path:
    """Where the digest stands of the image of this base that was pushed to this repository last."""
    return _records(target, cache) / image.base.manifest.digest.replace(":", "-")


def _records(target: ImageReference, cache: Path) -> Path:
    """There once something was pushed to this repository."""
    name = f"{target.api_host}/{target.repository}"
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
