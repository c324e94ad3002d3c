"""A file as an uncompressed tar layer that is never written: its bytes are computed where they are read."""

import hashlib
import os
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LAYER = "application/vnd.oci.image.layer.v1.tar"
_BLOCK = 512
_END = bytes(2 * _BLOCK)
"""What a tar ends with (POSIX ustar)."""
_PIECE = 1024 * 1024
_MODE = 0o644


@dataclass(frozen=True)
class Described:
    """Digests of a layer and of the file in it."""

    digest: str
    content: str


@dataclass(frozen=True)
class FileLayer:
    """Readable for all, owned by root, of the epoch: the same bytes for the same name and content."""

    name: str
    path: Path
    size: int

    @cached_property
    def header(self) -> bytes:
        """What stands before the content, with long and foreign names as POSIX has them."""
        info = tarfile.TarInfo(self.name)
        info.size, info.mode, info.mtime = self.size, _MODE, 0
        return info.tobuf(tarfile.PAX_FORMAT)

    @staticmethod
    def padded(size: int) -> int:
        """Length of the content with what follows it."""
        return -(-size // _BLOCK) * _BLOCK + len(_END)

    @property
    def length(self) -> int:
        """Of the layer."""
        return len(self.header) + self.padded(self.size)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the layer."""
        end = min(offset + length, self.length)
        parts, begin = [self.header[offset:end]], len(self.header)
        if offset < begin + self.size and end > begin:
            with self.path.open("rb", buffering=0) as file:
                at, until = max(offset - begin, 0), min(end - begin, self.size)
                while at < until and (piece := os.pread(file.fileno(), until - at, at)):
                    parts.append(piece)
                    at += len(piece)
        content = b"".join(parts)
        # Behind the content; and a file that became shorter: its digest tells.
        return content + bytes(end - offset - len(content))


def describe_layer(layer: FileLayer) -> Described:
    """Both digests in one reading. Raises OSError."""
    whole, content, left = hashlib.sha256(layer.header), hashlib.sha256(), layer.size
    with layer.path.open("rb", buffering=0) as file:
        while left and (piece := file.read(min(_PIECE, left))):
            whole.update(piece)
            content.update(piece)
            left -= len(piece)
        if file.read(1):
            content.update(b"longer")
    whole.update(bytes(layer.padded(layer.size) - layer.size))
    return Described(f"sha256:{whole.hexdigest()}", f"sha256:{content.hexdigest()}")
