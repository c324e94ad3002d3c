"""One build of a key at a time among machines, as far as a registry can tell, which has no compare-and-swap.

Who builds puts a mark beside the image's tag and writes it again as long as it builds. Who finds a mark waits for the
image; a mark that is not written again is of somebody who died, judged by one's own clock, and at once where its last
word is old beyond what clocks differ by. Whatever a registry does not allow of it is done without, as is a wait that
takes too long: then several build, and the image that is pushed first stays.
"""

import asyncio
import contextlib
import platform
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import EMPTY_JSON, OCI_EMPTY, Descriptor, image_manifest, sha256
from aks_inference_runtime.images.registry.upload import UploadSource

SUFFIX = "-building"
HOLDER, BEGAN, BEAT = "dev.aks-inference.builder", "dev.aks-inference.began", "dev.aks-inference.beat"
"""Annotations: who, and times of its clock. A mark without a holder is one that was given back, where nothing may be
deleted."""
_SETTLE = 3
"""Times as long as it took to look and to write: who looked before the mark was there has written by then."""
_LONGEST_SETTLE_S = 3.0
_END_S = 10.0


@dataclass(frozen=True)
class Patience:
    """Seconds. To lose it too early costs a second build, nothing else."""

    poll_s: float = 2.0
    beat_s: float = 10.0
    stale_s: float = 40.0
    """Several beats: a machine may be busy, and a registry slow."""
    apart_s: float = 300.0
    """What clocks of machines may differ by."""
    longest_s: float = 2 * 3600.0
    """Twice what ACR Tasks give a build: one that hangs beats too."""
    tell_s: float = 60.0


@dataclass(frozen=True)
class Mark:
    """What another machine says of itself."""

    digest: str = ""
    """Another one each time; empty: there is no mark."""
    holder: str = ""
    began: datetime | None = None
    beat: datetime | None = None

    @property
    def name(self) -> str:
        """Of the machine, for people: it comes from the registry, so only what is printed on one line."""
        name = "".join(c for c in self.holder.partition("-")[2] if c.isprintable() and c != " ")
        return name[:63] or "without a name"


def given_up(mark: Mark, silent_s: float, waited_s: float, now: datetime, patience: Patience) -> str | None:
    """Why a builder is waited for no longer; None: it is.

    `silent_s`: since its mark changed; `waited_s`: for it, both by our clock alone.
    """
    if silent_s > patience.stale_s:
        return f"{mark.name} has said nothing for {in_words(silent_s)}"
    if waited_s > patience.longest_s:
        return f"{mark.name} has not built it in {in_words(waited_s)}"
    if mark.beat is not None and (now - mark.beat).total_seconds() > patience.stale_s + patience.apart_s:
        return f"{mark.name} has said nothing since {mark.beat:%Y-%m-%d %H:%M:%S} UTC"
    return None


