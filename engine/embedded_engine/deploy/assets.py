"""Assets and archives in wire form: their hashes, by which a change of content is seen.

The hash of an archive is that of a tar of its files, as the CLI makes it, so that a state moves between the two
without a difference.
"""

import hashlib
import os
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embedded_engine import values
from embedded_engine.errors import EngineError
from embedded_engine.model import Properties, Value

_BLOCK = 512
_CHUNK = 1024 * 1024
# What a USTAR header holds; beyond it the header has extensions.
_NAME_LIMIT, _SIZE_LIMIT = 100, 8**11
# Files that are archives themselves are hashed as they are.
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".zip", ".jar")


class AssetError(EngineError):
    """A file of an asset or archive that cannot be read."""


def hashed(properties: Properties, folder: Path) -> Properties:
    """The properties, their assets and archives with hashes. Relative paths begin in `folder`. Raises `AssetError`."""
    if not any(values.signature(v) in (values.ASSET, values.ARCHIVE) for v in values.walk(properties)):
        return properties
    result: Properties = _hashed(properties, folder)
    return result


def _hashed(value: Value, folder: Path) -> Value:
    if isinstance(value, list):
        return [_hashed(entry, folder) for entry in value]
    if not isinstance(value, dict):
        return value
    try:
        if value.get(values.SIGNATURE) == values.ASSET:
            return {**value, "hash": value.get("hash") or _asset_hash(value, folder)}
        if value.get(values.SIGNATURE) == values.ARCHIVE:
            inner = {"assets": _hashed(value["assets"], folder)} if isinstance(value.get("assets"), dict) else {}
            return {**value, **inner, "hash": value.get("hash") or _archive_hash(value, folder)}
    except OSError as error:
        where = value.get("path") or value.get("uri") or "an asset"
        raise AssetError(f"{where}: {error.strerror or error}") from error
    return {key: _hashed(entry, folder) for key, entry in value.items()}


def _asset_hash(asset: Mapping[str, Any], folder: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _content(asset, folder):
        digest.update(chunk)
    return digest.hexdigest()


def _content(asset: Mapping[str, Any], folder: Path) -> Iterator[bytes]:
    if isinstance(asset.get("text"), str) and not asset.get("path") and not asset.get("uri"):
        yield str(asset["text"]).encode()
        return
    if asset.get("path"):
        yield from _file(folder / str(asset["path"]))
        return
    yield from _remote(str(asset.get("uri", "")))


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _remote(uri: str) -> Iterator[bytes]:
    scheme = urllib.parse.urlsplit(uri).scheme
    if scheme not in ("http", "https", "file"):
        raise AssetError(f"{uri}: an asset's URI begins with http, https or file")
    with urllib.request.urlopen(uri) as answer:  # noqa: S310 - the scheme is checked above
        while chunk := answer.read(_CHUNK):
            yield chunk


def _archive_hash(archive: Mapping[str, Any], folder: Path) -> str:
    digest = hashlib.sha256()
    path, uri = archive.get("path"), archive.get("uri")
    whole = folder / str(path) if path else None
    if whole is not None and whole.is_file():
        if not whole.name.endswith(_ARCHIVES):
            raise AssetError(f"{path}: not a folder and not one of {', '.join(_ARCHIVES)}")
        chunks: Iterator[bytes] = _file(whole)
    elif uri:
        chunks = _remote(str(uri))
    else:
        chunks = _tar(_entries(archive, folder, ""))
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _entries(archive: Mapping[str, Any], folder: Path, prefix: str) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """(name, size, content) of all files, in the CLI's order."""
    if archive.get("path"):
        yield from _folder_entries(folder / str(archive["path"]), prefix)
        return
    contents: Mapping[str, Any] = archive.get("assets") or {}
    for name in sorted(contents):
        entry = contents[name]
        full = f"{prefix}{name}"
        if values.signature(entry) == values.ARCHIVE:
            yield from _entries(entry, folder, f"{full}/")
        else:
            data = b"".join(_content(entry, folder))
            yield full, len(data), iter((data,))


def _folder_entries(root: Path, prefix: str) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    if not root.is_dir():
        raise AssetError(f"{root}: no such folder")
    for path in _walk(root):
        yield prefix + path.relative_to(root).as_posix(), path.stat().st_size, _file(path)


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir():
            yield from _walk(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def _tar(entries: Iterator[tuple[str, int, Iterator[bytes]]]) -> Iterator[bytes]:
    seen: set[str] = set()
    for name, size, content in entries:
        if name in seen:
            continue
        seen.add(name)
        yield _header(name, size)
        yield from content
        yield b"\0" * (-size % _BLOCK)
    yield b"\0" * (2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    """A USTAR header without owner and time, because only names and contents count.

    Not `tarfile`'s own: that leaves the device numbers empty, where the CLI writes zeros, and the hash would differ.
    """
    encoded = name.encode()
    if len(encoded) > _NAME_LIMIT or not name.isascii() or size >= _SIZE_LIMIT:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        return info.tobuf(tarfile.PAX_FORMAT)
    parts = (
        encoded.ljust(100, b"\0"),
        b"0000600\0" + b"0000000\0" * 2,
        b"%011o\0" % size,
        b"%011o\0" % 0,
        b" " * 8,
        b"0",
        b"\0" * 100,
        b"ustar\00000",
        b"\0" * 64,
        b"0000000\0" * 2,
    )
    header = b"".join(parts).ljust(_BLOCK, b"\0")
    checksum = b"%06o\0 " % sum(header)
    return header[:148] + checksum + header[156:]
