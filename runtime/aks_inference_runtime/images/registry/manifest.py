"""Manifests and descriptors (OCI image specification 1.1), as bytes with a digest and as data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aks_inference_runtime.images.errors import DigestMismatch, RegistryError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_JSON = b"{}"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
LAYER_AS_OCI = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
}
"""The same bytes under OCI's names: an image may not mix the two kinds."""


def sha256(content: bytes) -> str:
    """`sha256:<hex>` of bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Descriptor:
    """A content by type, digest and size."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None

    def to_json(self) -> dict[str, object]:
        """As it stands in a manifest."""
        content: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            content["artifactType"] = self.artifact_type
        if self.annotations:
            content["annotations"] = dict(sorted(self.annotations.items()))
        return content

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> "Descriptor":
        """Reads a descriptor. Raises RegistryError when it is none."""
        try:
            return Descriptor(
                str(raw["mediaType"]),
                str(raw["digest"]),
                int(raw["size"]),
                dict(raw.get("annotations") or {}),
                raw.get("artifactType"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RegistryError(f"a manifest holds something that is no descriptor ({error!r})") from None


@dataclass(frozen=True)
class Attached:
    """What was attached, and whether it had to be listed under a tag, as the registry has no referrers."""

    entry: Descriptor
    listed: bool


@dataclass(frozen=True)
class Manifest:
    """A manifest or index as its registry holds it."""

    media_type: str
    content: bytes

    @property
    def digest(self) -> str:
        """What identifies it."""
        return sha256(self.content)

    @property
    def data(self) -> dict[str, Any]:
        """Its JSON. Raises RegistryError when it is none."""
        try:
            raw = json.loads(self.content)
        except ValueError:
            raw = None
        if not isinstance(raw, dict):
            raise RegistryError(f"the manifest {self.digest} is not a JSON object")
        return raw

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests of several platforms."""
        return self.media_type in INDEX_TYPES

    def descriptor(self) -> Descriptor:
        """How others name it."""
        return Descriptor(self.media_type, self.digest, len(self.content))

    def part(self, name: str) -> Descriptor:
        """One descriptor, such as `config`."""
        return Descriptor.from_json(self.data.get(name) or {})

    def parts(self, name: str) -> tuple[Descriptor, ...]:
        """A list of descriptors, such as `layers` or `manifests`."""
        return tuple(Descriptor.from_json(raw) for raw in self.data.get(name) or ())

    def check(self, digest: str | None) -> "Manifest":
        """Itself when its digest is this one (or none is asked for); else raises DigestMismatch."""
        if digest and digest.startswith("sha256:") and self.digest != digest:
            raise DigestMismatch(f"asked for the manifest {digest}, got one that is {self.digest}")
        return self


def json_bytes(content: object) -> bytes:
    """JSON that is the same for the same content: sorted keys, no whitespace."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def image_manifest(
    config: Descriptor, layers: tuple[Descriptor, ...], annotations: Mapping[str, str] | None = None
) -> Manifest:
    """The manifest of an image."""
    content: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        content["annotations"] = dict(annotations)
    return Manifest(OCI_MANIFEST, json_bytes(content))


def artifact_manifest(artifact_type: str, content: Descriptor, subject: Descriptor) -> Manifest:
    """A manifest that attaches one content to another manifest (specification 1.1, "Guidance for artifacts")."""
    empty = Descriptor(OCI_EMPTY, sha256(EMPTY_JSON), len(EMPTY_JSON))
    return Manifest(
        OCI_MANIFEST,
        json_bytes(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": artifact_type,
                "config": empty.to_json(),
                "layers": [content.to_json()],
                "subject": subject.to_json(),
            }
        ),
    )


def index_manifest(manifests: tuple[Mapping[str, object], ...]) -> Manifest:
    """An index over descriptors (with their `platform` where they are images)."""
    content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [dict(one) for one in manifests]}
    return Manifest(OCI_INDEX, json_bytes(content))
