"""Rows into files that several worker processes share, and in a pod the uploader, too.

Whole rows are written at once under a lock; who takes a file away renames it under the same lock. A spool's files begin
with a line of JSON that holds the header, have a number at the end of their name, and a size that one append to a blob
holds. Elsewhere a file whose rows have no header has a mark beside it: its first row may look like a header.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE_BYTES = 4_000_000
"""Of a file of a spool: Blob Storage takes 4 MiB in one append, with which the header goes."""
SPOOL_FILES = 64
"""Of one name: so much waits for storage that does not answer."""
MOST_FILES = 1_000
"""Of one name in a folder: each has another header."""
LOCK_S = 1.0
"""Who holds the lock has a file name to change or a few rows to write; a score waits no longer for one that hangs."""
_POLL_S = 0.002


class Files:
    """The files of a store, or of a spool."""

    def __init__(self, root: str, *, spool: bool) -> None:
        self._root = root
        self._spool = spool

    def add(self, name: str, header: bytes, rows: Sequence[bytes]) -> None:
        """Appends rows to the file of a name, or to the next one where that has another header (or one at all, for rows
        without) or is full.

        Raises OSError: the disk, or nobody took the spool's files for long. Some of the rows may be there then.
        """
        head = json.dumps({"header": header.decode()}).encode() + b"\n" if self._spool else header
        for block in self._blocks(head, rows):
            self._add(name, head, block)

    def _blocks(self, head: bytes, rows: Sequence[bytes]) -> Iterator[bytes]:
        if not self._spool:
            yield b"".join(rows)
            return
        block: list[bytes] = []
        size = room = FILE_BYTES - len(head)
        for row in rows:
            if len(row) > room:
                raise OSError(errno.EFBIG, "a row of more than 4 MB")
            if len(row) > size:
                yield b"".join(block)
                block, size = [], room
            block.append(row)
            size -= len(row)
        yield b"".join(block)

    def _add(self, name: str, head: bytes, block: bytes) -> None:
        for number in range(SPOOL_FILES if self._spool else MOST_FILES):
            if self._append(self._path(name, number), head, block):
                return
        raise OSError(errno.ENOSPC, "what was collected before is not stored yet")

    def _path(self, name: str, number: int) -> str:
        if self._spool:
            return os.path.join(self._root, f"{name}.{number}")  # noqa: PTH118 - in every score
        stem = name[: -len(".csv")]
        return os.path.join(self._root, f"{stem}-{number + 1}.csv" if number else name)  # noqa: PTH118

    def _append(self, path: str, head: bytes, block: bytes) -> bool:
        """False: it has another header, or no room."""
        descriptor = _locked(path)
        try:
            size = os.fstat(descriptor).st_size
            if size and not self._is_of(descriptor, path, head):
                return False
            if not size and not self._spool:
                _mark(path, bare=not head)
            if self._spool and (size or len(head)) + len(block) > FILE_BYTES:
                return False
            content = block if size else head + block
            written = 0
            try:
                written = os.write(descriptor, content)
            finally:
                if written < len(content):
                    # No half row: what comes after it would be torn, too.
                    os.ftruncate(descriptor, size)
            if written < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return True
        finally:
            os.close(descriptor)

    def _is_of(self, descriptor: int, path: str, head: bytes) -> bool:
        if self._spool:
            return os.pread(descriptor, len(head), 0) == head
        bare = os.path.exists(_mark_of(path))  # noqa: PTH110 - in every score
        return bare if not head else not bare and os.pread(descriptor, len(head), 0) == head


def _mark_of(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.no-header")  # noqa: PTH118 - in every score


def _mark(path: str, *, bare: bool) -> None:
    """Of a file that begins; one of that name may have been there before, with the other kind of rows."""
    if bare:
        os.close(os.open(_mark_of(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_mark_of(path))  # noqa: PTH108 - once for a file


def _locked(path: str) -> int:
    """The file of that name, held alone."""
    until = time.monotonic() + LOCK_S
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, path):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(descriptor)
                raise
            time.sleep(_POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is(descriptor: int, path: str) -> bool:
    """Whether the file still has that name."""
    try:
        found = os.stat(path)  # noqa: PTH116 - in every score
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), found)
