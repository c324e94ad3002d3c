"""Models on their way to a replica: from the store to a cache that the replicas of a machine share, from there by hard
links (a copy where the file systems differ) to the place where the scoring server looks.

In a pod this is the init container: `python -m aks_inference_runtime.models.delivery SETTINGS [MODEL …]`, the settings
as JSON or as a file that holds it, further models as JSON each (one argument must stay below 128 KiB on Linux). It ends
with 0 only when every file is there and has been compared with its digest; `init()` sees nothing else. On a local
target the store is on the same disk and its files are linked (local.apps).
"""

import asyncio
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import Field, ValidationError

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.content import combined_digest, file_digest
from aks_inference_runtime.api.endpoint import ModelReference
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput
from aks_inference_runtime.api.replica import APP_ROOT
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.images.errors import AccessDenied
from aks_inference_runtime.images.registry import CredentialStore, TransportOptions
from aks_inference_runtime.models.azure import AUTHORITIES, take_access
from aks_inference_runtime.models.copying import copy_checked, disk_errors
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, silent, size_text
from aks_inference_runtime.models.stores import ModelStore, open_store
from aks_inference_runtime.models.stores.store import find_version
from aks_inference_runtime.scoring.server import MODELS_FOLDER, model_directory

LOGINS = (".dockerconfigjson", "config.json")
"""Names in a folder of credentials: those of Kubernetes' own kinds of Secrets, where it has one."""
TOLD_EVERY = 0.1
"""Progress, as a share of the whole."""


class DeliveredModel(ModelReference):
    """A model of a version, and where it is kept."""

    store: str = Field(min_length=1)
    digest: str | None = None
    """`sha256:<hex>` over names and contents, where the deployment knows it: another content is refused."""


class DeliverySettings(Wire):
    """What an init container does."""

    models: tuple[DeliveredModel, ...]
    app_root: str = APP_ROOT
    cache: str | None = None
    """A folder of the machine that its replicas share. None: none, the files go straight to the app root."""
    cache_bytes: int | None = Field(None, gt=0)
    """The longest unused versions go above that. None: unlimited."""
    credentials: str | None = None
    """A folder with what gives access to the stores, each file if it is there: logins of registries
    (`.dockerconfigjson` or `config.json`), `connection-string` of Blob Storage, `ca.crt` with further authorities of
    both. None: the identity of the pod or machine, and its own `docker login`."""


async def deliver(settings: DeliverySettings, progress: Progress = silent) -> Path:
    """Puts all models where a replica looks for them; gives AZUREML_MODEL_DIR. Well also when it is done already.

    Raises:
        NotFound, StoreUnavailable: a model is not there, or its store does not answer.
        ContentMismatch: bytes are not what their digest says.
        OperationFailed: the disk.
    """
    root = Path(settings.app_root) / MODELS_FOLDER
    with disk_errors(root):
        await asyncio.to_thread(root.mkdir, parents=True, exist_ok=True)
    access = read_access(settings)
    for model in settings.models:
        store = open_store(model.store, *access)
        record = await find_version(store, model.name, model.version)
        if model.digest not in (None, record.digest) or combined_digest(record.files) != record.digest:
            wanted = model.digest or "that of its files"
            raise ContentMismatch(f"model {record.model_id} in {model.store} is {record.digest}, not {wanted}")
        target = root / model.name / str(model.version)
        if settings.cache is None:
            await store.fetch(record, target, progress)
        else:
            cache = NodeCache(Path(settings.cache), settings.cache_bytes)
            await cache.provide(store, record, target, progress)
    return model_directory(Path(settings.app_root), settings.models)


def read_access(settings: DeliverySettings) -> tuple[CredentialStore | None, TransportOptions | None]:
    """How registries are reached: what the folder of credentials holds. Raises InvalidInput."""
    if settings.credentials is None:
        return None, None
    folder = Path(settings.credentials)
    logins = next((folder / name for name in LOGINS if (folder / name).is_file()), None)
    authorities = folder / AUTHORITIES
    return (
        None if logins is None else CredentialStore.from_docker(logins),
        TransportOptions(ca_file=authorities) if authorities.is_file() else None,
    )


