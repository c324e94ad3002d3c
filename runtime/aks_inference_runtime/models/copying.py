"""Copies that are compared with what they should be while they are made, and keep the holes of sparse files."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, silent

_PIECE = 1024 * 1024
_ZEROS = bytes(_PIECE)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def copy_checked(
    source: Path, target: Path, digest: str, progress: Progress = silent, span: tuple[int, int] | None = None
) -> None:
    """Copies a file; the target appears only whole, and only with the content of `digest` (`sha256:<hex>`).

    `span`: Optional. Offset and length of a part to take. Default: all. Raises ContentMismatch, OSError.
    """
    part = target.with_name(f".{target.name[:200]}.part")
    found, done = hashlib.sha256(), 0
    try:
        with source.open("rb", buffering=0) as reader, part.open("wb", buffering=0) as writer:
            offset, left = span or (0, None)
            reader.seek(offset)
            while piece := reader.read(_PIECE if left is None else min(_PIECE, left)):
                left = None if left is None else left - len(piece)
                found.update(piece)
                # A seek in place of zeros: a file with holes stays one.
                if piece == _ZEROS:
                    writer.seek(len(piece), os.SEEK_CUR)
                else:
                    _all(writer.fileno(), piece)
                done += len(piece)
                progress(done, None)
            writer.truncate(done)
            os.fsync(writer.fileno())
        if f"sha256:{found.hexdigest()}" != digest:
            raise ContentMismatch(f"{source}: has changed since it was looked at; apply again when it rests")
        part.replace(target)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """The disk's errors as OperationFailed with the mend."""
    try:
        yield
    except OSError as error:
        mend = "; the disk is full: make room and apply again" if error.errno in _FULL else ""
        raise OperationFailed(f"{error.filename or path}: {error.strerror or error}{mend}") from None
