"""Files of the state directory: written whole or not at all, readable by the owner only."""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.client import refuse_newer
from aks_inference_runtime.api.errors import InvalidInput, OperationFailed

_W = TypeVar("_W", bound=Wire)
AGAIN = " and apply again"
"""What follows "make room" where nobody tries again by himself."""
BY_ITSELF = "; it is tried again by itself"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_text(path: Path, text: str, then: str = AGAIN) -> None:
    """Replaces a file. Raises OperationFailed; the old content then stays and nothing half-written is left.

    `then`: what follows once there is room on a full disk, AGAIN, BY_ITSELF, or nothing.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _failed(path, error, then) from None


def write_wire(path: Path, value: Wire, then: str = AGAIN) -> None:
    """Replaces a file with an object's JSON. Raises OperationFailed as write_text does."""
    write_text(path, value.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n", then)


def read_wire(path: Path, kind: type[_W]) -> _W:
    """Raises InvalidInput for a damaged file and for one of a newer version; nothing is changed then."""
    text = path.read_text(errors="replace")
    refuse_newer(path, text)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise InvalidInput(
            f"{path} is damaged ({what}); nothing was changed: put it back "
            f"from a backup, or remove this file to forget what it declares"
        ) from None


def copy_tree(files: dict[str, Path], target: Path) -> None:
    """Copies files by relative names into a new folder, whole or not at all. Raises OperationFailed."""
    target.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for name, source in files.items():
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        temporary.replace(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _failed(target, error) from None


def remove_tree(folder: Path) -> None:
    """Removes a folder, also where folders in it are read-only; what cannot be removed stays."""
    for name, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(name).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _failed(path: Path, error: OSError, then: str = AGAIN) -> OperationFailed:
    mend = f"; the disk is full: make room{then}" if error.errno in _FULL else ""
    return OperationFailed(f"{path} cannot be written: {error.strerror or error}{mend}")