class NodeCache:
    """Versions by their digest, each fetched once on a machine, whoever asks first; a kill leaves what it had."""

    def __init__(self, root: Path, most_bytes: int | None = None) -> None:
        self._root, self._most = root, most_bytes

    async def provide(self, store: ModelStore, record: ModelRecord, target: Path, progress: Progress = silent) -> None:
        """The files of a version below `target`, from the cache; fetched into it first where it has them not."""
        key = record.digest.removeprefix("sha256:")
        folder = self._root / key
        with disk_errors(self._root):
            await asyncio.to_thread(folder.parent.mkdir, parents=True, exist_ok=True)
            lock = await asyncio.to_thread(_lock, self._root / f"{key}.lock")
        try:
            # Also what is there is compared: a disk that rots must not serve another model.
            await store.fetch(record, folder, progress)
            await asyncio.to_thread(_place, record, folder, target)
            await asyncio.to_thread(self._tidy, key)
        finally:
            os.close(lock)

    def _tidy(self, used: str) -> None:
        """Removes the longest unused versions above the limit, never one that is being fetched or linked."""
        (self._root / f"{used}.used").touch()
        if self._most is None:
            return
        marks = sorted(self._root.glob("*.used"), key=lambda mark: mark.stat().st_mtime)
        sizes = {mark: _size(self._root / mark.stem) for mark in marks}
        total = sum(sizes.values())
        for mark in marks:
            if total <= self._most or mark.stem == used:
                continue
            with _if_free(self._root / f"{mark.stem}.lock") as free:
                if free:
                    _remove(self._root / mark.stem)
                    mark.unlink(missing_ok=True)
                    total -= sizes[mark]


def _place(record: ModelRecord, folder: Path, target: Path) -> None:
    for name, digest in record.files.items():
        place = target / name
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(folder / name, place)
            except FileExistsError:
                if file_digest(place) != digest:
                    place.unlink()
                    copy_checked(folder / name, place, digest)
            except OSError:
                copy_checked(folder / name, place, digest)


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


@contextmanager
def _if_free(path: Path) -> Iterator[bool]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path) -> None:
    """Out of sight at once: what is killed in the middle leaves no half version under its name."""
    with suppress(FileNotFoundError):
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=folder.parent))
        folder.replace(gone / "files")
        shutil.rmtree(gone, ignore_errors=True)


class _Lines:
    """Progress as lines of a pod's log, not too many."""

    def __init__(self) -> None:
        self._last = 0.0
        self._begun = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        share = done / total if total else 1.0
        if share < self._last or share >= self._last + TOLD_EVERY or share == 1.0 != self._last:
            self._last = share
            seconds = time.monotonic() - self._begun
            print(f"{size_text(done)} of {size_text(total or done)} after {seconds:.1f} s", flush=True)


def read_settings(arguments: list[str]) -> DeliverySettings:
    """The settings of a command line. Raises InvalidInput."""
    first, *rest = arguments
    where, text = ("SETTINGS", first) if first.lstrip().startswith("{") else (first, _content(first))
    try:
        settings = DeliverySettings.model_validate_json(text)
        where = "MODEL"
        models = [DeliveredModel.model_validate_json(model) for model in rest]
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)]
        raise InvalidInput(f"{where}: {'; '.join(lines)}") from None
    return settings.model_copy(update={"models": (*settings.models, *models)})


def _content(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}") from None


def main(arguments: list[str]) -> int:
    """Delivers what the arguments say; the exit code tells whether all is there."""
    if not arguments:
        print("usage: python -m aks_inference_runtime.models.delivery SETTINGS [MODEL ...]", file=sys.stderr)
        return 2
    try:
        settings = read_settings(arguments)
        take_access(settings.credentials)
        print(f"AZUREML_MODEL_DIR={asyncio.run(deliver(settings, _Lines()))}", flush=True)
    except AccessDenied as error:
        mend = "in a pod: the Secret that the service names as model_secret_name has it, or the pod's identity"
        print(f"error: {error}; {mend}", file=sys.stderr)
        return 1
    except AksInferenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
