"""A file as an uncompressed tar layer that is never written: its bytes are computed where they are read."""

import hashlib
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import RegistryClient
from aks_inference_runtime.images.registry.manifest import (
    OCI_CONFIG,
    Descriptor,
    image_manifest,
    index_manifest,
    json_bytes,
    sha256,
)
from aks_inference_runtime.images.registry.upload import UploadSource

ARCHITECTURES = ("amd64", "arm64")
"""Files have none, but a node asks for its own."""
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


async def push_files(client: RegistryClient, target: ImageReference, layers: Sequence[Descriptor]) -> str:
    """Puts an image of layers that the repository has under a tag, for each architecture; gives the index' digest."""
    entries = []
    for architecture in ARCHITECTURES:
        rootfs = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
        config = json_bytes({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs})
        described = Descriptor(OCI_CONFIG, sha256(config), len(config))
        await client.push_blob(target, described, UploadSource.of(config))
        manifest = image_manifest(described, tuple(layers))
        by_digest = ImageReference(target.registry, target.repository, None, manifest.digest)
        found = await client.push_manifest(by_digest, manifest)
        entries.append({**found.to_json(), "platform": {"os": "linux", "architecture": architecture}})
    return (await client.push_manifest(target, index_manifest(tuple(entries)))).digest
