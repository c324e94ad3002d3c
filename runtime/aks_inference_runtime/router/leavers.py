"""Requests in HAProxy's queues whose clients have left.

HAProxy drops such a request from its queue only with `option abortonclose`, which also frees the slots of requests that
run (I1). Without it, it does not listen to a client whose request it has (and notices by chance). So the agent asks the
system which of the clients that wait are still connected, and tells the gates who has left: the request is not run when
its turn comes, and meanwhile counts neither for the bound of the queue nor for the autoscaler. Its turn is named by a
header that only requests get which find all slots taken: `<pid of HAProxy>-<number of the request>`. A request that has
been handed to a server is never touched.

A further process (see `slots`) has its requests by a Unix socket, of which the system does not tell as much: there it
is HAProxy's chance that counts.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.connections import CLOSE_WAIT, ESTABLISHED, PROTOCOLS, Connection, connections, words
from aks_inference_runtime.router.observing import Observations
from aks_inference_runtime.router.slots import Slot

LOOK_SECONDS = 0.25
"""Between looks, at least: HAProxy serves nobody in the millisecond that it needs to tell of its streams."""
ALL_SECONDS = 2.0
"""At least so often all who wait are gone through, whether or not a connection seems to have ended."""
BYTES_PER_SECOND = 500_000
"""Of what is read: with thousands of streams and connections the looks become rarer."""
MOST = 200
"""Leavers that one look asks the particulars of; the rest has its turn at the next."""

_EOS = 0x40000 | 0x10000 | 0x4
"""Flags of a stream's client side: end of input seen, aborted, failed (SC_FL_EOS, SC_FL_ABRT_DONE, SC_FL_ERROR; the
same from HAProxy 2.8 to 3.5)."""
_LINE = re.compile(r"(0x[0-9a-f]+): proto=(\S+) src=(\S+) .* be=s\d+ srv=<none> .* scf=\[\d+,([0-9a-f]+)h,.* scb=\[2,")
"""A stream in a slot's queue (state 2 of its server side)."""
_FULL = re.compile(
    r"^0x[0-9a-f]+: \[[^\n]*\] id=(\d+) proto=\S+ source=(\S+).*?\n  backend=s(\d+) .*?"
    r"\n  scb=\S+ flags=\S+ state=QUE ",
    re.DOTALL,
)


@dataclass(frozen=True)
class Waiting:
    """A stream that waits for a server."""

    stream: str
    """Its address in HAProxy; used again after its end, hence the source too."""
    protocol: str
    source: str
    closed: bool
    """HAProxy knows that its client is gone."""


def waiting(text: str) -> list[Waiting]:
    """From `show sess`."""
    found = (_LINE.match(line) for line in text.splitlines() if "srv=<none>" in line)
    return [Waiting(m[1], m[2], m[3], bool(int(m[4], 16) & _EOS)) for m in found if m]


def left(streams: Iterable[Waiting], ends: Mapping[str, Mapping[str, str]]) -> tuple[list[Waiting], list[Waiting]]:
    """Those whose client is gone, and those whose connection is not to be found; `ends`: `remote_ends` by protocol."""
    gone, missing = [], []
    for one in streams:
        state = ends[one.protocol].get(remote_end(one.source)) if one.protocol in ends else ESTABLISHED
        if one.closed or state == CLOSE_WAIT:
            gone.append(one)
        elif state is None:
            missing.append(one)
    return gone, missing


def remote_end(source: str) -> str:
    """`<address>:<port>` as `Connection` has it."""
    host, _, port = source.rpartition(":")
    return f"{words(ip_address(host).packed)}:{int(port):04X}"


def remote_ends(found: Iterable[Connection]) -> dict[str, str]:
    """State by remote end."""
    ends: dict[str, str] = {}
    for one in found:
        if ends.get(one.remote_end) != ESTABLISHED:
            ends[one.remote_end] = one.state
    return ends


def particulars(text: str) -> tuple[str, int, int] | None:
    """From `show sess <stream>`: source, number of the slot and of the request, if it still waits."""
    match = _FULL.match(text)
    return (match[2], int(match[3]), int(match[1])) if match is not None else None


