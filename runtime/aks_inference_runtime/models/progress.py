"""How far something is."""

import threading
from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Bytes done and in all (None: not known); called often, from any thread."""


def silent(_done: int, _total: int | None) -> None:
    """Tells nobody."""


def size_text(size: float) -> str:
    """Bytes for people: `12 bytes`, `3.4 kB`, `5.0 GB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:.0f} byte{'s' * (size != 1)}"


class Reached:
    """How far the parts of a whole have come, told from any thread; a part that begins anew is not told again."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress = total, progress
        self._parts: dict[str, int] = {}
        self._done = 0
        self._lock = threading.Lock()

    def tell(self, part: str, size: int) -> None:
        """So many bytes of a part."""
        with self._lock:
            before = self._parts.get(part, 0)
            if size > before:
                self._parts[part] = size
                self._done += size - before
                self._progress(self._done, self._total)
