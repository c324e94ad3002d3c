"""A request to a router of the state machines, and which answers it may have."""

from dataclasses import dataclass, field
from typing import Any

SCORING_MS = 1_200
"""Beyond it a request is answered 504; its replica works on."""
SLACK_S = 5.0
"""Beyond a deadline, for machines that do other things, too."""
EARLY_S = 0.05


@dataclass(eq=False)
class Asked:
    """A request, what was in force during its life, and what became of it."""

    id: str
    version: str | None
    sent: float
    sleep_s: float
    beside: int = 0
    """Others without an answer, at the most, those whose clients have left included."""
    beside_s: float = 0.0
    """Their work."""
    waits_s: set[float] = field(default_factory=set)
    queues: set[int] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    """Versions that had a share."""
    slots: int = 1_000
    """Of its version, at the least."""
    calm: bool = True
    """Nothing died, and no address went away."""
    replica_died: bool = False
    router_died: bool = False
    left: bool = False
    answer: Any = None
    answered: float = 0.0
    error: str = ""

    def must_be_served(self) -> bool:
        """There was time for it, several times over."""
        busy_s = (self.beside_s + 0.03 * self.beside) / max(1, self.slots)
        quick = 1_000 * self.sleep_s < SCORING_MS and self.beside < min(self.queues)
        return self.calm and quick and self.slots > 0 and 3 * busy_s + 1.5 < min(self.waits_s)

    def check(self) -> None:
        """One answer, of the table, neither early nor late (I3, I4, I6)."""
        told = f"{self}"
        if self.answer is None:
            assert self.router_died or self.left, f"no answer ({self.error}): {told}"
            return
        status, reason = self.answer.status, self.answer.reason
        took = self.answered - self.sent
        longest = max(self.waits_s) + SCORING_MS / 1_000
        # What is sent again waits again.
        assert took <= longest * (1 if self.calm else 2) + SLACK_S, f"late: {took:.1f} s, {told}"
        served = self.answer.version
        if served is not None:
            assert served == self.version if self.version else served in self.shared, f"{served} served: {told}"
        if self.must_be_served():
            assert status == 200, f"refused although there was time ({reason}): {told}"
        match status, reason:
            case 200, None:
                assert served is not None, told
            case 429, "queue-full":
                assert self.beside >= min(self.queues), told
            case 503, "queue-timeout" | "no-replica":
                assert took >= min(self.waits_s) - EARLY_S, f"early: {took:.3f} s, {told}"
            case 504, "scoring-timeout":
                assert took >= SCORING_MS / 1_000 - EARLY_S, f"early: {told}"
            case 502, "replica-lost":
                assert self.replica_died, told
            case _:
                raise AssertionError(f"{status} {reason} is not in the table: {told}")
