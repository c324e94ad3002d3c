"""Logs of replicas: bounded, readable while they grow, there also after the replica is gone.

Replicas write their files themselves: a pipe to the supervisor would break with it, and they must survive its restart.
Rotation copies the file and takes the copied blocks out of its front, which loses no line (Linux, ext4 and xfs). Where
the file system cannot, the file is emptied after the copy: lines written between these two system calls are lost.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

MAX_BYTES = 5 * 1024 * 1024
"""Of the current file; the one before is kept too."""
KEEP_DEAD = 5
"""Logs of replicas that are gone, per version."""
_FOLLOW_S = 0.2
_READ_BYTES = 1024 * 1024
_COLLAPSE_RANGE = 8
"""FALLOC_FL_COLLAPSE_RANGE of linux/falloc.h."""
_cut: dict[Path, int] = {}
"""Bytes that were taken out of the front of a log, so that who follows it knows where it is."""
_cutting = threading.Lock()


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    """The C library's, which Python offers without its mode only."""
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None), "fallocate", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    found: Callable[[int, int, int, int], int] = function
    return found


_fallocate = _find_fallocate()


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Cuts a log that has grown too big; its writers append (O_APPEND), so they go on at the new end."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size <= max_bytes:
            return
        before = path.with_name(path.name + ".1")
        with path.open("r+b") as log:
            try:
                with before.open("wb") as copy:
                    shutil.copyfileobj(log, copy)
                    if not _cut_front(path, log, copy):
                        shutil.copyfileobj(log, copy)  # what came meanwhile
                        _cut_all(path, log)
            except OSError:
                # A full disk: then the past is what makes room.
                before.unlink(missing_ok=True)
                _cut_all(path, log)


def _cut_front(path: Path, log: IO[bytes], copy: IO[bytes]) -> bool:
    """Takes the copied blocks out of the front of the file, whatever is appended meanwhile; False where it cannot."""
    if _fallocate is None:
        return False
    status = os.fstat(log.fileno())
    # The kernel takes whole blocks only, and never all of a file; the rest stays where it is.
    blocks = (min(copy.tell(), status.st_size) - 1) // status.st_blksize
    size = blocks * status.st_blksize
    with _cutting:
        if size <= 0 or _fallocate(log.fileno(), _COLLAPSE_RANGE, 0, size):
            return False
        _cut[path] = _cut.get(path, 0) + size
    copy.truncate(size)
    return True


def _cut_all(path: Path, log: IO[bytes]) -> None:
    with _cutting:
        _cut[path] = _cut.get(path, 0) + os.fstat(log.fileno()).st_size
        os.ftruncate(log.fileno(), 0)


def prune(folder: Path, live: set[str]) -> None:
    """Removes the oldest logs of replicas that are gone."""
    if not folder.is_dir():
        return
    dead = [path for path in folder.glob("*.log") if path.stem not in live]
    dead.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in dead[KEEP_DEAD:]:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".1").unlink(missing_ok=True)
        _cut.pop(path, None)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines, those before a cut included."""
    wanted = lines * 400
    content = b""
    for part in (path, path.with_name(path.name + ".1")):
        # The cut may go through a line.
        if len(content) < wanted:
            content = _last(part, wanted - len(content)) + content
    return content.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []


def _last(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read()
    except FileNotFoundError:
        return b""


async def follow(paths: "LogPaths", lines: int, endless: bool, labelled: bool = False) -> AsyncIterator[str]:
    """Lines of several logs, each with the replica's name where there are several, or always if `labelled`; new files
    join while it follows.
    """
    positions: dict[Path, int] = {}
    first = True
    while True:
        present = paths()
        for label, path in present.items():
            if path not in positions:
                with contextlib.suppress(FileNotFoundError):
                    with _cutting:
                        positions[path] = _cut.get(path, 0) + path.stat().st_size
                    for line in tail(path, lines if first else 10_000):
                        yield f"{label} {line}" if labelled or len(present) > 1 else line
                continue
            for line in _new_lines(path, positions):
                yield f"{label} {line}" if labelled or len(present) > 1 else line
        first = False
        if not endless:
            return
        await asyncio.sleep(_FOLLOW_S)


def _new_lines(path: Path, positions: dict[Path, int]) -> list[str]:
    """What came since a position, which counts what was cut from the front."""
    with contextlib.suppress(FileNotFoundError), _cutting:
        cut = _cut.get(path, 0)
        size = path.stat().st_size
        if size < positions[path] - cut:
            positions[path] = cut  # somebody else emptied it
        missed = _last(path.with_name(path.name + ".1"), cut - positions[path]) if positions[path] < cut else b""
        positions[path] = max(positions[path], cut - len(missed))
        with path.open("rb") as file:
            file.seek(max(0, positions[path] - cut))
            content = missed + file.read(_READ_BYTES)
        # A line that is longer is told in pieces: else nothing more would ever be told.
        whole = content[: content.rfind(b"\n") + 1] or (content if len(content) >= _READ_BYTES else b"")
        positions[path] += len(whole)
        return whole.decode(errors="replace").splitlines()
    return []


class LogPaths:
    """Which logs: those of an endpoint, a version or a replica."""

    def __init__(self, root: Path, endpoint: str, version: str | None, replica: str | None) -> None:
        self._folder = root / endpoint
        self._pattern = f"{version or '*'}/{replica or '*'}.log"

    def __call__(self) -> dict[str, Path]:
        """`<version>/<replica>` → file, oldest first."""
        paths = sorted(self._folder.glob(self._pattern), key=lambda path: path.stat().st_ctime)
        return {f"{path.parent.name}/{path.stem}": path for path in paths}
