"""What this machine has sent to a repository, on disk: an image of the same base there tells that its layers are."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.images.build.kept import write_whole
from aks_inference_runtime.images.reference import ImageReference

_LISTED, _SUBJECT = "listed", "subject"


@dataclass(frozen=True)
class Record:
    """An image that was sent."""

    digest: str
    listed: bool | None = None
    """Whether its bill of materials had to be listed under a tag, as the registry has no referrers. None: not known."""


def sent_before(target: ImageReference, cache: Path) -> bool:
    """Whether an image was ever sent to this repository."""
    return _folder(target, cache).is_dir()


def read_record(target: ImageReference, base: str, cache: Path) -> Record | None:
    """The image on this base (by its digest) that was sent to this repository last."""
    try:
        digest, _, how = _path(target, base, cache).read_text("ascii").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    listed = how == _LISTED if how in {_LISTED, _SUBJECT} else None
    return Record(digest, listed) if digest.startswith("sha256:") else None


def write_record(target: ImageReference, base: str, cache: Path, record: Record) -> None:
    """See `read_record`."""
    how = "" if record.listed is None else f"\n{_LISTED if record.listed else _SUBJECT}"
    write_whole(_path(target, base, cache), f"{record.digest}{how}".encode())


def _path(target: ImageReference, base: str, cache: Path) -> Path:
    return _folder(target, cache) / base.replace(":", "-")


def _folder(target: ImageReference, cache: Path) -> Path:
    name = f"{target.api_host}/{target.repository}"
    return cache / "pushed" / hashlib.sha256(name.encode()).hexdigest()
