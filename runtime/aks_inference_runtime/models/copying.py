"""Files that are compared with what they should be while they are written, and keep the holes of sparse ones."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from aks_inference_runtime.api.disk import disk_errors
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, silent

__all__ = ["CheckedFile", "copy_checked", "disk_errors"]
_PIECE = 1024 * 1024


class CheckedFile:
    """A file that appears only whole, and only with the content of `digest` (`sha256:<hex>`). Raises OSError."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path, self._digest = path, digest
        # Its own name may be as long as names can be.
        self._part = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.part")
        self._found, self._size = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        self._file = self._part.open("wb", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """What comes next."""
        self._found.update(piece)
        # A seek in place of zeros: a file with holes stays one.
        if piece.count(0) == len(piece):
            self._file.seek(len(piece), os.SEEK_CUR)
        else:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        self._size += len(piece)

    def finish(self, otherwise: str) -> None:
        """Puts it in its place. Raises ContentMismatch with `otherwise` where it is not what it should be."""
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())
        if f"sha256:{self._found.hexdigest()}" != self._digest:
            raise ContentMismatch(otherwise)
        self._part.replace(self._path)


def copy_checked(source: Path, target: Path, digest: str, progress: Progress = silent) -> None:
    """Copies a file as a `CheckedFile`. Raises ContentMismatch, OSError."""
    done = 0
    with CheckedFile(target, digest) as writer, source.open("rb", buffering=0) as reader:
        while piece := reader.read(_PIECE):
            writer.write(piece)
            done += len(piece)
            progress(done, None)
        writer.finish(f"{source}: has changed since it was looked at; apply again when it rests")
