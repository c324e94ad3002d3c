"""Deadlines of which most never come: one timer of the loop for all of them.

A timer of the loop for each request costs more than what it is for.
"""

import asyncio
import math
from collections.abc import Callable


class Alarms:
    """Each key has one deadline at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf
        """Of the timer: at the earliest deadline, or before."""

    def set(self, key: object, seconds: float, then: Callable[[], None]) -> None:
        """Calls back in so many seconds, in place of what was set for the key."""
        at = self._loop.time() + seconds
        self._due[key] = (at, then)
        if at < self._at:
            self._wait(at)

    def clear(self, key: object) -> None:
        """Nothing is called for it. The timer stays: it finds nothing to do."""
        self._due.pop(key, None)

    def close(self) -> None:
        """Nothing is called any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer, self._at = None, math.inf
        now = self._loop.time()
        over = sorted((at, number, key) for number, (key, (at, _)) in enumerate(self._due.items()) if at <= now)
        try:
            for at, _, key in over:
                # One that came before may have cleared it, or set it anew.
                due = self._due.get(key)
                if due is not None and due[0] == at:
                    del self._due[key]
                    due[1]()
        finally:
            earliest = min((at for at, _ in self._due.values()), default=math.inf)
            if earliest < self._at:
                self._wait(earliest)
