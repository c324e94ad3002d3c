"""What every store does, and the rules of versions. The rules are pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aks_inference_runtime.api.content import combined_digest
from aks_inference_runtime.api.errors import Conflict, NotFound
from aks_inference_runtime.api.models import IDENTITY, ModelFacts
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.progress import Progress, silent


@dataclass(frozen=True)
class StoredFile:
    """A file of this machine that goes into a store."""

    path: Path
    digest: str
    """`sha256:<hex>`: what is sent must be this, or nothing is kept."""
    size: int


@dataclass(frozen=True)
class Upload:
    """A model to register."""

    name: str
    files: Mapping[str, StoredFile]
    """By the names that they have in the model."""
    facts: ModelFacts

    @property
    def digest(self) -> str:
        """Over names and contents."""
        return combined_digest({name: file.digest for name, file in self.files.items()})

    def record(self, version: int, created_time: str) -> ModelRecord:
        """What a store keeps."""
        return ModelRecord(
            name=self.name,
            version=version,
            digest=self.digest,
            files={name: file.digest for name, file in sorted(self.files.items())},
            file_sizes={name: file.size for name, file in sorted(self.files.items())},
            size_bytes=sum(file.size for file in self.files.values()),
            created_time=created_time,
            **{fact: getattr(self.facts, fact) for fact in ModelFacts.model_fields},
        )


class ModelStore(Protocol):
    """A store. Its errors are api.errors: NotFound, Conflict, and StoreUnavailable where it cannot be reached."""

    @property
    def address(self) -> str:
        """How it is named: an absolute path, `az://…` or `oci://…`."""

    async def names(self) -> list[str]:
        """Of all models, sorted."""

    async def versions(self, name: str) -> list[ModelRecord]:
        """Of a model, the oldest first; empty where there is none."""

    async def present(self, name: str, digests: Collection[str]) -> set[str]:
        """Those contents (`sha256:<hex>`) that need not be sent again for a model of this name."""

    async def put(self, upload: Upload, progress: Progress = silent) -> ModelRecord:
        """Registers a model: the version that has these files, framework and properties, or the next one.

        The facts that may change are those of the upload afterwards. An upload that was cut off, also by kill -9, is
        continued; nothing of it can be seen before it is whole. Raises ContentMismatch when a file is no longer what
        its digest says.
        """

    async def fetch(self, record: ModelRecord, target: Path, progress: Progress = silent) -> None:
        """The files of a version below a folder, each compared with its digest; what is there already stays.

        Raises ContentMismatch.
        """

    async def delete(self, name: str, version: int) -> None:
        """Removes a version; its number is never given again. Raises NotFound, or Conflict naming who uses it."""

    async def users(self, name: str, version: int) -> list[str]:
        """Who uses a version, as `use` was told."""

    async def use(self, name: str, version: int, by: str) -> None:
        """Protects a version from being deleted. Raises NotFound."""

    async def release(self, name: str, version: int, by: str) -> None:
        """Ends the protection for one user; well also when there was none."""


def same_version(versions: Sequence[ModelRecord], upload: Upload) -> ModelRecord | None:
    """The newest version that the upload is, short of what may change."""
    wanted = upload.digest
    for record in reversed(versions):
        if record.digest == wanted and all(getattr(record, fact) == getattr(upload.facts, fact) for fact in IDENTITY):
            return record
    return None


def amended(record: ModelRecord, facts: ModelFacts) -> ModelRecord:
    """The record with the facts that may change."""
    return record.model_copy(
        update={fact: getattr(facts, fact) for fact in ModelFacts.model_fields if fact not in IDENTITY}
    )


async def find_version(store: ModelStore, name: str, version: int | None = None) -> ModelRecord:
    """One version, or the newest. Raises NotFound that names those that there are."""
    records = await store.versions(name)
    for record in reversed(records):
        if version in (None, record.version):
            return record
    present = ", ".join(str(record.version) for record in records) or "none"
    which = name if version is None else f"{name}:{version}"
    raise NotFound(f"no model {which} in {store.address} (versions of {name}: {present})")


def refuse_used(name: str, version: int, users: Sequence[str]) -> None:
    """Raises Conflict when somebody uses a version."""
    if users:
        raise Conflict(f"model {name}:{version} is used by {', '.join(users)}; delete or change them first")
