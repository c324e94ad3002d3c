"""What an autoscaler decided, for its metrics."""

from collections import Counter
from collections.abc import Container

from aks_inference_runtime.autoscaler.policy import Decision
from aks_inference_runtime.router.model import VersionKey


class Tally:
    """Of all versions, since it began."""

    def __init__(self) -> None:
        self.decisions: dict[VersionKey, Decision] = {}
        """The last one of each."""
        self.decided: dict[VersionKey, Counter[str]] = {}
        """How many decisions of each direction."""

    def add(self, key: VersionKey, present: int, decision: Decision) -> None:
        """One decision. `present`: replicas that were wanted before."""
        self.decisions[key] = decision
        self.decided.setdefault(key, Counter())[direction(present, decision.replicas)] += 1

    def forget(self, endpoint: str) -> None:
        """It is gone."""
        self.keep({key for key in (*self.decisions, *self.decided) if key.endpoint != endpoint})

    def keep(self, keys: Container[VersionKey]) -> None:
        """Of these versions and no others."""
        for kept in (self.decisions, self.decided):
            for key in [key for key in kept if key not in keys]:
                del kept[key]


def direction(present: int, wanted: int) -> str:
    """As the metrics name it."""
    return "hold" if wanted == present else "up" if wanted > present else "down"
