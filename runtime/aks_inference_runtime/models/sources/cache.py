"""What was fetched, kept by address and revision: a preview fetches, the apply that follows finds it there."""

import asyncio
import hashlib
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aks_inference_runtime.images.once import build_lock

KEPT = 8
"""Of fetched sources that are not in use; more go, the longest unused first."""
KEPT_S = 24 * 3600.0
"""However many: what was used within a day stays, since an apply may follow."""
_NOTE = "source.json"


def source_cache() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/aks-inference/sources`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aks-inference" / "sources"


class SourceCache:
    """Folders by address and revision, each made once, by one process of the machine at a time."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or source_cache()

    async def get(self, address: str, revision: str, make: Callable[[Path], Awaitable[None]]) -> Path:
        """The folder with the files of a revision; `make` fills a new one, whole or not at all.

        A fetch that was cut off finds in `<folder>.part` what it had: `make` goes on from there.
        """
        key = hashlib.sha256(f"{address}\n{revision}".encode()).hexdigest()[:32]
        folder = self._root / key
        async with build_lock(self._root / "locks", key):
            if not (folder / _NOTE).is_file():
                part = self._root / f"{key}.part"
                await asyncio.to_thread(part.mkdir, parents=True, exist_ok=True)
                await make(part)
                await asyncio.to_thread(self._finish, part, folder, address, revision)
            await asyncio.to_thread(os.utime, folder / _NOTE)
        return folder / "content"

    def _finish(self, part: Path, folder: Path, address: str, revision: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (part / _NOTE).write_text(json.dumps({"address": address, "revision": revision}))
        part.replace(folder)
        self._tidy(folder)

    def _tidy(self, new: Path) -> None:
        old = sorted(
            (path.parent for path in self._root.glob(f"*/{_NOTE}") if path.parent != new),
            key=lambda folder: -(folder / _NOTE).stat().st_mtime,
        )
        for folder in old[KEPT:]:
            if time.time() - (folder / _NOTE).stat().st_mtime > KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)
