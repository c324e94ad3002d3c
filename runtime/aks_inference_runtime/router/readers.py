"""Clients that do not read what HAProxy still holds of an answer, after the replica's gate is done with it.

The gate cuts who reads too slowly, but what the system and HAProxy had taken by then is read on, and HAProxy keeps the
replica's slot for it: it does not notice that the gate has gone before it has room for the next piece, and ends a
client only that takes nothing at all for `timeout client`. So the agent looks where HAProxy holds requests of a replica
and its gate none, for a while and with no new one: who is too slow there, by the gate's own rule, is ended.

Where a replica has other requests besides, it is left to `timeout client`: nothing tells which is whose.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.gate.reading import Reading
from aks_inference_runtime.router.slots import Slot

GRACE_SECONDS = 30.0
"""As `GateSettings.reader_timeout_ms`; counted anew."""
STILL_SECONDS = 2.0
"""Nothing new for so long: else the figures of HAProxy and gate differ by when they were taken."""
LOOK_SECONDS = 2.0
MOST = 50
"""Streams of a process that are looked at."""
_LINE = re.compile(r"(0x[0-9a-f]+): proto=.* be=(s\d+) srv=(\S+) .* scf=\[[^\]]*,wex=([^,\]]*)\]")
_TOTAL = re.compile(r"^  res=0x[0-9a-f]+ \(.* total=(\d+)\)", re.MULTILINE)
_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """Requests of a replica that HAProxy has and its gate has not."""

    slot: Slot
    replica_id: str
    total: int
    """That were sent there since the server was made."""


class _Stream(NamedTuple):
    process: int
    address: str
    slot: Slot
    replica_id: str


def blocked(text: str, process: int) -> list[tuple[str, Slot, str]]:
    """From `show sess`: streams with something for their client that it does not take, with slot and server."""
    found = (_LINE.match(line) for line in text.splitlines() if "srv=<none>" not in line)
    return [(m[1], Slot(process, int(m[2][1:])), m[3]) for m in found if m and m[4]][:MOST]


def taken(text: str) -> int | None:
    """From `show sess <stream>`: bytes of the answer that went through."""
    match = _TOTAL.search(text)
    return int(match[1]) if match else None


class Readers:
    """Keeps how fast they are."""

    def __init__(self, admin_of: Callable[[int], AdminSocket]) -> None:
        self._admin_of = admin_of
        self._still: dict[tuple[Slot, str], tuple[int, float]] = {}
        """Total, and since when it is that."""
        self._known: dict[_Stream, tuple[int, Reading]] = {}
        self._next = 0.0

    async def look(self, held: Iterable[Held]) -> None:
        """Ends who is too slow."""
        now = asyncio.get_running_loop().time()
        before, self._still = self._still, {}
        for one in held:
            total, since = before.get((one.slot, one.replica_id), (one.total, now))
            self._still[one.slot, one.replica_id] = (one.total, since if total == one.total else now)
        still = {key for key, (_, since) in self._still.items() if now - since >= STILL_SECONDS}
        self._known = {stream: value for stream, value in self._known.items() if stream[2:] in still}
        if not still or now < self._next:
            return
        self._next = now + LOOK_SECONDS
        for process in {slot.process for slot, _ in still}:
            try:
                await self._look(process, still, now)
            except RuntimeUnavailable:
                continue

    async def _look(self, process: int, still: set[tuple[Slot, str]], now: float) -> None:
        admin = self._admin_of(process)
        streams = [
            _Stream(process, address, slot, replica_id)
            for address, slot, replica_id in blocked(await admin.run("show sess"), process)
            if (slot, replica_id) in still
        ]
        for stream in [known for known in self._known if known.process == process and known not in streams]:
            del self._known[stream]
        for stream in streams:
            total = taken(await admin.run(f"show sess {stream.address}"))
            if total is None:
                continue
            before, reading = self._known.get(stream) or (total, Reading(GRACE_SECONDS, now))
            reading.took(total - before, now)
            self._known[stream] = total, reading
            if reading.left_s(now) <= 0:
                del self._known[stream]
                await admin.run(f"shutdown session {stream.address}")
                _log.info("replica %s: a client that does not read its answer is let go", stream.replica_id)
