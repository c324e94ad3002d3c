"""The gate's control socket: JSON lines. `{"op": "status"}` is answered; after `{"op": "watch"}` every change of
`ready`, `orphans` or the claim is pushed, and `{"ack": <seq>}` says that the watcher has acted on it.

Where several routers share a replica, a watcher says `{"op": "claim", "epoch": <number>, "owner": <router>}` before it
sends requests. The highest claim holds. The others are told first; once they have acted, the claimant sees its own.

`{"op": "status", "clock": <ms since 1970>}` also says what the clock shows by which its HAProxy stamps requests.

`{"gone": [<turn>]}` names requests that are still to come and whose clients have left.

Only on the gate's own socket, which nobody but its owner can enter: `{"op": "figures"}` is answered with what it
counted; `{"op": "report", "accessLog": …, "otlpEndpoint": …, "traceRatio": …}` with the status: from then on these are
told of its requests.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import cast

from pydantic import ValidationError

from aks_inference_runtime.router.gate.departed import Departed
from aks_inference_runtime.router.gate.reporting import Reporting
from aks_inference_runtime.router.gate.settings import GateStatus, Reported
from aks_inference_runtime.router.ownership import Epoch, may_claim

MAX_LINE_BYTES = 65_536
CLAIM_SECONDS = 0.05
"""How long a claim waits for the former owner to act; the gate's own limit holds in any case."""


class _Waiting:
    """An answer that waits for the watchers."""

    __slots__ = ("seq", "then", "timer")

    def __init__(self, seq: int, then: Callable[[], None]) -> None:
        self.seq = seq
        self.then = then
        self.timer: asyncio.TimerHandle | None = None


class Watchers:
    """Everyone who is told of changes, and what each has acknowledged."""

    def __init__(
        self,
        status: Callable[[int], GateStatus],
        disown: Callable[[], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.seq = 0
        self._status = status
        self._disown = disown
        self._claim: Epoch | None = None
        self._claimant: ControlConnection | None = None
        """Whose claim the others are still being told of; it sees the former one until then."""
        self._former: Epoch | None = None
        self._acknowledged: dict[ControlConnection, int] = {}
        self._waiting: list[_Waiting] = []
        self._wall = wall
        self._ahead_s: dict[ControlConnection, float] = {}

    def line(self, reader: "ControlConnection | None" = None) -> bytes:
        """The status as one line, as a connection may know it."""
        claim = self._former if reader is not None and reader is self._claimant else self._claim
        status = self._status(self.seq)
        if claim is not None:
            status = status.model_copy(update={"epoch": claim.number, "owner": claim.router})
        # An agent of an earlier release knows no `hung`.
        known = None if status.hung else {"hung"}
        return status.model_dump_json(by_alias=True, exclude=known).encode() + b"\n"

    def changed(self) -> None:
        """Tells everyone."""
        self.seq += 1
        for watcher in self._acknowledged:
            watcher.send(self.line(watcher))

    def claim(self, claimant: "ControlConnection", claim: Epoch) -> None:
        """A router wants to be the one that sends; one with a higher claim stays it. Nothing of before is its own."""
        if not may_claim(self._claim, claim):
            claimant.send(self.line())
            return
        if claim != self._claim:
            self._former, self._claim, self._claimant = self._claim, claim, claimant
            self._disown()
            self.changed()
            if claimant in self._acknowledged:
                self._acknowledged[claimant] = self.seq
        self.when_acknowledged(CLAIM_SECONDS, lambda: self._granted(claimant))

    def _granted(self, claimant: "ControlConnection") -> None:
        if self._claimant is claimant:
            self._claimant = None
            self.seq += 1
        claimant.send(self.line())

    def clock(self, watcher: "ControlConnection", shown_s: float) -> None:
        """What a watcher's clock showed when it sent that: its way here makes this one seem ahead, never behind."""
        self._ahead_s[watcher] = self._wall() - shown_s

    def ahead_s(self) -> float | None:
        """By how much this clock is ahead of those of all watchers, at least; None: none has told."""
        return max(self._ahead_s.values(), default=None)

    def add(self, watcher: "ControlConnection") -> None:
        """A new watcher, told the present state; older changes need no acknowledgement of its."""
        self._acknowledged[watcher] = self.seq
        watcher.send(self.line(watcher))

    def remove(self, watcher: "ControlConnection") -> None:
        """A watcher is gone: nobody waits for it."""
        self._acknowledged.pop(watcher, None)
        self._ahead_s.pop(watcher, None)
        self._settle()

    def acknowledge(self, watcher: "ControlConnection", seq: int) -> None:
        """A watcher has acted on everything up to this."""
        if watcher in self._acknowledged:
            self._acknowledged[watcher] = max(seq, self._acknowledged[watcher])
            self._settle()

    def when_acknowledged(self, seconds: float, then: Callable[[], None]) -> None:
        """Calls back once all watchers have acknowledged the newest state, or after so many seconds."""
        waiting = _Waiting(self.seq, then)
        self._waiting.append(waiting)
        waiting.timer = asyncio.get_running_loop().call_later(seconds, self._release, waiting)
        self._settle()

    def _settle(self) -> None:
        lowest = min(self._acknowledged.values(), default=self.seq)
        for waiting in [w for w in self._waiting if w.seq <= lowest]:
            self._release(waiting)

    def _release(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        if waiting.timer is not None:
            waiting.timer.cancel()
        waiting.then()


class ControlConnection(asyncio.Protocol):
    """One client of the control socket."""

    def __init__(self, watchers: Watchers, departed: Departed, reporting: Reporting | None = None) -> None:
        """`reporting`: what the gate's owner may ask for; None: whoever speaks here is not its owner."""
        self._watchers = watchers
        self._departed = departed
        self._reporting = reporting
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._watchers.remove(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_LINE_BYTES:
            self._refuse("the line is too long")
            return
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            self._handle(message)

    def send(self, line: bytes) -> None:
        """Sends, if the client is still there."""
        if self._transport is not None:
            self._transport.write(line)

    def _handle(self, message: object) -> None:
        match message:
            case {"op": "status", "clock": int(told_ms)}:
                self._watchers.clock(self, told_ms / 1_000)
                self.send(self._watchers.line(self))
            case {"op": "status"}:
                self.send(self._watchers.line(self))
            case {"op": "watch"}:
                self._watchers.add(self)
            case {"op": "claim", "epoch": int(number), "owner": str(router)}:
                self._watchers.claim(self, Epoch(number, router))
            case {"ack": int(seq)}:
                self._watchers.acknowledge(self, seq)
            case {"gone": list(turns)}:
                self._departed.add(map(str, turns))
            case {"op": "figures"} if self._reporting is not None:
                self.send(self._reporting.figures().model_dump_json(by_alias=True).encode() + b"\n")
            case {"op": "report", **wanted} if self._reporting is not None:
                self._report(self._reporting, wanted)
            case _:
                self._refuse("unknown request; known: op=status, op=watch, op=claim, ack=<seq>, gone=[<turn>]")

    def _report(self, reporting: Reporting, wanted: Mapping[object, object]) -> None:
        try:
            reporting.report(Reported.model_validate(wanted))
        except ValidationError as error:
            self._refuse(f"report: {error.errors()[0]['msg']}")
        else:
            self.send(self._watchers.line(self))

    def _refuse(self, message: str) -> None:
        self.send(json.dumps({"error": message}).encode() + b"\n")
        if self._transport is not None:
            self._transport.close()
