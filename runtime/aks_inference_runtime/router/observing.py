"""How the agent looks at HAProxy's figures: often at what is in use, rarely at all.

HAProxy serves nobody while it writes them, and a process has hundreds of prepared slots. Where hundreds are in use, the
backends' counts tell which of them have moved, and only those are looked at.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.admin import AdminSocket, Counts, ServerRow, Stat
from aks_inference_runtime.router.servers import Servers
from aks_inference_runtime.router.slots import Slot

ALL_SECONDS = 1.0
"""Between looks at all slots and ways to other processes."""
MOST_SLOTS = 24
"""In use, asked for one by one; with more of them all are asked for at once."""
MOVED_PART = 4
"""Of all slots so large a part is asked for one by one: to look at a thousand with ten replicas takes HAProxy
and the agent 90 ms, and meanwhile as many move again."""
MOST_MOVED = 400
"""HAProxy takes no line that is much longer."""
SLOT = re.compile(r"s\d+")
"""Name of a slot's backend."""


@dataclass(frozen=True)
class Observation:
    """What one HAProxy process showed, and when (the loop's clock)."""

    process: int
    stat: Stat
    at: float

    def still(self, at: float) -> "Observation":
        """Nothing has moved until then."""
        return replace(self, at=at)

    def rows(self) -> Iterable[tuple[Slot, tuple[ServerRow, ...]]]:
        """Servers by slot."""
        for backend, rows in self.stat.servers.items():
            if backend.startswith("s"):
                yield Slot(self.process, int(backend[1:])), rows

    def queued_slots(self) -> Iterable[Slot]:
        """Slots in which requests wait."""
        for backend, row in self.stat.backends.items():
            if row.queued and backend[1:].isdigit():
                yield Slot(self.process, int(backend[1:]))


Observations = Mapping[int, Observation]


def partial(used: Collection[int], since_all_s: float) -> bool:
    """Whether a look at these slots only is enough."""
    return len(used) <= MOST_SLOTS and since_all_s < ALL_SECONDS


def moved_slots(before: Stat, counts: Counts) -> Collection[int] | None:
    """The slots that have other counts than before, or requests; None: too many to be asked for one by one."""
    found = [backend for backend, row in counts.items() if before.counts.get(backend) != row]
    found += [backend for backend in before.backends.keys() - set(found) if before.has_requests(backend)]
    numbers = sorted(int(backend[1:]) for backend in found if SLOT.fullmatch(backend))
    most = min(MOST_MOVED, max(MOST_SLOTS, len(counts) // MOVED_PART))
    return numbers if len(numbers) <= most else None


class Observer:
    """Keeps what each process showed last."""

    def __init__(self, admin_of: Callable[[int], AdminSocket], servers: Servers) -> None:
        self.seen: dict[int, Observation] = {}
        self._admin_of = admin_of
        self._servers = servers
        self._all_at: dict[int, float] = {}

    def forget(self, process: int) -> None:
        """It has ended, or is another one."""
        self.seen.pop(process, None)
        self._all_at.pop(process, None)

    async def look(self, used: Mapping[int, Collection[Slot]], *, everything: bool = False) -> bool:
        """Looks at these processes and their slots in use.

        True when requests are under way, or were since the last look.
        """
        moved = False
        for process, slots in used.items():
            try:
                moved |= await self._look(process, sorted({slot.number for slot in slots}), everything)
            except RuntimeUnavailable:
                moved = True
        return moved

    async def _look(self, process: int, numbers: Collection[int], everything: bool) -> bool:
        clock = asyncio.get_running_loop().time
        before, admin = self.seen.get(process), self._admin_of(process)
        since = clock() - self._all_at.get(process, 0.0)
        only = numbers if before is not None and not everything and partial(numbers, since) else None
        if before is not None and not self._servers.unsure(process):
            idle = before.stat.idle
            often = only is None and not everything and since < ALL_SECONDS
            counts = await admin.counts(only) if idle or often else {}
            if idle and all(before.stat.counts.get(backend) == row for backend, row in counts.items()):
                self.seen[process] = before.still(clock())
                if only is None:
                    self._all_at[process] = clock()
                return False
            if often:
                only = moved_slots(before.stat, counts)
        stat = await admin.stat(only)
        if before is not None and only is not None and _told(stat, only):
            stat = stat.over(before.stat)
        else:
            if only is not None:
                # An older configuration has no such numbers.
                stat = await admin.stat()
            self._all_at[process] = clock()
        seen = self.seen[process] = Observation(process, stat, clock())
        if self._servers.unsure(process):
            self._servers.settle(process, dict(seen.rows()))
        return True


def _told(stat: Stat, numbers: Collection[int]) -> bool:
    return all(f"s{number}" in stat.backends for number in numbers)
