"""Small contents of registries on disk, by their digests: manifests and configurations, compared when they are read."""

import contextlib
import hashlib
import os
from pathlib import Path


def read_kept(cache: Path | None, digest: str) -> bytes | None:
    """A content, or None where it was not kept or is no longer what its digest says."""
    if cache is None:
        return None
    try:
        content = _path(cache, digest).read_bytes()
    except OSError:
        return None
    return content if f"sha256:{hashlib.sha256(content).hexdigest()}" == digest else None


def keep(cache: Path | None, content: bytes) -> None:
    """Keeps a content; a disk that takes none costs only the next request."""
    if cache is None:
        return
    write_whole(_path(cache, f"sha256:{hashlib.sha256(content).hexdigest()}"), content)


def write_whole(path: Path, content: bytes) -> None:
    """A file that appears only whole, or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _path(cache: Path, digest: str) -> Path:
    return cache / "blobs" / digest.replace(":", "-")
