"""Calls at given times, for thousands who each wait for one: a timer of the event loop for each would be most of what
they cost."""

import asyncio
import heapq
import math
from typing import Protocol
from weakref import WeakKeyDictionary

STEP_S = 0.01
"""Who waits is called at the end of its step: so much later at most, never before its time."""


class Waits(Protocol):
    """Who waits."""

    def ring(self) -> None:
        """It is time. Raises nothing."""


class Turns:
    """Of one event loop. Whoever changes its mind asks for another call and knows which of them it meant."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Waits]] = {}
        self._steps: list[int] = []
        """A heap of those in which somebody waits."""
        self._timer: asyncio.TimerHandle | None = None

    def at(self, when: float, who: Waits) -> None:
        """Calls it at this time of the loop's clock."""
        step = math.ceil(when / STEP_S)
        if (there := self._waiting.get(step)) is not None:
            there.append(who)
            return
        self._waiting[step] = [who]
        heapq.heappush(self._steps, step)
        if self._steps[0] == step:
            self._wind()

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # A timer may ring a moment before its time.
        self._timer = asyncio.get_running_loop().call_at((self._steps[0] + 0.2) * STEP_S, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() / STEP_S
        while self._steps and self._steps[0] <= now:
            for who in self._waiting.pop(heapq.heappop(self._steps)):
                who.ring()
        if self._steps:
            self._wind()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns() -> Turns:
    """Of the running loop."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Turns()
    return found
