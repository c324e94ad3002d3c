"""One build of a key at a time among machines, as far as a registry can tell, which has no compare-and-swap.

Who builds puts a mark beside the image's tag and writes it again as long as it builds. Who finds a mark waits for the
image; a mark that is not written again is of somebody who died, judged by one's own clock alone. Whatever a registry
does not allow of it is done without: then several build, and the image that is pushed first stays.
"""

import asyncio
import contextlib
import platform
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import EMPTY_JSON, OCI_EMPTY, Descriptor, image_manifest, sha256
from aks_inference_runtime.images.registry.upload import UploadSource

SUFFIX = "-building"
HOLDER, BEAT = "dev.aks-inference.builder", "dev.aks-inference.beat"
"""Annotations. A mark without a holder is one that was given back, where nothing may be deleted."""
_SETTLE = 3
"""Times as long as it took to look and to write: who looked before the mark was there has written by then."""
_LONGEST_SETTLE_S = 3.0
_END_S = 10.0


@dataclass(frozen=True)
class Patience:
    """Seconds."""

    poll_s: float = 2.0
    beat_s: float = 20.0
    stale_s: float = 90.0
    """Several beats: a machine may be busy, and a registry slow."""


@contextlib.asynccontextmanager
async def claimed(
    client: RegistryClient,
    target: ImageReference,
    folder: Path,
    patience: Patience,
    waiting: Callable[[], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[bool]:
    """Holds the claim to build `target` (with a tag). Gives whether another machine pushed it meanwhile.

    `folder`: of the locks of this machine; a mark with its identity is of a process that died, as the caller holds the
    key's lock. `waiting` is called once when another machine builds.
    """
    mark = _Mark(client, replace(target, tag=f"{target.tag}{SUFFIX}"), await asyncio.to_thread(_identity, folder))
    try:
        there = await _turn(client, target, mark, patience, waiting, sleep)
    except AksInferenceError:
        # What is wrong with the registry the build itself will say; who may not mark builds all the same.
        there = False
    beating = asyncio.create_task(mark.beat(patience.beat_s)) if mark.digest else None
    try:
        yield there
    finally:
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await mark.give_back()


async def _turn(
    client: RegistryClient,
    target: ImageReference,
    mark: "_Mark",
    patience: Patience,
    waiting: Callable[[], None],
    sleep: Callable[[float], Awaitable[None]],
) -> bool:
    """Waits until the image is there (true), or the mark is ours."""
    seen, since, told = "", 0.0, False
    while True:
        begun = time.monotonic()
        digest, holder = await mark.read()
        if digest != seen:
            seen, since = digest, begun
        if holder in ("", mark.holder) or begun - since > patience.stale_s:
            await mark.write()
            await sleep(min(_SETTLE * (time.monotonic() - begun), _LONGEST_SETTLE_S))
            if (await mark.read())[1] == mark.holder:
                # Who was waited for may have pushed it and gone since it was asked for.
                return told and await client.head(target) is not None
            # Somebody else's was written later: theirs it is.
            mark.digest = ""
            continue
        if not told:
            waiting()
        told = True
        await sleep(patience.poll_s)
        if await client.head(target) is not None:
            return True


class _Mark:
    def __init__(self, client: RegistryClient, reference: ImageReference, holder: str) -> None:
        self._client, self._reference, self.holder = client, reference, holder
        self.digest = ""
        """Of what we wrote last; empty: it is not ours."""

    async def read(self) -> tuple[str, str]:
        """Digest and holder; empty where there is none."""
        found = await self._client.manifest(self._reference)
        if found is None:
            return "", ""
        said = (found.data.get("annotations") or {}).get(HOLDER)
        return found.digest, said if isinstance(said, str) else ""

    async def write(self, holder: str | None = None) -> None:
        """Once more: another content each time. `holder`: Optional. Default: us."""
        empty = Descriptor(OCI_EMPTY, sha256(EMPTY_JSON), len(EMPTY_JSON))
        await self._client.push_blob(self._reference, empty, UploadSource.of(EMPTY_JSON))
        said = {HOLDER: self.holder if holder is None else holder, BEAT: uuid.uuid4().hex}
        manifest = image_manifest(empty, (), said)
        await self._client.push_manifest(self._reference, manifest)
        self.digest = manifest.digest

    async def beat(self, every_s: float) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            before = self.digest
            # A registry that does not answer for a while answers the next time.
            with contextlib.suppress(AksInferenceError):
                await self.write()
                await self._client.delete_manifest(self._reference.at(before))

    async def give_back(self) -> None:
        """Takes it away; where nothing may be deleted it says so."""
        with contextlib.suppress(AksInferenceError, TimeoutError):
            async with asyncio.timeout(_END_S):
                try:
                    gone = await self._client.delete_manifest(self._reference.at(self.digest))
                except AksInferenceError:
                    gone = False
                if not gone:
                    await self.write("")


def _identity(folder: Path) -> str:
    """Of those who share the locks of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "identity"
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(uuid.uuid4().hex)
    # An image of a machine may hold the folder: then several machines have the file.
    return f"{path.read_text('utf-8')[:32]}-{platform.node()}"
