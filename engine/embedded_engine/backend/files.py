"""Writing a file so that at every moment either the old content or the new one is there, whole."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from embedded_engine.errors import StateWriteError

_OWNER_ONLY = 0o600
_FULL = "no room is left on the disk"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Writes all the bytes to the descriptor; another one can be put in its place to see what a failing disk does.
Writer = Callable[[int, bytes], None]


def write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomically(path: Path, content: bytes, backup: Path | None = None, writer: Writer = write_all) -> None:
    """Replaces the file's content; the old one becomes `backup`. Only the owner can read what is written.

    Raises `StateWriteError`; the file is then what it was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY)
        try:
            writer(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if backup is not None and path.exists():
            keep_as(path, backup)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = _FULL if error.errno in _NO_ROOM else error.strerror or str(error)
        mend = " Make room and run it again." if reason == _FULL else ""
        text = f"{path} could not be written: {reason}. What was stored before is whole.{mend}"
        raise StateWriteError(text) from error


def keep_as(path: Path, backup: Path) -> None:
    """Gives the file's present content a second name, without a moment in which the backup is missing."""
    link = backup.with_name(f"{backup.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    try:
        os.link(path, link)
    except OSError:
        # A file system without hard links.
        link.write_bytes(path.read_bytes())
        link.chmod(_OWNER_ONLY)
    link.replace(backup)


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder last; where folders cannot be synced it is as good as it gets."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
