"""The agent's lasting connection to each gate: hears of orphans, readiness and claims, and acknowledges.

There may be thousands: while nothing happens one is a transport and two timers, no task.
"""

import asyncio
import json
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import ClassVar, cast

from aks_inference_runtime.router.gate.settings import GateStatus
from aks_inference_runtime.router.model import ControlAddress
from aks_inference_runtime.router.ownership import Epoch

ASK_SECONDS = 0.3
"""Between questions to a gate that nothing is known to go through."""
MOST_QUESTIONS_PER_S = 2_000
"""To all those together: of thousands each is asked less often, and at once when a request is on its way."""
BUSY_SECONDS = 0.1
"""Between questions to one at which something runs or waits."""
SILENCE_SECONDS = 0.7
"""A gate that is silent for so long (paused, dead) gets no new request."""
LOST_SECONDS = 5.0
"""A gate that is silent for so long is lost, or the way to it is: what it has in hand is not waited for. A process that
was stopped for a moment, or a machine that is moved, goes on sooner."""
LOST_TRIES = 5
"""So many connections must have heard nothing meanwhile: an agent that stood still has not listened."""
RETRY_SECONDS = 0.1
RECOVER_SECONDS = 1.0
"""After an error that nobody has thought of: it will come again, and each one is logged."""
CLOCK_SECONDS = 0.002
"""A timer may ring so much before its time."""
_log = logging.getLogger(__name__)

Act = Callable[[str], Awaitable[None]]


class GateWatch:
    """Watches one gate until closed."""

    _open: ClassVar[int] = 0
    """Watches of this agent."""

    def __init__(self, replica_id: str, control: Path | ControlAddress, act: Act, claim: Epoch | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.replica_id = replica_id
        self.status: GateStatus | None = None
        """The newest; None while the gate is not heard."""
        self._control = control
        self._act = act
        self._claim = claim
        self._link: _Link | None = None
        self._first: asyncio.Future[None] = loop.create_future()
        self._began = loop.time()
        self._gone: frozenset[str] = frozenset()
        self._silent_since: float | None = None
        self._silences = 0
        self._acting: asyncio.Task[None] | None = None
        self._closed = False
        GateWatch._open += 1
        self._task = asyncio.create_task(self._reach())

    @property
    def unheard(self) -> bool:
        """The watch has just begun, and there is no word yet."""
        return not self._first.done() and asyncio.get_running_loop().time() - self._began < SILENCE_SECONDS

    @property
    def lost(self) -> bool:
        """Nothing was heard of it for so long that its answers are not waited for any more."""
        if self._silent_since is None or self._silences < LOST_TRIES:
            return False
        return asyncio.get_running_loop().time() - self._silent_since >= LOST_SECONDS

    @property
    def granted(self) -> bool:
        """Whether the gate takes this router's requests for the owner's; without a claim there is none to ask."""
        return self._claim is None or (self.status is not None and _claim(self.status) == self._claim)

    @property
    def superseded_by(self) -> Epoch | None:
        """A higher claim than the own one."""
        claim = None if self.status is None else _claim(self.status)
        return claim if claim is not None and self._claim is not None and claim > self._claim else None

    @property
    def epoch(self) -> int:
        """Of the claim that holds, as far as is known."""
        return 0 if self.status is None else self.status.epoch

    def claim(self, claim: Epoch | None) -> None:
        """Says that this router sends from now on; None: that it does not."""
        if claim != self._claim:
            self._claim = claim
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
        await asyncio.wait([self._first], timeout=timeout_s)

    async def close(self) -> None:
        """Ends the watch."""
        GateWatch._open -= 1
        self._closed = True
        if self._link is not None:
            self._link.end(well=True)
        tasks = [task for task in (self._task, self._acting) if task is not None]
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

    def made(self, link: "_Link") -> None:
        """Connected."""
        self._link = link
        link.send({"op": "watch"})
        link.ask()
        self._send_claim()
        if self._gone:
            link.send({"gone": sorted(self._gone)})

    def heard(self) -> None:
        """A word, whatever it says."""
        self._silent_since, self._silences = None, 0

    def take(self, status: GateStatus) -> None:
        """What the gate tells."""
        self.status = status
        if not self._first.done():
            self._first.set_result(None)

    def act(self, link: "_Link", seq: int) -> None:
        """Something is to be done before the gate goes on."""
        self._acting = asyncio.create_task(self._acted(link, seq))

    @property
    def acting(self) -> bool:
        """Whether that is under way: nothing more is read meanwhile."""
        return self._acting is not None

    def over(self, *, well: bool) -> None:
        """The connection has ended; `well`: by something that happens."""
        self._link = None
        if not self._closed:
            self._task = asyncio.create_task(self._again(well))

    # --- within

    def _send_claim(self) -> None:
        if self._claim is not None and self._link is not None:
            self._link.send({"op": "claim", "epoch": self._claim.number, "owner": self._claim.router})

    async def _acted(self, link: "_Link", seq: int) -> None:
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
            well = (await self._guarded(self._act(self.replica_id)) is not False) and well
        self._note_silence()
        await asyncio.sleep(RETRY_SECONDS if well else RECOVER_SECONDS)
        await self._reach()

    async def _reach(self) -> None:
        """Until connected: from then on the connection tells."""
        while True:
            link = _Link(self)
            well = await self._guarded(self._connect(link)) is not False
            if link.was_made:
                return
            self._note_silence()
            await asyncio.sleep(RETRY_SECONDS if well else RECOVER_SECONDS)

    async def _connect(self, link: "_Link") -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SILENCE_SECONDS):
            if isinstance(self._control, Path):
                await loop.create_unix_connection(lambda: link, str(self._control))
            else:
                await loop.create_connection(lambda: link, self._control.host, self._control.port)

    def _note_silence(self) -> None:
        self._silences += 1
        if self._silent_since is None:
            self._silent_since = asyncio.get_running_loop().time()

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


