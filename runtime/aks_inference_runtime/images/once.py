"""One build of a key at a time on this machine; the lock goes with the process that holds it, however that ends."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

POLL_S = 0.2
_LINE = 80


def cache_directory() -> Path:
    """Where layers, wheels and locks are kept between builds: `${XDG_CACHE_HOME:-~/.cache}/aks-inference/images`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aks-inference" / "images"


@contextlib.asynccontextmanager
async def build_lock(
    directory: Path,
    name: str,
    waiting: Callable[[str], None] = lambda _who: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[bool]:
    """Holds the lock of a name. Gives whether somebody else held it before: then what they built may be there now.

    `waiting` is called once when the lock is held by another, with its process and since when.
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    # The file stays: removing it would let a third builder lock another file of the same name.
    handle = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    waited = False
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    waiting(os.pread(handle, _LINE, 0).decode("ascii", "replace").strip() or "another process")
                waited = True
                await sleep(POLL_S)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} since {datetime.now(UTC):%H:%M:%S} UTC\n".encode(), 0)
        yield waited
    finally:
        os.close(handle)
