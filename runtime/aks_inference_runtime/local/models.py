"""The model store: named, versioned sets of files."""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aks_inference_runtime.api.content import combined_digest, file_digest, model_files
from aks_inference_runtime.api.endpoint import ModelReference
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.api.supervisor import ModelRegistration
from aks_inference_runtime.local.files import copy_tree, read_wire, write_wire
from aks_inference_runtime.local.records import StoredModel


class ModelStore:
    """Files under `<root>/<name>/<version>/files`. Calls block on the disk; one at a time per store."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, registration: ModelRegistration) -> ModelRecord:
        """Stores files, or finds the version that has the same content, framework and properties.

        Tags and description of a found version are replaced (they may change); properties never do.

        Raises:
            InvalidInput: the source is missing or not absolute, or a framework version has no framework.
            OperationFailed: the disk.
        """
        source = Path(registration.source_path)
        if not source.is_absolute():
            raise InvalidInput(f"path: {registration.source_path!r} is not absolute; give an absolute path")
        if registration.framework_version and not registration.framework:
            raise InvalidInput("frameworkVersion without framework; give both")
        files = model_files(source, registration.child_paths)
        digests = {name: file_digest(path) for name, path in files.items()}
        versions = self._versions(registration.name)
        for record in reversed(versions):
            if _same(record, registration, combined_digest(digests)):
                return self._refresh(record, registration)
        version = max((record.version for record in versions), default=0) + 1
        folder = self._root / registration.name / str(version)
        shutil.rmtree(folder, ignore_errors=True)  # without a record: an upload that was cut off
        copy_tree(files, folder / "files")
        stored = {name: file_digest(folder / "files" / name) for name in files}
        record = StoredModel(
            name=registration.name,
            version=version,
            digest=combined_digest(stored),
            files=stored,
            size_bytes=sum((folder / "files" / name).stat().st_size for name in stored),
            created_time=datetime.now(UTC).isoformat(timespec="seconds"),
            framework=registration.framework,
            framework_version=registration.framework_version,
            description=registration.description,
            tags=registration.tags,
            properties=registration.properties,
        )
        write_wire(folder / "record.json", record)
        return _plain(record)

    def all(self) -> list[ModelRecord]:
        """By name and version."""
        names = sorted(path.name for path in self._root.iterdir() if path.is_dir())
        return [_plain(record) for name in names for record in self._versions(name)]

    def get(self, name: str, version: int) -> ModelRecord:
        """Raises NotFound."""
        path = self._root / name / str(version) / "record.json"
        if not path.is_file():
            present = ", ".join(str(r.version) for r in self._versions(name)) or "none"
            raise NotFound(f"no model {name}:{version} is stored (versions of {name}: {present})")
        return _plain(read_wire(path, StoredModel))

    def delete(self, name: str, version: int, users: Sequence[str]) -> None:
        """Raises NotFound, or Conflict naming the endpoints that use it."""
        self.get(name, version)
        if users:
            raise Conflict(f"model {name}:{version} is used by {', '.join(users)}; delete or change them first")
        folder = self._root / name / str(version)
        (folder / "record.json").unlink()
        shutil.rmtree(folder)

    def link(self, reference: ModelReference, target: Path) -> None:
        """Puts the files of a version into a folder without copying them."""
        record = self.get(reference.name, reference.version)
        source = self._root / record.name / str(record.version) / "files"
        for name in record.files:
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(source / name, place)

    def _versions(self, name: str) -> list[StoredModel]:
        folder = self._root / name
        if not folder.is_dir():
            return []
        numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        records = [folder / str(number) / "record.json" for number in numbers]
        return [read_wire(path, StoredModel) for path in records if path.is_file()]

    def _refresh(self, record: StoredModel, registration: ModelRegistration) -> ModelRecord:
        newer = record.model_copy(update={"tags": registration.tags, "description": registration.description})
        if newer != record:
            write_wire(self._root / record.name / str(record.version) / "record.json", newer)
        return _plain(newer)


def _same(record: StoredModel, wanted: ModelRegistration, digest: str) -> bool:
    return (record.digest, record.framework, record.framework_version, record.properties) == (
        digest,
        wanted.framework,
        wanted.framework_version,
        wanted.properties,
    )


def _plain(record: StoredModel) -> ModelRecord:
    return ModelRecord.model_validate(record.model_dump(exclude={"record_version"}))
