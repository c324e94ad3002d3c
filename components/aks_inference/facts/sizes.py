"""What is to be said about some sizes, beside their vCPUs and memory (those are in `aks_inference.vm_sizes`)."""

from dataclasses import dataclass
from datetime import date
from functools import cache

from aks_inference.facts.table import read


@dataclass(frozen=True)
class SizeNote:
    """Known about one size."""

    retirement: date | None = None
    """The day from which Azure no longer runs it."""
    arm64: bool = False


@cache
def _notes() -> dict[str, SizeNote]:
    return {
        name.lower(): SizeNote(retirement=date.fromisoformat(day) if day else None, arm64=arm64)
        for name, day, arm64 in read("size_notes.json").records
    }


def size_note(size: str) -> SizeNote:
    """The notes on a size; empty ones where there is nothing to say or the size is not known."""
    return _notes().get(size.lower(), SizeNote())
