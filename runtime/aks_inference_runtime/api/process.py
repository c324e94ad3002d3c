"""Tells a process from a later one that got the same pid."""

import os
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def process_mark(pid: int) -> str | None:
    """What identifies a living process beside its pid; None when it is gone or a zombie.

    On Linux the boot and the start in clock ticks since then, which no change of the clock moves.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if _BOOT_ID.exists() else _portable_mark(pid)
    if fields[0] in "ZX":
        return None
    return f"{_BOOT_ID.read_text().strip()}:{fields[19]}"


def _portable_mark(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def is_running(pid: int, mark: str) -> bool:
    """Whether the process that had this mark still lives."""
    return pid > 0 and process_mark(pid) == mark


def own_mark() -> str:
    """The mark of this process."""
    mark = process_mark(os.getpid())
    assert mark is not None  # noqa: S101 - this process lives
    return mark
