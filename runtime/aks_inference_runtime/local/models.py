"""The model store of a local cluster: a folder store that takes its files from this machine."""

from collections.abc import Sequence
from pathlib import Path

from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.endpoint import ModelReference
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.api.supervisor import ModelRegistration
from aks_inference_runtime.models.copying import disk_errors
from aks_inference_runtime.models.mirror import mirror
from aks_inference_runtime.models.stores.folder import FolderStore
from aks_inference_runtime.models.stores.store import StoredFile, Upload


class ModelStore:
    """Files under `<root>/<name>/<version>/files`, and those of other stores as they were brought. Calls block."""

    def __init__(self, root: Path) -> None:
        self._folder, self._state = FolderStore(root), root.parent

    def put(self, registration: ModelRegistration) -> ModelRecord:
        """Stores files, or finds the version that has the same content, framework and properties.

        The facts that may change are those of the registration afterwards; framework and properties never do.

        Raises:
            InvalidInput: the source is missing or not absolute, or a framework version has no framework.
            OperationFailed: the disk, or a file that changed meanwhile.
        """
        source = Path(registration.source_path)
        if not source.is_absolute():
            raise InvalidInput(f"path: {registration.source_path!r} is not absolute; give an absolute path")
        if registration.framework_version and not registration.framework:
            raise InvalidInput("frameworkVersion without framework; give both")
        files = model_files(source, registration.child_paths)
        with disk_errors(source):
            digests = file_digests(files)
            stored = {name: StoredFile(path, digests[name], path.stat().st_size) for name, path in files.items()}
        facts = ModelFacts.model_validate({fact: getattr(registration, fact) for fact in ModelFacts.model_fields})
        return self._folder.store(Upload(registration.name, stored, facts))

    def all(self) -> list[ModelRecord]:
        """By name and version."""
        return [record for name in self._folder.all_names() for record in self._folder.all_versions(name)]

    def get(self, name: str, version: int) -> ModelRecord:
        """Raises NotFound."""
        return self._folder.get(name, version)

    def delete(self, name: str, version: int, users: Sequence[str]) -> None:
        """Raises NotFound, or Conflict naming the endpoints that use it. The number is never given again."""
        self._folder.remove(name, version, users)

    def find(self, reference: ModelReference) -> ModelRecord:
        """Also of another store. Raises NotFound."""
        return self._of(reference).get(reference.name, reference.version)

    def link(self, reference: ModelReference, target: Path) -> None:
        """Puts the files of a version into a folder without copying them. Raises NotFound."""
        folder = self._of(reference)
        folder.link(folder.get(reference.name, reference.version), target)

    def _of(self, reference: ModelReference) -> FolderStore:
        return self._folder if reference.store is None else mirror(self._state, reference.store)