def in_words(seconds: float) -> str:
    """A duration: 40 s, 3 min, 2 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


@contextlib.asynccontextmanager
async def claimed(
    client: RegistryClient,
    target: ImageReference,
    folder: Path,
    patience: Patience,
    say: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[bool]:
    """Holds the claim to build `target` (with a tag). Gives whether another machine pushed it meanwhile.

    `folder`: of the locks of this machine; a mark with its identity is of a process that died, as the caller holds the
    key's lock. `say` hears who is waited for, how it goes on, and why not any longer.
    """
    mark = _Mark(client, replace(target, tag=f"{target.tag}{SUFFIX}"), await asyncio.to_thread(_identity, folder))
    try:
        there = await _turn(client, target, mark, patience, say, sleep)
    except AksInferenceError:
        # What is wrong with the registry the build itself will say; who may not mark builds all the same.
        there = False
    over = asyncio.Event()
    beating = asyncio.create_task(mark.beat(patience.beat_s, over)) if mark.digest else None
    try:
        yield there
    finally:
        if beating is not None:
            over.set()
            # A beat that is given up may still arrive, after the mark was taken away.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await asyncio.gather(beating, return_exceptions=True)
            await mark.give_back()


async def _turn(
    client: RegistryClient,
    target: ImageReference,
    mark: "_Mark",
    patience: Patience,
    say: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]],
) -> bool:
    """Waits until the image is there (true), or the mark is ours."""
    waiting = _Waiting((target.tag or "")[:12], patience, say)
    while True:
        begun = time.monotonic()
        found = await mark.read()
        if found.holder in ("", mark.holder) or waiting.over(found, begun):
            await mark.write()
            await sleep(min(_SETTLE * (time.monotonic() - begun), _LONGEST_SETTLE_S))
            if (await mark.read()).holder == mark.holder:
                # Who was waited for may have pushed it and gone since it was asked for.
                return bool(waiting.first) and await client.head(target) is not None
            # Somebody else's was written later: theirs it is.
            mark.digest = ""
            continue
        await sleep(patience.poll_s)
        if await client.head(target) is not None:
            return True


@dataclass
class _Waiting:
    """For other machines, one after the other. Times are of the monotonic clock."""

    what: str
    patience: Patience
    say: Callable[[str], None]
    mark: Mark = field(default_factory=Mark)
    changed: float = 0.0
    """When the mark did."""
    first: dict[str, float] = field(default_factory=dict)
    """When a holder was seen for the first time: one that hangs does not begin anew when its mark comes back."""
    next_word: float = 0.0

    def over(self, found: Mark, at: float) -> bool:
        """Whether nobody is waited for any more; says what there is to say."""
        patience, before = self.patience, self.mark
        if found.digest != before.digest:
            self.mark, self.changed = found, at
        waited_s, silent_s = at - self.first.setdefault(found.holder, at), at - self.changed
        reason = given_up(found, silent_s, waited_s, datetime.now(UTC), patience)
        if reason is not None:
            self.say(f"{self.what}: {reason}; it is built here")
            return True
        if found.holder != before.holder:
            begun = "" if found.began is None else f" since {found.began:%H:%M:%S} UTC"
            self.say(
                f"{self.what} is being built by another machine ({found.name}){begun}; waiting for it, "
                f"until {in_words(patience.stale_s)} after its last sign of life, "
                f"for {in_words(patience.longest_s)} in all at most"
            )
            self.next_word = at + patience.tell_s
        elif at >= self.next_word:
            self.say(
                f"{self.what}: waiting for {found.name} for {in_words(waited_s)}, its last sign of life came "
                f"{in_words(silent_s)} ago"
            )
            self.next_word = at + patience.tell_s
        return False


class _Mark:
    def __init__(self, client: RegistryClient, reference: ImageReference, holder: str) -> None:
        self._client, self._reference, self.holder = client, reference, holder
        self.digest = ""
        """Of what we wrote last; empty: it is not ours."""
        self._began = datetime.now(UTC)

    async def read(self) -> Mark:
        """As the registry has it."""
        found = await self._client.manifest(self._reference)
        if found is None:
            return Mark()
        said = found.data.get("annotations")
        given = {name: text for name, text in said.items() if isinstance(text, str)} if isinstance(said, dict) else {}
        return Mark(found.digest, given.get(HOLDER, ""), _time(given.get(BEGAN)), _time(given.get(BEAT)))

    async def write(self, holder: str | None = None) -> None:
        """Once more: another content each time. `holder`: Optional. Default: us."""
        empty = Descriptor(OCI_EMPTY, sha256(EMPTY_JSON), len(EMPTY_JSON))
        await self._client.push_blob(self._reference, empty, UploadSource.of(EMPTY_JSON))
        times = {BEGAN: self._began.isoformat(), BEAT: datetime.now(UTC).isoformat()}
        manifest = image_manifest(empty, (), {HOLDER: self.holder if holder is None else holder, **times})
        await self._client.push_manifest(self._reference, manifest)
        self.digest = manifest.digest

    async def beat(self, every_s: float, over: asyncio.Event) -> None:
        """Until it is over."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await over.wait()
            if over.is_set():
                return
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


def _time(text: str | None) -> datetime | None:
    """None where it is none: marks of other releases."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo else None


def _identity(folder: Path) -> str:
    """Of those who share the locks of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "identity"
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(uuid.uuid4().hex)
    # An image of a machine may hold the folder: then several machines have the file.
    return f"{path.read_text('utf-8')[:32]}-{platform.node()}"
