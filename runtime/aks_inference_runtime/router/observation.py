"""What a HAProxy process showed of its slots at one moment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from aks_inference_runtime.router.admin import ServerRow, Stat
from aks_inference_runtime.router.slots import Slot


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
