"""A part of a terminal that is drawn again while something goes on."""

import shutil
import threading
from collections.abc import Callable

_PERIOD_S = 0.2
_CLEAR_BELOW = "\x1b[J"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"

Render = Callable[[int], list[str]]


class LiveArea:
    """Draws what `render` returns, given how many lines there is room for, five times a second until `close`."""

    def __init__(self, write: Callable[[str], None], render: Render) -> None:
        self._put = write
        self._render = render
        self._drawn = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the drawing and takes the area away. May be called twice."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            self._put(self._back())
            self._drawn = 0

    def above(self, text: str) -> None:
        """Shows lines that stay, above the area."""
        with self._lock:
            self._put(f"{self._back()}{text}")
            self._drawn = 0

    def _run(self) -> None:
        while not self._closed.wait(_PERIOD_S):
            self._draw()

    def _draw(self) -> None:
        room = shutil.get_terminal_size().lines - 1
        lines = self._render(room)[:room]
        with self._lock:
            # Lines wider than the terminal are cut by it, so that each is one line to move up by.
            text = "".join(f"{line}\n" for line in lines)
            self._put(f"{self._back()}{_NO_WRAP}{text}{_WRAP}")
            self._drawn = len(lines)

    def _back(self) -> str:
        return f"\x1b[{self._drawn}A\r{_CLEAR_BELOW}" if self._drawn else ""
