"""A file that is filled range by range, by several threads, and goes on where a killed process left it."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

RANGE_BYTES = 8 * 1024 * 1024
_PIECE = 1024 * 1024


class PartialFile:
    """`<path>.part` with a journal of the ranges that it holds, for one exact content (`mark`: its ETag or digest).

    The journal is written after the bytes and read in whole records, so that a kill costs at most the ranges that were
    under way; a power cut may cost more, which the digest of the whole tells.
    """

    def __init__(self, path: Path, size: int, mark: str, range_bytes: int = RANGE_BYTES) -> None:
        self._path, self._size, self._range = path, size, range_bytes
        self._part, self._journal = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.journal")
        self._head = f"{size} {range_bytes} {mark}\n".encode()
        self._done: set[int] = set()
        self._file = self._log = -1
        # A thread that is still at work when the others have failed must not write to a number that is another file.
        self._open = threading.Lock()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = self._journal.read_bytes() if self._journal.is_file() and self._part.is_file() else b""
        if text.startswith(self._head):
            lines = text[len(self._head) :].split(b"\n")[:-1]
            self._done = {int(line) for line in lines if line.isdigit()}
        else:
            self._part.unlink(missing_ok=True)
            self._journal.write_bytes(self._head)
        self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._log = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.truncate(self._file, self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            os.close(self._file)
            os.close(self._log)
            self._file = self._log = -1

    @property
    def present_bytes(self) -> int:
        """What need not come again."""
        return sum(length for index, (_, length) in enumerate(self._all()) if index in self._done)

    def missing(self) -> Iterator[tuple[int, int]]:
        """Offset and length of what is still to come."""
        return (span for index, span in enumerate(self._all()) if index not in self._done)

    def put(self, offset: int, content: bytes) -> None:
        """Keeps one of `missing`. Safe in several threads."""
        with self._open:
            if self._file < 0:
                return
            for begin in range(0, len(content), _PIECE):
                piece = content[begin : begin + _PIECE]
                # What was never written is a hole, and reads as zeros: a sparse file stays one.
                if piece.count(0) < len(piece):
                    self._write(piece, offset + begin)
            os.write(self._log, f"{offset // self._range}\n".encode())

    def _write(self, piece: bytes, offset: int) -> None:
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._file, view, offset + len(piece) - len(view))
            view = view[written:]

    def finish(self, check: Callable[[Path], None]) -> None:
        """Puts the whole file in its place after a check of the content; one that fails begins anew."""
        try:
            check(self._part)
        except BaseException:
            self._part.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
            raise
        self._part.replace(self._path)
        self._journal.unlink(missing_ok=True)

    def _all(self) -> Iterator[tuple[int, int]]:
        return ((at, min(self._range, self._size - at)) for at in range(0, self._size, self._range))
