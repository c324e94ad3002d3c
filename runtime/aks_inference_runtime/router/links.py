"""One connection of the agent to a gate's control: questions, words, acknowledgements, and how long it may be silent.

There may be thousands: while nothing happens one is a transport, a timer and the last word.
"""

import asyncio
import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from aks_inference_runtime.router.gate.settings import GateStatus
from aks_inference_runtime.router.ownership import Epoch

BUSY_SECONDS = 0.1
"""Between questions to a gate at which something runs or waits."""
SILENCE_SECONDS = 0.7
"""A gate that is silent for so long (paused, dead) gets no new request."""
CLOCK_SECONDS = 0.002
"""A timer may ring so much before its time."""
LATE_SECONDS = 0.1
"""An agent whose timer rings so late has not listened: what gates have said is read before one is given up."""


@dataclass(frozen=True, slots=True)
class Word:
    """What the agent keeps of a gate's status (`GateStatus`): a tenth of its size."""

    ready: bool
    max_concurrent: int
    running: int
    orphans: int
    waiting: int
    served_total: int
    claim: Epoch | None
    """The one that holds."""


class Watch(Protocol):
    """Whose connection it is."""

    replica_id: str

    @property
    def busy(self) -> bool:
        """Whether something runs or waits there."""

    @property
    def acting(self) -> bool:
        """Whether something is being done that the gate waits for: nothing more is read meanwhile."""

    @property
    def pause_s(self) -> float:
        """Between questions now."""

    @property
    def patience_s(self) -> float:
        """How long it may be silent now."""

    def made(self, link: "Link") -> None:
        """Connected."""

    def heard(self) -> None:
        """A word, whatever it says."""

    def take(self, word: Word) -> None:
        """What the gate tells."""

    def act(self, link: "Link", seq: int) -> None:
        """Something is to be done before the gate goes on."""

    def over(self, *, well: bool) -> None:
        """The connection has ended; `well`: by something that happens."""


class Link(asyncio.Protocol):
    """One connection to a gate, from its begin to its end."""

    __slots__ = (
        "_acted",
        "_ask_at",
        "_before",
        "_deadline",
        "_ended",
        "_lines",
        "_loop",
        "_rest",
        "_rings_at",
        "_spared",
        "_timer",
        "_transport",
        "_watch",
        "was_made",
    )

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._lines: list[bytes] | None = None
        self._before = b""
        self._acted = -1
        self._timer: asyncio.TimerHandle | None = None
        self._ask_at = self._deadline = self._rings_at = 0.0
        self._ended = self._spared = False
        self.was_made = False

    # --- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.was_made = True
        self._watch.made(self)
        now = self._loop.time()
        self._deadline = now + self._watch.patience_s
        # Not all gates at once.
        self._ask_at = now + self._watch.pause_s * zlib.crc32(self._watch.replica_id.encode()) / 2**32
        self._wait()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._lines = lines if self._lines is None else self._lines + lines
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(well=True)

    # --- from the watch

    def send(self, message: Mapping[str, object]) -> None:
        """A line."""
        self._write(json.dumps(message).encode() + b"\n")

    def ask(self) -> None:
        """How it is, and what the clock shows here."""
        # Of thousands each is asked again and again.
        self._write(b'{"op": "status", "clock": %d}\n' % int(time.time() * 1_000))

    def look_closely(self) -> None:
        """Asks now; silence counts from now on."""
        self.ask()
        self._deadline = min(self._deadline, self._loop.time() + SILENCE_SECONDS)
        self._wait()

    def go_on(self) -> None:
        """What had to be done is done."""
        self._be_patient()
        self._read()

    def end(self, *, well: bool) -> None:
        """Once."""
        if not self._ended:
            self.give_up()
            self._watch.over(well=well)

    def give_up(self) -> None:
        """Ends it without a word to the watch."""
        self._ended = True
        self._lines = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # --- within

    def _write(self, line: bytes) -> None:
        # One that is closing tells so in a moment; uvloop's raises meanwhile.
        if self._transport is not None and not self._ended and not self._transport.is_closing():
            self._transport.write(line)

    def _read(self) -> None:
        watch = self._watch
        while self._lines and not watch.acting and not self._ended:
            line = self._lines.pop(0)
            watch.heard()
            if line != self._before:
                self._before = line
                self._take(line)
            self._be_patient()
        if not self._lines:
            self._lines = None

    def _take(self, line: bytes) -> None:
        watch, idle = self._watch, not self._watch.busy
        try:
            status = GateStatus.model_validate_json(line)
        except ValueError:
            self.end(well=True)
            return
        watch.take(
            Word(
                ready=status.ready,
                max_concurrent=status.max_concurrent,
                running=status.running,
                orphans=status.orphans,
                waiting=status.waiting,
                served_total=status.served_total,
                claim=Epoch(status.epoch, status.owner) if status.owner else None,
            )
        )
        if idle and watch.busy:
            self._ask_at = self._loop.time() + BUSY_SECONDS
            self._wait()
        if status.seq != self._acted:
            self._acted = status.seq
            watch.act(self, status.seq)

    def _be_patient(self) -> None:
        """The timer is moved when it rings: each line would move it for nothing."""
        self._deadline = self._loop.time() + self._watch.patience_s
        self._spared = False
        self._wait()

    def _wait(self) -> None:
        at = min(self._ask_at, self._deadline)
        if self._ended or (self._timer is not None and self._rings_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._rings)

    def _rings(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._watch.acting:
            self._be_patient()
        elif now + CLOCK_SECONDS >= self._deadline:
            if self._spared or now - self._rings_at < LATE_SECONDS:
                self.end(well=True)
                return
            self._spared, self._deadline = True, now + LATE_SECONDS
        if now + CLOCK_SECONDS >= self._ask_at:
            self.ask()
            self._ask_at = now + self._watch.pause_s
        self._wait()
