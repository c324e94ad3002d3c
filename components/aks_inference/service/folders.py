"""Files of entry scripts: many services share a folder, which is looked at for each and read again once it changed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from aks_inference_runtime.api.content import (
    code_files,
    combined_digest,
    file_digest,
)
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.ignoring import Ignored, ignored_of

Mark = tuple[str, int, int, int]
"""Path, inode, size in bytes, time of the last change in ns: another one is another content."""
_NO_FILE = (0, 0, 0)
MOST_FILES = 200_000
MOST_BYTES = 20_000_000_000
"""Every preview reads all of them: / or a home folder would be read for hours. A project with its packages and data is
below: what it does not ignore is code (docs/decisions.md, 1)."""


class TooMuch(InvalidInput):
    """A folder is looked at no further."""


@dataclass(frozen=True)
class Content:
    """The code of a version."""

    digest: str
    names: frozenset[str]
    size_bytes: int


def content_of(source: str | None, script: str) -> Content:
    """Of a folder, or of a script that stands alone. Raises InvalidInput, TooMuch and OSError."""
    if source is None:
        return _script(script, mark_of(script))
    return _folder(source, tuple(_bounded(source)))


def mark_of(path: str) -> Mark:
    """Of a file. Raises OSError."""
    stat = os.stat(path)  # noqa: PTH116 - a Path costs more than the look
    return path, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _bounded(source: str) -> Iterator[Mark]:
    size = 0
    for number, mark in enumerate(_marks(source, "", ignored_of(Path(source))), 1):
        size += mark[2]
        if number > MOST_FILES or size > MOST_BYTES:
            raise TooMuch(f"holds more than {MOST_FILES:,} files, or than {MOST_BYTES / 1e9:,.0f} GB")
        yield mark


def _marks(folder: str, below: str, ignored: Ignored) -> Iterator[Mark]:
    """`below`: the folder's own name in the whole, with a slash at its end."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = below + entry.name
            if not entry.is_dir():
                if not ignored.file(name):
                    # What is no file is refused by who reads it.
                    yield mark_of(entry.path) if entry.is_file() else (entry.path, *_NO_FILE)
            elif ignored.folder(name):
                continue
            elif entry.is_symlink():
                yield (entry.path, *_NO_FILE)
            else:
                yield from _marks(entry.path, f"{name}/", ignored)


@lru_cache(maxsize=256)
def _folder(source: str, marks: tuple[Mark, ...]) -> Content:
    return _content(code_files(Path(source)))


@lru_cache(maxsize=256)
def _script(script: str, mark: Mark) -> Content:
    path = Path(script)
    return _content({path.name: path})


def _content(files: dict[str, Path]) -> Content:
    digests = {name: file_digest(path) for name, path in files.items()}
    size = sum(path.stat().st_size for path in files.values())
    return Content(combined_digest(digests), frozenset(files), size)
