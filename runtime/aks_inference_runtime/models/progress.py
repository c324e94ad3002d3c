"""How far something is."""

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
