"""Copies that are compared with what they should be while they are made, and keep the holes of sparse files."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from aks_inference_runtime.api.disk import disk_errors
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, silent

__all__ = ["copy_checked", "disk_errors"]
_PIECE = 1024 * 1024
_ZEROS = bytes(_PIECE)


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
