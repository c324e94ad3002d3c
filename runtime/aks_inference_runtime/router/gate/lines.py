"""Lines for whoever reads this process's output, written by a thread.

A reader that stopped, or a slow disk, costs lines and never holds up a request.
"""

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_BYTES = 1_048_576
"""That wait to be written; what comes then is dropped, counted and told: some 3,000 requests."""
TOGETHER_SECONDS = 0.01
"""What comes within it goes out in one write."""
CLOSE_SECONDS = 1.0
"""At the end what is left is waited for so long."""


class Lines:
    """Of one file descriptor. Nothing else may buffer what goes there."""

    def __init__(self, number: int, told: Callable[[int], str] = "gate: {} lines are lost".format) -> None:
        """
        Args:
            number: Required. The descriptor.
            told: Optional. The line that says how many were lost since the last one got through.
        """
        self.dropped = 0
        """In all: no room, or not to be written."""
        self._number = number
        self._told = told
        self._lines: list[bytes] = []
        self._bytes = 0
        self._untold = 0
        self._torn = False
        """A line was written in part only."""
        self._lock = threading.Lock()
        """Of the counts; never held while writing."""
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name=f"lines to {number}", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Takes a line, without its end. Never waits."""
        data = line.encode(errors="replace") + b"\n"
        with self._lock:
            if self._bytes + len(data) > MOST_BYTES:
                self.dropped += 1
                self._untold += 1
            else:
                self._lines.append(data)
                self._bytes += len(data)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Returns when all is written, or after so many seconds."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)

    def _write_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            self._write()
            if closing:
                return
            time.sleep(TOGETHER_SECONDS)

    def _write(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        lost = self._lost(b"".join(lines)) if lines else 0
        with self._lock:
            # Until now it was not through, and took its room.
            self._bytes -= sum(map(len, lines))
            self.dropped += lost
            self._untold += lost
            untold = self._untold
        if untold and not self._lost(self._told(untold).encode() + b"\n"):
            with self._lock:
                self._untold -= untold

    def _lost(self, data: bytes) -> int:
        """Writes; returns how many lines are not whole there: the disk is full, or nobody is there any more."""
        data = b"\n" * self._torn + data
        done = 0
        try:
            while done < len(data):
                try:
                    done += os.write(self._number, data[done:])
                except BlockingIOError:
                    select.select([], [self._number], [])
        except OSError:
            lost = data.count(b"\n", done) - (self._torn and not done)
        else:
            lost = 0
        if done:
            self._torn = data[done - 1 : done] != b"\n"
        return lost


class _Said(logging.Handler):
    """What is logged, as lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put(self.format(record))


@contextmanager
def logging_never_waits(
    number: int = 2, *, program: str = "gate", form: str = "%(levelname)s %(name)s: %(message)s"
) -> Iterator[None]:
    """While the block runs what is logged goes to this descriptor (default: standard error) as `Lines`, each in this
    form. `program`: before the number of those that are lost."""
    lines = Lines(number, f"{program}: {{}} lines are lost".format)
    handler = _Said(lines)
    handler.setFormatter(logging.Formatter(form))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        lines.close()