class _Link(asyncio.Protocol):
    """One connection to a gate, from its begin to its end."""

    __slots__ = (
        "_acted",
        "_before",
        "_deadline",
        "_ended",
        "_lines",
        "_loop",
        "_patience",
        "_question",
        "_rest",
        "_rings_at",
        "_transport",
        "_watch",
        "was_made",
    )

    def __init__(self, watch: GateWatch) -> None:
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._lines: list[bytes] = []
        self._before = b""
        self._acted = -1
        self._question: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._deadline = self._rings_at = 0.0
        self._ended = False
        self.was_made = False

    # --- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.was_made = True
        self._watch.made(self)
        self._be_patient()
        # Not all gates at once.
        self._ask_after(self._watch.pause_s * zlib.crc32(self._watch.replica_id.encode()) / 2**32)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += lines
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(well=True)

    # --- from the watch

    def send(self, message: Mapping[str, object]) -> None:
        """A line."""
        # One that is closing tells so in a moment; uvloop's raises meanwhile.
        if self._transport is not None and not self._ended and not self._transport.is_closing():
            self._transport.write(json.dumps(message).encode() + b"\n")

    def ask(self) -> None:
        """How it is, and what the clock shows here."""
        self.send({"op": "status", "clock": int(time.time() * 1_000)})

    def look_closely(self) -> None:
        """Asks now; silence counts from now on."""
        self.ask()
        soon = self._loop.time() + SILENCE_SECONDS
        if self._deadline > soon:
            self._deadline = soon
            self._wait()

    def go_on(self) -> None:
        """What had to be done is done."""
        self._be_patient()
        self._read()

    def end(self, *, well: bool) -> None:
        """Once."""
        if self._ended:
            return
        self._ended = True
        for timer in (self._question, self._patience):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._watch.over(well=well)

    # --- within

    def _read(self) -> None:
        watch = self._watch
        while self._lines and not watch.acting and not self._ended:
            line = self._lines.pop(0)
            watch.heard()
            if line != self._before:
                self._before = line
                self._take(line)
            self._be_patient()

    def _take(self, line: bytes) -> None:
        watch, idle = self._watch, not self._watch.busy
        try:
            status = GateStatus.model_validate_json(line)
        except ValueError:
            self.end(well=True)
            return
        watch.take(status)
        if idle and watch.busy:
            self._ask_after(BUSY_SECONDS)
        if status.seq != self._acted:
            self._acted = status.seq
            watch.act(self, status.seq)

    def _ask_after(self, seconds: float) -> None:
        if self._question is not None:
            self._question.cancel()
        self._question = self._loop.call_later(seconds, self._ask_again)

    def _ask_again(self) -> None:
        self.ask()
        self._ask_after(self._watch.pause_s)

    def _be_patient(self) -> None:
        """The timer is moved when it rings: a line a second would move it for nothing."""
        self._deadline = self._loop.time() + self._watch.patience_s
        if self._patience is None or self._rings_at > self._deadline:
            self._wait()

    def _wait(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if not self._ended:
            self._rings_at = self._deadline
            self._patience = self._loop.call_at(self._rings_at, self._rings)

    def _rings(self) -> None:
        self._patience = None
        if self._watch.acting:
            self._be_patient()
        elif self._loop.time() + CLOCK_SECONDS < self._deadline:
            self._wait()
        else:
            self.end(well=True)


def _claim(status: GateStatus) -> Epoch | None:
    return Epoch(status.epoch, status.owner) if status.owner else None
