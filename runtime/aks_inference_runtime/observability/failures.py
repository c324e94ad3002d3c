"""What a loop that goes on after every error says of them: the same one comes again at each round."""

import logging
import time
from collections.abc import Callable

TOLD_S = 10.0
"""Between two times that one is told."""
MOST_PLACES = 100

Place = tuple[type[BaseException], str, int]
"""What it is and where it was raised: words may differ each time."""


class Failures:
    """Of one loop."""

    def __init__(self, log: logging.Logger, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`text`: what failed, and what is done about it."""
        self._log, self._text, self._clock = log, text, clock
        self._told: dict[Place, tuple[float, int]] = {}
        """When, and how often since."""

    def tell(self, error: Exception) -> None:
        """With its traceback, unless that was told a moment ago: then it is counted."""
        now, place = self._clock(), _place(error)
        at, since = self._told.get(place, (None, 0))
        if at is not None and now - at < TOLD_S:
            self._told[place] = at, since + 1
            return
        if len(self._told) >= MOST_PLACES:
            self._told.clear()
        self._told[place] = now, 0
        more = f" ({since} more since it was told last)" if since else ""
        self._log.error("%s%s", self._text, more, exc_info=error)


def _place(error: Exception) -> Place:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), trace.tb_frame.f_code.co_filename if trace else "", trace.tb_lineno if trace else 0
