"""What is sent before it is known whether it is needed: uploads are opened while files are packed and images are looked
for, or small blobs go in one request, where the registry takes them so."""

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from aks_inference_runtime.api.errors import AksInferenceError, OperationFailed
from aks_inference_runtime.images.build.records import sent_before
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor
from aks_inference_runtime.images.registry.upload import Sent, UploadSource, takes_whole

TAKE_BACK_S = 5.0
"""A registry that does not answer forgets what was begun by itself."""


class Begun:
    """Uploads to a repository; an async context manager that takes back those that were not needed. Only where this
    machine has sent an image before: who only reads begins none."""

    def __init__(self, client: RegistryClient, target: ImageReference, cache: Path, count: int) -> None:
        self._client = client
        self._target = target
        self._sends = sent_before(target, cache)
        self._count = count if self._sends and not takes_whole(target.api_host) else 0
        self._opened: list[asyncio.Task[str]] = []
        self._early: dict[str, asyncio.Task[Sent]] = {}

    async def __aenter__(self) -> Self:
        self._opened = [asyncio.create_task(self._client.open_upload(self._target)) for _ in range(self._count)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        early = [*self._early.values()]
        # What failed, or was given up, waits for no answer that is still to come.
        late = [task for task in (*self._opened, *early) if kind is not None and not task.done()]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        # A loop that ends has ended all tasks at once: there is nothing to wait for.
        opened = [task for task in self._opened if not task.cancelled() and task not in late]
        others = [task for task in early if not task.cancelled() and task not in late]
        await asyncio.gather(*map(self._take_back, opened), *map(self._end, others))

    async def _take_back(self, task: "asyncio.Task[str]") -> None:
        with contextlib.suppress(AksInferenceError, TimeoutError):
            async with asyncio.timeout(TAKE_BACK_S):
                await self._client.cancel_upload(self._target, await task)

    async def _end(self, task: "asyncio.Task[Sent]") -> None:
        """An upload that is under way cannot be taken back: its end is near."""
        with contextlib.suppress(AksInferenceError, TimeoutError):
            async with asyncio.timeout(TAKE_BACK_S):
                await task

    def send_early(self, blob: Descriptor, source: UploadSource) -> bool:
        """Begins to send a small blob before the rest of its image is known; False where nothing was sent before."""
        if self._sends:
            self._early[blob.digest] = asyncio.create_task(self._push(blob, source))
        return self._sends

    async def push(self, blob: Descriptor, source: UploadSource) -> Sent:
        """Sends a small blob, unless it is under way already."""
        early = self._early.get(blob.digest)
        # Shielded: who waits on the environment of last time, and is given up, does not end it for who comes after.
        return await (self._push(blob, source) if early is None else asyncio.shield(early))

    async def _push(self, blob: Descriptor, source: UploadSource) -> Sent:
        opened = None
        if self._opened:
            # One that was refused is begun again, and the registry says why.
            with contextlib.suppress(AksInferenceError):
                opened = await self._opened.pop()
        try:
            return await self._client.push_blob(self._target, blob, source, ask=False, opened=opened)
        except OSError as error:
            # Of the network the client tells by itself: a file is gone, or cannot be read.
            where = f"{error.filename}: " if error.filename else ""
            raise OperationFailed(f"{where}cannot be sent ({error.strerror or error}); apply again") from None
