"""Requests whose clients left while they waited in the router's queue: the replica need not see them."""

from collections.abc import Iterable

MOST = 10_000
"""Turns that are remembered; the oldest are forgotten first (their requests would then run)."""


class Departed:
    """Their turns (`x-aks-inference-turn`), as the router's agent names them before they come."""

    def __init__(self) -> None:
        self._turns: dict[bytes, None] = {}

    def add(self, turns: Iterable[str]) -> None:
        """Takes note."""
        for turn in turns:
            self._turns[turn.encode()] = None
        while len(self._turns) > MOST:
            del self._turns[next(iter(self._turns))]

    def take(self, turn: bytes) -> bool:
        """Whether this one has left; it comes once."""
        if turn not in self._turns:
            return False
        del self._turns[turn]
        return True

    def forget(self) -> None:
        """All of them."""
        self._turns.clear()
