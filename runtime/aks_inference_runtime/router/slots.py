"""Which slot of which HAProxy process serves a version. Pure.

A slot is a prepared backend. `timeout queue` is a property of the backend, so a slot has one; a version whose deadline
changes (also: scaled to zero and back) moves to another slot, and its old one is kept until its queue is empty.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aks_inference_runtime.router.model import VersionKey

PUBLIC_ID = 9_998
"""HAProxy's number of the frontend that clients reach."""
SLOT_ID = 10_000
"""HAProxy's number of the first slot's backend; the others follow."""


class Slot(NamedTuple):
    """A prepared backend: the process (0 is the one that clients reach) and its number there."""

    process: int
    number: int

    @property
    def backend(self) -> str:
        """Its name in HAProxy."""
        return f"s{self.number}"


@dataclass(frozen=True)
class Layout:
    """The slots of one process, fixed for its life: the queue timeout of each, in milliseconds."""

    timeouts_ms: tuple[int, ...]

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> "Layout":
        """From timeout → number of slots."""
        return cls(tuple(timeout for timeout, count in counts.items() for _ in range(count)))


DEFAULT_LAYOUT = Layout.of({500: 48, 60_000: 24, 100: 4, 1_000: 8, 2_000: 4, 5_000: 4, 10_000: 4, 30_000: 4})
"""Of the first process: many of the documented defaults (max_request_wait_time 500, cold_start_timeout_ms 60,000), some
of what people set instead. What does not fit goes to further processes, one hop away."""
SPARE = 8
"""Slots beyond the need in the first further process, per timeout."""
MOST_SPARE = 500
"""In later ones: a prepared backend costs some kilobytes."""
MAX_PROCESSES = 32
"""Hops that the first process is prepared for."""


@dataclass(frozen=True)
class Assignment:
    """The outcome."""

    slots: Mapping[VersionKey, Slot]
    missing: Mapping[int, int]
    """Timeout → how many slots are lacking."""


def assign(
    wanted: Mapping[VersionKey, int],
    current: Mapping[VersionKey, Slot],
    layouts: Mapping[int, Layout],
    occupied: Collection[Slot],
) -> Assignment:
    """A slot of the wanted timeout for each version: the present one where it fits, else the first free one.

    `occupied` are slots that still have waiting requests or servers of an earlier use.
    """
    slots = staying(wanted, current, layouts)
    # A slot that a version leaves now is not free: requests may wait in it.
    taken = set(occupied) | set(current.values()) | set(slots.values())
    missing: dict[int, int] = {}
    for key, timeout in wanted.items():
        if key in slots:
            continue
        free = next((s for s in _all(layouts) if s not in taken and _timeout(layouts, s) == timeout), None)
        if free is None:
            missing[timeout] = missing.get(timeout, 0) + 1
        else:
            slots[key] = free
            taken.add(free)
    return Assignment(slots, missing)


def staying(
    wanted: Mapping[VersionKey, int], current: Mapping[VersionKey, Slot], layouts: Mapping[int, Layout]
) -> dict[VersionKey, Slot]:
    """The versions whose present slot has the wanted timeout."""
    return {
        key: slot
        for key, timeout in wanted.items()
        if (slot := current.get(key)) is not None and slot.process in layouts and _timeout(layouts, slot) == timeout
    }


def layout_for(missing: Mapping[int, int], further: Iterable[Layout] = ()) -> Layout:
    """Slots of a further process. `further`: those that there are: with as many to spare as they have together, few
    processes do for versions that are made one by one."""
    there = Counter(timeout for layout in further for timeout in layout.timeouts_ms)
    spare = {timeout: min(MOST_SPARE, max(SPARE, there[timeout])) for timeout in missing}
    return Layout.of({timeout: count + spare[timeout] for timeout, count in missing.items()})


def _all(layouts: Mapping[int, Layout]) -> Iterable[Slot]:
    for process, layout in layouts.items():
        for number in range(len(layout.timeouts_ms)):
            yield Slot(process, number)


def _timeout(layouts: Mapping[int, Layout], slot: Slot) -> int:
    timeouts = layouts[slot.process].timeouts_ms
    return timeouts[slot.number] if slot.number < len(timeouts) else -1
