"""Unpacking zip and tar without trusting them: nothing outside the folder, no links, no devices, bounded in size.

What an archive says of itself is not believed: bytes are counted as they come out.
"""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from aks_inference_runtime.models.errors import UnsafeArchive

_PIECE = 1024 * 1024
MAX_BYTES = 64 * 1024**3
MAX_FILES = 100_000
MAX_RATIO = 200
"""Unpacked by packed size. Deflate reaches 1,032 on zeros; weights and text stay below 20."""
_NO_FILE = "is a link or a device; only files are taken"
_AT_ONCE = 4 * 1024 * 1024
_COMPRESSED: dict[bytes, type[gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_BROKEN = (EOFError, zlib.error, lzma.LZMAError)
"""Of what is compressed and damaged."""
FREE_BYTES = 64 * 1024**2
"""Below this an archive is small whatever its ratio."""
MAX_NAME_BYTES = 255
"""Of one part of a path: the limit of the file systems in use."""


@dataclass(frozen=True)
class ArchiveLimits:
    """How much may come out."""

    max_bytes: int = MAX_BYTES
    max_files: int = MAX_FILES
    max_ratio: float = MAX_RATIO


@dataclass(frozen=True)
class _Member:
    name: str
    folder: bool
    problem: str
    content: IO[bytes] | None


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, by its content; also one that breaks off, which `unpack` refuses."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except _BROKEN:
        return True


def unpack(archive: Path, target: Path, limits: ArchiveLimits | None = None) -> int:
    """Unpacks into a new folder; gives the number of files. Nothing is left behind when it fails.

    Args:
        archive: Required. A zip, or a tar, plain or compressed with gzip, bzip2 or xz.
        target: Required. A folder that does not exist yet.
        limits: Optional. Default 64 GB, 100,000 files, 200 times the size of the archive.

    Raises:
        UnsafeArchive: with the member and the rule that it breaks.
        OSError: of the disk.
    """
    limits = limits or ArchiveLimits()
    size = archive.stat().st_size
    allowed = min(limits.max_bytes, max(FREE_BYTES, int(size * limits.max_ratio)))
    target.mkdir(parents=True)
    try:
        count = _unpack(archive, target, limits, allowed)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, (tarfile.TarError, zipfile.BadZipFile, *_BROKEN)):
            raise UnsafeArchive(f"{archive.name}: is damaged ({error}); make it anew") from None
        if isinstance(error, RuntimeError | NotImplementedError):
            raise UnsafeArchive(f"{archive.name}: cannot be unpacked ({error}); use plain zip or tar") from None
        raise
    if not count:
        shutil.rmtree(target, ignore_errors=True)
        raise UnsafeArchive(f"{archive.name}: holds no file")
    return count


def _unpack(archive: Path, target: Path, limits: ArchiveLimits, allowed: int) -> int:
    count = total = 0
    for member in _members(archive):
        problem = member.problem or _wrong_name(member.name)
        if problem:
            raise UnsafeArchive(f"{archive.name}: {member.name!r} {problem}")
        place = target / PurePosixPath(member.name)
        if member.folder:
            with suppress(FileExistsError):
                place.mkdir(parents=True)
            continue
        count += 1
        if count > limits.max_files:
            raise UnsafeArchive(f"{archive.name}: holds more than {limits.max_files:,} files")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            file = place.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise UnsafeArchive(f"{archive.name}: {member.name!r} is there twice, or as file and folder") from None
        with file:
            while member.content is not None and (piece := member.content.read(_PIECE)):
                total += len(piece)
                if total > allowed:
                    raise UnsafeArchive(
                        f"{archive.name}: unpacks to more than {allowed:,} bytes, {limits.max_ratio:g} times its size "
                        f"or the limit of {limits.max_bytes:,}; unpack it yourself if that is meant"
                    )
                file.write(piece)
    return count


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                problem = (
                    "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device; only files are taken"
                )
                if info.flag_bits & 1:
                    problem = "is encrypted"
                # ZipInfo cuts names at a NUL byte and turns backslashes of Windows into slashes: the original decides.
                name = info.orig_filename
                if problem or info.is_dir():
                    yield _Member(name, info.is_dir(), problem, None)
                else:
                    with packed.open(info) as content:
                        yield _Member(name, False, "", content)
        return
    with _plain(archive) as content, tarfile.open(fileobj=cast(IO[bytes], _Careful(content)), mode="r:") as tape:
        for entry in tape:
            if entry.isdir() or not entry.isreg():
                problem = "" if entry.isdir() else _NO_FILE
                yield _Member(entry.name, entry.isdir(), problem, None)
            else:
                yield _Member(entry.name, False, "", tape.extractfile(entry))


class _Careful:
    """A file for tarfile that gives no more at once than a sound archive needs: its extended headers are read whole,
    and one that claims (and unpacks to) gigabytes would fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _AT_ONCE:
            raise UnsafeArchive(f"has a header of {size:,} bytes")
        return self._file.read(size)


def _plain(archive: Path) -> IO[bytes]:
    """The tar itself, whatever it is compressed with."""
    with archive.open("rb") as file:
        begin = file.read(6)
    for magic, opener in _COMPRESSED.items():
        if begin.startswith(magic):
            return cast(IO[bytes], opener(archive))
    return archive.open("rb")


def _wrong_name(name: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or os.path.splitdrive(name)[0] or (len(name) > 1 and name[1] == ":"):
        return "leads outside of the folder"
    if "\0" in name or "\\" in name:
        return "has a backslash or a NUL byte in its name"
    try:
        longest = max((len(part.encode()) for part in parts), default=0)
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if longest > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    if not parts and not name.rstrip("./"):
        return ""
    return "" if parts else "has no name"