class Leavers:
    """Keeps who has left, by slot."""

    def __init__(
        self,
        admin_of: Callable[[int], AdminSocket],
        pid_of: Callable[[int], int | None],
        port: int | None = None,
        owner_port: int | None = None,
    ) -> None:
        """
        Args:
            admin_of, pid_of: Required. Of a process.
            port: Optional. The one by which all who wait in the first process have come.
            owner_port: Optional. Among several routers the one by which all who wait have come: the agent has a
                connection to each gate, too, and to read of ten thousand takes it a tenth of a second.
        """
        self._admin_of = admin_of
        self._pid_of = pid_of
        self._port = port
        self._owner_port = owner_port
        self._all_at = 0.0
        self._turns: dict[Slot, frozenset[str]] = {}
        self._known: dict[tuple[int, Waiting], tuple[Slot, str]] = {}
        """Particulars by process and stream."""
        self._missing: set[tuple[int, Waiting]] = set()
        self._next = 0.0
        self._bytes = 0

    def of(self, slots: Iterable[Slot]) -> frozenset[str]:
        """Turns that have left and still have a place in these slots' queues."""
        return frozenset[str]().union(*(self._turns.get(slot, ()) for slot in slots))

    def counts(self) -> Mapping[Slot, int]:
        """How many, by slot."""
        return {slot: len(turns) for slot, turns in self._turns.items()}

    def forget(self, process: int) -> None:
        """The process has ended, and its queues with it."""
        self._turns = {slot: turns for slot, turns in self._turns.items() if slot.process != process}
        self._known = {key: value for key, value in self._known.items() if key[0] != process}
        self._missing = {key for key in self._missing if key[0] != process}

    async def look(self, seen: Observations) -> None:
        """Looks where requests wait, not more often than its cost allows."""
        queued = {slot for observation in seen.values() for slot in observation.queued_slots()}
        processes = {slot.process for slot in queued}
        self._turns = {slot: turns for slot, turns in self._turns.items() if slot in queued}
        self._known = {key: value for key, value in self._known.items() if key[0] in processes}
        now = asyncio.get_running_loop().time()
        if not processes or now < self._next:
            return
        self._bytes = 0
        turns: dict[Slot, set[str]] = {}
        for process in processes:
            try:
                for slot, turn in await self._look(process):
                    turns.setdefault(slot, set()).add(turn)
            except RuntimeUnavailable:
                continue
        self._turns = {slot: frozenset(names) for slot, names in turns.items()}
        self._next = now + max(LOOK_SECONDS, self._bytes / BYTES_PER_SECOND)

    async def _look(self, process: int) -> list[tuple[Slot, str]]:
        admin, pid = self._admin_of(process), self._pid_of(process)
        if process == 0 and not await self._suspect(admin):
            return []
        text = await admin.run("show sess")
        self._bytes += len(text)
        streams = waiting(text)
        # Looked at after HAProxy has told who waits: who is not connected now has left. The system's table may lack a
        # row that was moved while it was read, but not twice.
        gone, missing = left(streams, self._ends(streams))
        gone += [one for one in missing if (process, one) in self._missing]
        self._missing = {key for key in self._missing if key[0] != process} | {(process, one) for one in missing}
        known = self._known
        new = [one for one in gone if (process, one) not in known][:MOST]
        if new:
            by_stream = {one.stream: one for one in new}
            answers = await admin.run(";".join(f"show sess {one.stream}" for one in new))
            self._bytes += len(answers)
            for text in re.split(r"\n(?=0x[0-9a-f]+: \[)", answers):
                one = by_stream.get(text.partition(":")[0])
                found = particulars(text)
                if one is not None and found is not None and found[0] == one.source:
                    known[process, one] = Slot(process, found[1]), f"{pid}-{found[2]}"
        present = set(gone)
        for key in [key for key in known if key[0] == process and key[1] not in present]:
            del known[key]
        return [value for key, value in known.items() if key[0] == process]

    async def _suspect(self, admin: AdminSocket) -> bool:
        """Whether somebody may have left: what HAProxy tells of each who waits costs it milliseconds."""
        now = asyncio.get_running_loop().time()
        known = any(process == 0 for process, _ in self._known)
        if self._port is None or known or self._missing or now - self._all_at > ALL_SECONDS:
            self._all_at = now
            return True
        held = await admin.connections()
        whole = 0
        for protocol in PROTOCOLS:
            if (told := connections(protocol, self._port)) is None:
                continue
            self._bytes += told.bytes
            if any(one.state == CLOSE_WAIT for one in told.connections):
                return True
            whole += len(told.connections)
        # One that was reset is in no table any more.
        return whole < held

    def _ends(self, streams: Iterable[Waiting]) -> dict[str, dict[str, str]]:
        ends: dict[str, dict[str, str]] = {}
        for protocol in {one.protocol for one in streams} & PROTOCOLS:
            # Where the system does not tell, what HAProxy notices has to do.
            if (told := connections(protocol, self._owner_port)) is not None:
                self._bytes += told.bytes
                ends[protocol] = remote_ends(told.connections)
        return ends
