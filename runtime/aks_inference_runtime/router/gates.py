"""The agent's lasting watch over each gate: hears of orphans, readiness and claims, and acknowledges.

There may be thousands: while nothing happens one is a connection (see `links`) and no task.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

from aks_inference_runtime.router.doors import doors, listening
from aks_inference_runtime.router.links import BUSY_SECONDS, SILENCE_SECONDS, Link, Word
from aks_inference_runtime.router.model import ControlAddress
from aks_inference_runtime.router.ownership import Epoch

ASK_SECONDS = 0.3
"""Between questions to a gate that nothing is known to go through."""
MOST_QUESTIONS_PER_S = 2_000
"""To all those together: of thousands each is asked less often, and at once when a request is on its way."""
LOST_SECONDS = 5.0
"""A gate that is silent for so long is lost, or the way to it is: what it has in hand is not waited for. A process that
was stopped for a moment, or a machine that is moved, goes on sooner. While the agent stands still no time counts."""
LOST_TRIES = 2
"""So many connections must have heard nothing meanwhile: one that broke is made anew first. No more of them, as with
thousands of silent gates each takes seconds."""
RETRY_SECONDS = 0.1
RECOVER_SECONDS = 1.0
"""After an error that nobody has thought of: it will come again, and each one is logged."""
_log = logging.getLogger(__name__)

Act = Callable[[str], Awaitable[None]]


class GateWatch:
    """Watches one gate until closed."""

    __slots__ = (
        "_act",
        "_acting",
        "_began",
        "_claim",
        "_closed",
        "_control",
        "_first",
        "_gone",
        "_link",
        "_noted",
        "_reaching",
        "_silences",
        "_silent_since",
        "_task",
        "_was_heard",
        "replica_id",
        "status",
    )

    _open: ClassVar[int] = 0
    """Watches of this agent."""

    def __init__(
        self,
        replica_id: str,
        control: Path | ControlAddress,
        act: Act,
        claim: Epoch | None = None,
        noted: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            replica_id, control: Required. Whose gate, and where.
            act: Required. Does what a change of it asks for, before the gate goes on.
            claim: Optional. What this router claims; None: nothing, there is one router only.
            noted: Optional. Called whenever `status` or what is claimed changes.
        """
        self.replica_id = replica_id
        self.status: Word | None = None
        """The newest; None while the gate is not heard."""
        self._control = control
        self._act = act
        self._noted = noted
        self._claim = claim
        self._link: Link | None = None
        self._first: asyncio.Future[None] | None = None
        """While somebody waits for the first word."""
        self._was_heard = False
        self._began = asyncio.get_running_loop().time()
        self._gone: frozenset[str] = frozenset()
        self._silent_since: float | None = None
        """By what `Listening` counts."""
        self._silences = 0
        self._acting: asyncio.Task[None] | None = None
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        """While it is about to wait for a door."""
        self._reaching: asyncio.Task[None] | None = None
        """While it has one."""
        GateWatch._open += 1
        doors().enter(self)

    @property
    def unheard(self) -> bool:
        """The watch has just begun, and there is no word yet."""
        return not self._was_heard and asyncio.get_running_loop().time() - self._began < SILENCE_SECONDS

    @property
    def never_heard(self) -> bool:
        """There was no word of it although there was time for one, and a try: there may be no gate yet, as while a
        replica fetches its model."""
        return not self._was_heard and self._silences > 0 and not self.unheard

    @property
    def lost(self) -> bool:
        """Nothing was heard of it for so long that its answers are not waited for any more."""
        if self._silent_since is None or self._silences < LOST_TRIES:
            return False
        return listening().seconds - self._silent_since >= LOST_SECONDS

    @property
    def granted(self) -> bool:
        """Whether the gate takes this router's requests for the owner's; without a claim there is none to ask."""
        return self._claim is None or (self.status is not None and self.status.claim == self._claim)

    @property
    def superseded_by(self) -> Epoch | None:
        """A higher claim than the own one."""
        claim = None if self.status is None else self.status.claim
        return claim if claim is not None and self._claim is not None and claim > self._claim else None

    @property
    def epoch(self) -> int:
        """Of the claim that holds, as far as is known."""
        return 0 if self.status is None or self.status.claim is None else self.status.claim.number

    def claim(self, claim: Epoch | None) -> None:
        """Says that this router sends from now on; None: that it does not."""
        if claim != self._claim:
            self._claim = claim
            self._noted()
            self._send_claim()

    def tell_gone(self, turns: frozenset[str]) -> None:
        """Names requests that wait in the router and whose clients have left."""
        new, self._gone = turns - self._gone, turns
        if new and self._link is not None:
            self._link.send({"gone": sorted(new)})

    def look_closely(self) -> None:
        """Requests are on their way there: asks now, unless it is being asked often anyway."""
        if not self.busy and self._link is not None:
            self._link.look_closely()

    async def first(self, timeout_s: float) -> None:
        """Waits for the first word, for a while."""
        if self._was_heard or timeout_s <= 0:
            return
        if self._first is None:
            self._first = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._first], timeout=timeout_s)

    async def close(self) -> None:
        """Ends the watch."""
        GateWatch._open -= 1
        self._closed = True
        listening().end(self)
        if self._link is not None:
            self._link.end(well=True)
        tasks = [task for task in (self._task, self._reaching, self._acting) if task is not None]
        for task in tasks:
            task.cancel()
        # Not suppress(CancelledError): that would swallow a cancellation of the caller too.
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- for the connection

    @property
    def busy(self) -> bool:
        """Whether something runs or waits there."""
        return self.status is not None and bool(self.status.running or self.status.waiting)

    @property
    def pause_s(self) -> float:
        """Between questions now."""
        return BUSY_SECONDS if self.busy else max(ASK_SECONDS, GateWatch._open / MOST_QUESTIONS_PER_S)

    @property
    def patience_s(self) -> float:
        """How long it may be silent now."""
        return SILENCE_SECONDS + max(0.0, self.pause_s - ASK_SECONDS)

    def made(self, link: Link) -> None:
        """Connected."""
        self._link = link
        link.send({"op": "watch"})
        link.ask()
        self._send_claim()
        if self._gone:
            link.send({"gone": sorted(self._gone)})

    def heard(self) -> None:
        """A word, whatever it says."""
        if self._silent_since is not None:
            listening().end(self)
            self._silent_since, self._silences = None, 0

    def take(self, word: Word) -> None:
        """What the gate tells."""
        self.status = word
        self._noted()
        self._was_heard = True
        if self._first is not None:
            self._first.set_result(None)
            self._first = None

    def act(self, link: Link, seq: int) -> None:
        """Something is to be done before the gate goes on."""
        self._acting = asyncio.create_task(self._acted(link, seq))

    @property
    def acting(self) -> bool:
        """Whether that is under way: nothing more is read meanwhile."""
        return self._acting is not None

    def over(self, *, well: bool) -> None:
        """The connection has ended; `well`: by something that happens."""
        self._link = None
        if self._reaching is not None:
            # There is no word to wait for: the door is somebody else's.
            self._reaching.cancel()
        if not self._closed:
            self._task = asyncio.create_task(self._again(well))

    def reach(self) -> "asyncio.Task[None] | None":
        """Its turn to connect has come; None: it is closed."""
        if self._closed:
            return None
        self._reaching = asyncio.create_task(self._reach())
        return self._reaching

    # --- within

    def _send_claim(self) -> None:
        if self._claim is not None and self._link is not None:
            self._link.send({"op": "claim", "epoch": self._claim.number, "owner": self._claim.router})

    async def _acted(self, link: Link, seq: int) -> None:
        outcome = await self._guarded(self._act(self.replica_id))
        self._acting = None
        if outcome is None:
            link.send({"ack": seq})
            link.go_on()
        else:
            link.end(well=outcome)

    async def _again(self, well: bool) -> None:
        if self._acting is not None:
            await asyncio.wait([self._acting])
        if self.status is not None:
            # Not heard: it gets no new request until it is again.
            self.status = None
            self._noted()
            well = (await self._guarded(self._act(self.replica_id)) is not False) and well
        await self._pause(well=well)

    async def _pause(self, *, well: bool) -> None:
        self._silences += 1
        if self._silent_since is None:
            self._silent_since = listening().begin(self)
        await asyncio.sleep(RETRY_SECONDS if well else RECOVER_SECONDS)
        self._task = None
        doors().enter(self, self._silences)

    async def _reach(self) -> None:
        link = Link(self)
        well = await self._guarded(self._connect(link)) is not False
        if not link.was_made:
            self._reaching = None
            self._task = asyncio.create_task(self._pause(well=well))
            return
        # The next one has its turn when HAProxy was told of this one: what is to be told would pile up else.
        await self.first(SILENCE_SECONDS)
        if self._acting is not None:
            await asyncio.wait([self._acting])
        # From now on the connection tells.
        self._reaching = None

    async def _connect(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                if isinstance(self._control, Path):
                    await loop.create_unix_connection(lambda: link, str(self._control))
                else:
                    await loop.create_connection(lambda: link, self._control.host, self._control.port)
        except BaseException:
            # It may have been made just before its time was over: the loop has closed it then, and tells nobody.
            link.give_up()
            link.was_made = False
            raise

    async def _guarded(self, work: Awaitable[None]) -> bool | None:
        """None: done. False after an error that nobody has thought of: without the watch nobody would hear of the
        replica again."""
        try:
            await work
        except (OSError, ValueError):
            return True  # the gate is gone, or what answers is none
        except Exception:  # noqa: BLE001 - whatever it was is logged, and the watch begins anew
            _log.exception("the watch over the gate of %s failed; it begins anew", self.replica_id)
            return False
        return None
