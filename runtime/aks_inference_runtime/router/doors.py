"""Which gates may be connected to now, of thousands, and how long the agent has listened to those that are silent."""

import asyncio
from collections import deque
from typing import Protocol
from weakref import WeakKeyDictionary

MOST_AT_ONCE = 500
"""Gates that are being reached. Of thousands that are tried at once none would be in time, again and again."""
TICK_SECONDS = 0.1


class Visitor(Protocol):
    """Who waits for a door."""

    def reach(self) -> "asyncio.Task[None] | None":
        """Its turn to connect has come; None: it is closed."""


class Doors:
    """Who may connect now, by how often they were silent before: what is lost may be many, and keeps each door for a
    while; nobody who may be well waits behind it."""

    def __init__(self) -> None:
        self._new: deque[Visitor] = deque()
        self._once: deque[Visitor] = deque()
        """Whose connection has broken, or who was tried once."""
        self._again: deque[Visitor] = deque()
        self._busy = 0

    def enter(self, visitor: Visitor, silences: int = 0) -> None:
        """It wants to connect."""
        (self._again if silences > 1 else self._once if silences else self._new).append(visitor)
        self._next()

    def _next(self) -> None:
        while self._busy < MOST_AT_ONCE and (waiting := self._new or self._once or self._again):
            if (task := waiting.popleft().reach()) is not None:
                self._busy += 1
                task.add_done_callback(self._leave)

    def _leave(self, _: asyncio.Task[None]) -> None:
        self._busy -= 1
        self._next()


class Listening:
    """How long the agent has listened, counted while anybody is silent: while it stands still it hears nobody."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._silent: set[Visitor] = set()
        self._rang_at: float | None = None
        """None: it does not count."""

    def begin(self, visitor: Visitor) -> float:
        """It is silent from now on."""
        self._silent.add(visitor)
        if self._rang_at is None:
            self._again(asyncio.get_running_loop())
        return self.seconds

    def end(self, visitor: Visitor) -> None:
        """It was heard, or nobody listens to it any more."""
        self._silent.discard(visitor)

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._rang_at = loop.time()
        loop.call_later(TICK_SECONDS, self._rings)

    def _rings(self) -> None:
        loop = asyncio.get_running_loop()
        if self._rang_at is not None:
            self.seconds += min(loop.time() - self._rang_at, 2 * TICK_SECONDS)
        self._rang_at = None
        if self._silent:
            self._again(loop)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Doors, Listening]] = WeakKeyDictionary()


def doors() -> Doors:
    """Of this event loop."""
    return _found()[0]


def listening() -> Listening:
    """Of this event loop."""
    return _found()[1]


def _found() -> tuple[Doors, Listening]:
    loop = asyncio.get_running_loop()
    if (found := _of_loops.get(loop)) is None:
        found = _of_loops[loop] = Doors(), Listening()
    return found
