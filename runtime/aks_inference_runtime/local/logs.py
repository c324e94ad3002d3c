"""Logs of replicas: bounded, readable while they grow, there also after the replica is gone.

Replicas write their files themselves, so that a supervisor that is killed takes no line with it; rotation therefore
copies and cuts the file (lines written between the two steps are lost).
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

MAX_BYTES = 5 * 1024 * 1024
"""Of the current file; the one before is kept too."""
KEEP_DEAD = 5
"""Logs of replicas that are gone, per version."""
_FOLLOW_S = 0.2


def rotate(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Cuts a log that has grown too big; its writers append (O_APPEND), so they go on at the new end."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > max_bytes:
            before = path.with_name(path.name + ".1")
            try:
                shutil.copyfile(path, before)
            except OSError:
                # A full disk: then the past is what makes room.
                before.unlink(missing_ok=True)
            os.truncate(path, 0)


def prune(folder: Path, live: set[str]) -> None:
    """Removes the oldest logs of replicas that are gone."""
    if not folder.is_dir():
        return
    dead = [path for path in folder.glob("*.log") if path.stem not in live]
    dead.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in dead[KEEP_DEAD:]:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".1").unlink(missing_ok=True)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines, those before a cut included."""
    found: list[str] = []
    for part in (path.with_name(path.name + ".1"), path):
        with contextlib.suppress(FileNotFoundError), part.open("rb") as file:
            file.seek(max(0, part.stat().st_size - lines * 400))
            found += file.read().decode(errors="replace").splitlines()
    return found[-lines:] if lines > 0 else []


async def follow(paths: "LogPaths", lines: int, endless: bool) -> AsyncIterator[str]:
    """Lines of several logs, each with the replica's name where there are several; new files join while it follows."""
    positions: dict[Path, int] = {}
    first = True
    while True:
        present = paths()
        for label, path in present.items():
            if path not in positions:
                with contextlib.suppress(FileNotFoundError):
                    positions[path] = path.stat().st_size
                    for line in tail(path, lines if first else 10_000):
                        yield f"{label} {line}" if len(present) > 1 else line
                continue
            for line in _new_lines(path, positions):
                yield f"{label} {line}" if len(present) > 1 else line
        first = False
        if not endless:
            return
        await asyncio.sleep(_FOLLOW_S)


def _new_lines(path: Path, positions: dict[Path, int]) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        size = path.stat().st_size
        if size < positions[path]:
            positions[path] = 0
        if size > positions[path]:
            with path.open("rb") as file:
                file.seek(positions[path])
                content = file.read(1024 * 1024)
            whole = content[: content.rfind(b"\n") + 1]
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
