"""What an index answered before, kept on disk for a day: by place, package and interpreter."""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aks_inference_runtime.packages.page import Releases, machine_name

AGE_S = 24 * 3_600.0
"""A release that was there is hardly ever taken away. That one is missing is never kept."""
_FIELDS = ("usable", "yanked", "others")


def kept_folder() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/aks-inference/packages`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "aks-inference" / "packages"


class Kept:
    """The folder. Where it cannot be read or written nothing is known, and nothing else happens."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        """`now`: in seconds since 1970."""
        self._folder, self._now = folder, now

    def get(self, index: str, name: str, *, here: bool) -> Releases | None:
        """What is known, unless it is too old."""
        try:
            read: Any = json.loads(self._path(index, name, here).read_text())
            if not 0 <= self._now() - read["at"] <= AGE_S:
                return None
            return Releases(*(tuple(map(str, read[field])) for field in _FIELDS))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, index: str, name: str, found: Releases, *, here: bool) -> None:
        """Keeps it."""
        path = self._path(index, name, here)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump({"at": self._now(), **{field: getattr(found, field) for field in _FIELDS}}, file)
                Path(temporary).replace(path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _path(self, index: str, name: str, here: bool) -> Path:
        # The address may hold credentials: only its digest is on disk.
        for_whom = f"{machine_name()} {sys.version_info.micro}" if here else "any"
        digest = hashlib.sha256("\n".join((index, name, for_whom)).encode()).hexdigest()[:40]
        return self._folder / f"{digest}.json"
