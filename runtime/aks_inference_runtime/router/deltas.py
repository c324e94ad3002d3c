"""What is to be told to a process whose map is to become another one, entry by entry. Pure.

Nothing but a whole map is changed in one instant (HAProxy serves between any two commands), so what depends on each
other has an order: what a path's entry names is there before it and goes after it. Shares of an endpoint that is served
cannot be changed so: a request would be drawn by half of the new ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aks_inference_runtime.router.calls import GRPC
from aks_inference_runtime.router.peers import OF_BUCKET, OF_VERSION

MOST_COMMANDS = 150
"""For what changes or goes, 0.06 to 0.16 ms each; beyond that a map of a thousand endpoints in its place (25 ms) is as
quick. Many additions are one command."""

Entries = Mapping[str, str]
T = TypeVar("T")


def differing(before: Mapping[str, T], now: Mapping[str, T]) -> set[str]:
    """Names that stand for another object than before, or are in one of both only: of a thousand few are."""
    return {name for name, one in now.items() if before.get(name) is not one} | (before.keys() - now.keys())


class Changes(Generic[T]):
    """What is not as it was when it was last dealt with."""

    def __init__(self) -> None:
        self._taken: dict[str, T] = {}
        self._open: set[str] = set()

    def names(self, now: Mapping[str, T]) -> set[str]:
        """Of these, and of what is gone."""
        return self._open | differing(self._taken, now)

    def fresh(self, now: Mapping[str, T]) -> set[str]:
        """The same without what was taken before and not done: nobody knows how far that came."""
        return self.names(now) - self._open

    def take(self, now: Mapping[str, T]) -> set[str]:
        """The same, to be dealt with now; until `done` it is told again."""
        self._open, self._taken = self.names(now), dict(now)
        return self._open

    def done(self, but: Iterable[str] = ()) -> None:
        """All that was taken is dealt with, but these."""
        self._open = set(but)


@dataclass
class Delta:
    """In the order in which it is told."""

    added: dict[str, str] = field(default_factory=dict)
    """Found by nobody yet."""
    changed: dict[str, str] = field(default_factory=dict)
    """Routes, before what paths say: see `settled`."""
    settled: dict[str, str] = field(default_factory=dict)
    """What paths say that were served before."""
    opened: dict[str, str] = field(default_factory=dict)
    """What paths say that were not."""
    closed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def commands(self) -> int:
        """What is told one by one."""
        return sum(map(len, (self.changed, self.settled, self.closed, self.removed)))


def delta(parts: Iterable[tuple[Entries, Entries]]) -> Delta | None:
    """What makes the new entries of the old ones, of each endpoint. None: that is not to be told entry by entry."""
    found = Delta()
    for before, after in parts:
        if any(_split(key, before, after) for key in before.keys() | after.keys()):
            return None
        for key, value in after.items():
            names = _is_path(key)
            if key not in before:
                (found.opened if names else found.added)[key] = value
            elif before[key] != value:
                (found.settled if names else found.changed)[key] = value
        for key in before.keys() - after.keys():
            (found.closed if _is_path(key) else found.removed).append(key)
    return found if found.commands <= MOST_COMMANDS else None


def _is_path(key: str) -> bool:
    """Whether a request finds its endpoint by it."""
    return (key.startswith("/") and OF_BUCKET not in key) or key.startswith(GRPC)


def _split(key: str, before: Entries, after: Entries) -> bool:
    """Whether a bucket becomes another version's, or comes or goes, at a path that stays."""
    path, mark, _ = key.partition(OF_BUCKET)
    if not mark or not key.startswith("/") or key.startswith(path + OF_VERSION):
        return False
    return path in before and path in after and _version(before.get(key)) != _version(after.get(key))


def _version(route: str | None) -> str | None:
    """Of a route; see `routes`."""
    return None if route is None else route.split("|", 5)[4]
