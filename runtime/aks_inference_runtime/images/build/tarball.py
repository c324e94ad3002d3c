"""Layers: tar files that are the same for the same content, compressed, with both digests."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.images.registry.manifest import OCI_LAYER_GZIP, Descriptor

EPOCH = 315_532_800
"""1980-01-01: all files of a layer carry it, as the content alone shall decide the digest (zip knows no earlier)."""
COMPRESSION = 4
"""zlib's level: a fifth larger than the slowest at a third of its time."""
FORMAT = 1
"""Grows when the same content is packed differently: kept layers are then packed anew."""
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One file, folder or link of a layer. Its name is relative, with forward slashes."""

    name: str
    content: bytes | Path | Callable[[], bytes] = b""
    """A callable is asked when the file is packed: a large wheel is never in memory whole."""
    executable: bool = False
    link: str | None = None
    digest: str | None = None
    """`sha256:<hex>` of a file when it was looked at. None: whatever it is now."""


@dataclass(frozen=True)
class Layer:
    """A packed layer on disk."""

    path: Path
    digest: str
    diff_id: str
    size: int
    is_new: bool = field(default=False, compare=False)
    """Packed just now, as it was not on disk."""

    def descriptor(self) -> Descriptor:
        """As a manifest names it."""
        return Descriptor(OCI_LAYER_GZIP, self.digest, self.size)


class _Read:
    """Passes a file's bytes on and hashes them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


class _Writes(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Hashed:
    """Passes bytes on and counts and hashes them."""

    def __init__(self, target: _Writes) -> None:
        self._target = target
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def pack(entries: Iterable[Entry], path: Path) -> Layer:
    """Packs entries, sorted by name, with their folders, into a file that appears only whole.

    Raises OperationFailed for a file that is not what its digest says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        with part.open("wb") as file:
            packed = _Hashed(file)
            with gzip.GzipFile(
                filename="", mode="wb", fileobj=cast(IO[bytes], packed), compresslevel=COMPRESSION, mtime=0
            ) as zipped:
                plain = _Hashed(zipped)
                with tarfile.open(
                    fileobj=cast(IO[bytes], plain), mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK
                ) as tar:
                    _add_all(tar, sorted(entries, key=lambda entry: entry.name))
        layer = Layer(
            path, f"sha256:{packed.sha256.hexdigest()}", f"sha256:{plain.sha256.hexdigest()}", packed.size, is_new=True
        )
        part.replace(path)
        return layer
    finally:
        part.unlink(missing_ok=True)


def kept(directory: Path, key: str, make: Callable[[contextlib.ExitStack], Iterable[Entry]]) -> Layer:
    """The layer under a key, from disk where it is. `key` names its content and how it is laid out; what `make` opens
    it leaves to the stack."""
    name = hashlib.sha256(f"{FORMAT}\0{COMPRESSION}\0{key}".encode()).hexdigest()
    path, record = directory / f"{name}.tar.gz", directory / f"{name}.json"
    try:
        known = json.loads(record.read_text("utf-8"))
        layer = Layer(path, known["digest"], known["diff_id"], known["size"])
        if path.stat().st_size == layer.size:
            return layer
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or half written by a process that was killed: packed again
    with contextlib.ExitStack() as stack:
        layer = pack(make(stack), path)
    content = {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size}
    part = record.with_name(f"{record.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        part.write_text(json.dumps(content), "utf-8")
        part.replace(record)
    finally:
        part.unlink(missing_ok=True)
    return layer


def _add_all(tar: tarfile.TarFile, entries: Iterable[Entry]) -> None:
    folders: set[str] = set()
    for entry in entries:
        for parent in reversed(PurePosixPath(entry.name).parents):
            if str(parent) != "." and str(parent) not in folders:
                folders.add(str(parent))
                tar.addfile(_header(str(parent), tarfile.DIRTYPE, 0o755))
        if entry.link is not None:
            header = _header(entry.name, tarfile.SYMTYPE, 0o777)
            header.linkname = entry.link
            tar.addfile(header)
            continue
        header = _header(entry.name, tarfile.REGTYPE, 0o755 if entry.executable else 0o644)
        if not isinstance(entry.content, Path):
            content = entry.content if isinstance(entry.content, bytes) else entry.content()
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        else:
            _add_file(tar, header, entry.content, entry.digest)


def _add_file(tar: tarfile.TarFile, header: tarfile.TarInfo, path: Path, digest: str | None) -> None:
    """Raises OperationFailed where it is no longer what it was: the layer is kept under the name of what was looked
    at."""
    with path.open("rb") as file:
        header.size = os.fstat(file.fileno()).st_size
        read = _Read(file)
        tar.addfile(header, cast(IO[bytes], read))
    if digest is not None and f"sha256:{read.sha256.hexdigest()}" != digest:
        raise OperationFailed(f"{path}: has changed since it was looked at; apply again when it rests")


def _header(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.mtime = kind, mode, EPOCH
    header.uid = header.gid = 0
    header.uname = header.gname = ""
    return header
