"""What this machine has sent to a repository, on disk: an image of the same base there tells that its layers are."""

import hashlib
from pathlib import Path

from aks_inference_runtime.images.build.kept import write_whole
from aks_inference_runtime.images.reference import ImageReference


def sent_before(target: ImageReference, cache: Path) -> bool:
    """Whether an image was ever sent to this repository."""
    return _folder(target, cache).is_dir()


def read_record(target: ImageReference, base: str, cache: Path) -> str | None:
    """The digest of the image on this base (by its digest) that was sent to this repository last."""
    try:
        digest = _path(target, base, cache).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return digest if digest.startswith("sha256:") else None


def write_record(target: ImageReference, base: str, cache: Path, digest: str) -> None:
    """See `read_record`."""
    write_whole(_path(target, base, cache), digest.encode())


def _path(target: ImageReference, base: str, cache: Path) -> Path:
    return _folder(target, cache) / base.replace(":", "-")


def _folder(target: ImageReference, cache: Path) -> Path:
    name = f"{target.api_host}/{target.repository}"
    return cache / "pushed" / hashlib.sha256(name.encode()).hexdigest()
