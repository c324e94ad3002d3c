"""What a replica's processes may use of this machine, without root and without cgroups.

Memory: they are looked at, and ended above the limit. Cores: they run on so many of the machine's and on no other; that
is a limit for whole cores only, so that fractions are refused where they are declared.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

GB = 2**30
_PROC = Path("/proc")


def memory_gb(pid: int, enough_gb: float) -> float:
    """Memory of a process and its descendants, each shared page counted once among those who share it.

    Up to `enough_gb` the cheaper figure, which counts shared pages for each of them, is enough. Processes that end
    meanwhile count as nothing.
    """
    members = _tree(pid)
    resident = sum(_resident(member) for member in members) / GB
    return resident if resident <= enough_gb else sum(_proportional(member) for member in members) / GB


@contextlib.contextmanager
def cores(limit: float | None, number: int) -> Iterator[None]:
    """What is started within runs on so many cores only; `number` says on which, so that replicas spread."""
    allowed = sorted(os.sched_getaffinity(0)) if limit is not None and hasattr(os, "sched_setaffinity") else []
    count = int(limit or 0)
    if not 0 < count < len(allowed):
        yield
        return
    first = number % len(allowed)
    # Of this thread, and inherited from it: the started one is never without.
    os.sched_setaffinity(0, (allowed[first:] + allowed[:first])[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _tree(pid: int) -> list[int]:
    members = [pid]
    for member in members:
        try:
            for task in (_PROC / str(member) / "task").iterdir():
                members += map(int, (task / "children").read_text().split())
        except OSError:
            if not _PROC.joinpath("thread-self/children").exists():  # also Linux can be built without it
                return [pid, *_children(pid)]
    return members


def _children(pid: int) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def _resident(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        # Other systems than Linux do not know it.
        found = psutil.Process(pid).memory_full_info()
        return int(getattr(found, "pss", found.rss))
    return 0
