"""Requests in HAProxy's queues whose clients have left.

HAProxy drops such a request from its queue only with `option abortonclose`, which also frees the slots of requests that
run (I1). Without it, it knows that the client has closed its side and keeps the request's place. So the agent reads who
has left, and tells the gates: the request is not run when its turn comes, and meanwhile counts neither for the bound of
the queue nor for the autoscaler. Its turn is named by a header that only requests get which find all slots taken:
`<pid of HAProxy>-<number of the request>`. A request that has been handed to a server is never touched.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.slots import Slot
from aks_inference_runtime.router.versions import Observations

LOOK_SECONDS = 0.1
"""Between looks, at least."""
BYTES_PER_SECOND = 1_000_000
"""Of what HAProxy tells: with thousands of streams the looks become rarer. That is a few per cent of a core."""
MOST = 200
"""Leavers that one look asks the particulars of; the rest has its turn at the next."""

_EOS = 0x40000 | 0x10000 | 0x4
"""Flags of a stream's client side: end of input seen, aborted, failed (SC_FL_EOS, SC_FL_ABRT_DONE, SC_FL_ERROR; the
same from HAProxy 2.8 to 3.5)."""
_LINE = re.compile(r"(0x[0-9a-f]+): (\S+ \S+) .* be=s\d+ srv=<none> .* scf=\[\d+,([0-9a-f]+)h,.* scb=\[2,")
"""A stream in a slot's queue (state 2 of its server side)."""
_FULL = re.compile(
    r"^0x[0-9a-f]+: \[[^\n]*\] id=(\d+) .*?\n  backend=s(\d+) .*?\n  scf=\S+ flags=(0x[0-9a-f]+) .*?"
    r"\n  scb=\S+ flags=\S+ state=QUE ",
    re.DOTALL,
)


def left(text: str) -> list[tuple[str, str]]:
    """From `show sess`: the streams that wait in a queue and whose client is gone, each with its source."""
    found = (_LINE.match(line) for line in text.splitlines() if "srv=<none>" in line)
    return [(match[1], match[2]) for match in found if match and int(match[3], 16) & _EOS]


def particulars(text: str) -> tuple[int, int] | None:
    """From `show sess <stream>`: number of the slot and of the request, if it still waits and its client is gone."""
    match = _FULL.match(text)
    if match is None or not int(match[3], 16) & _EOS:
        return None
    return int(match[2]), int(match[1])


class Leavers:
    """Keeps who has left, by slot."""

    def __init__(self, admin_of: Callable[[int], AdminSocket], pid_of: Callable[[int], int | None]) -> None:
        self._admin_of = admin_of
        self._pid_of = pid_of
        self._turns: dict[Slot, frozenset[str]] = {}
        self._known: dict[tuple[int, tuple[str, str]], tuple[Slot, str]] = {}
        """Particulars by process and stream; the address of a stream is used again, hence its source too."""
        self._next = 0.0
        self._bytes = 0

    def of(self, slots: Iterable[Slot]) -> frozenset[str]:
        """Turns that have left and still have a place in these slots' queues."""
        return frozenset[str]().union(*(self._turns.get(slot, ()) for slot in slots))

    def counts(self) -> Mapping[Slot, int]:
        """How many, by slot."""
        return {slot: len(turns) for slot, turns in self._turns.items()}

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
        text = await admin.run("show sess")
        self._bytes += len(text)
        streams = left(text)
        known = self._known
        new = [stream for stream in streams if (process, stream) not in known][:MOST]
        if new:
            by_address = {stream[0]: stream for stream in new}
            answers = await admin.run(";".join(f"show sess {address}" for address, _ in new))
            self._bytes += len(answers)
            for text in re.split(r"\n(?=0x[0-9a-f]+: \[)", answers):
                if (found := particulars(text)) is not None:
                    known[process, by_address[text.partition(":")[0]]] = Slot(process, found[0]), f"{pid}-{found[1]}"
        present = set(streams)
        for key in [key for key in known if key[0] == process and key[1] not in present]:
            del known[key]
        return [value for key, value in known.items() if key[0] == process]
