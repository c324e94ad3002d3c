"""What goes on in a resource, line by line, where nothing can be drawn again: a log of a build that takes minutes."""

import threading
from collections.abc import Callable

PERIOD_S = 5.0
"""Between two lines of one resource: a status may change many times a second."""

Later = Callable[[float, Callable[[], None]], None]


def after(seconds: float, call: Callable[[], None]) -> None:
    """Calls once when that time is over; the process does not wait for it."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class Statuses:
    """Decides which statuses are told now. Not for several threads at once."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, float]] = {}
        self._held: dict[str, str] = {}

    def said(self, urn: str, text: str, now: float) -> float | None:
        """How long the text has to wait: 0 is now, None is never (it is what was told last)."""
        last, when = self._told.get(urn, ("", -PERIOD_S))
        if text == last:
            self._held.pop(urn, None)
            return None
        wait = when + PERIOD_S - now
        if wait > 0:
            first = urn not in self._held
            self._held[urn] = text
            return wait if first else None
        self._told[urn] = (text, now)
        self._held.pop(urn, None)
        return 0

    def due(self, urn: str, now: float) -> str | None:
        """The text that had to wait, if it is still the last one; it counts as told."""
        text = self._held.pop(urn, None)
        if text is not None:
            self._told[urn] = (text, now)
        return text

    def ended(self, urn: str) -> None:
        """What waits is no longer news."""
        self._told.pop(urn, None)
        self._held.pop(urn, None)
