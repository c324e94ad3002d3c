"""A folder as a store: `<root>/<name>/<version>/record.json` and `files/…` beside it.

The same content under one name is one file with several links. Files are read-only; root may write to them all the
same, and so may who changes their mode: each is compared with its digest before it is handed out, and one that was
changed is fetched again from where it came from, or refused.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.content import file_digest, file_digests
from aks_inference_runtime.api.errors import InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.copying import copy_checked, disk_errors
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, silent
from aks_inference_runtime.models.stores.store import ModelStore, Upload, amended, refuse_used, same_version

RECORD_VERSION = 1
READ_ONLY = 0o444
_log = logging.getLogger(__name__)


class FolderStore:
    """Calls may come from several processes of the machine: changes hold a lock on the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def address(self) -> str:
        """The absolute path."""
        return str(self._root)

    async def names(self) -> list[str]:
        """See ModelStore."""
        return await asyncio.to_thread(self.all_names)

    async def versions(self, name: str) -> list[ModelRecord]:
        """See ModelStore."""
        return await asyncio.to_thread(self.all_versions, name)

    async def present(self, name: str, digests: Collection[str]) -> set[str]:
        """See ModelStore."""
        return set(await asyncio.to_thread(self._contents, name)) & set(digests)

    async def put(self, upload: Upload, progress: Progress = silent) -> ModelRecord:
        """See ModelStore."""
        return await asyncio.to_thread(self.store, upload, progress)

    async def fetch(self, record: ModelRecord, target: Path, progress: Progress = silent) -> None:
        """See ModelStore. Hard links where the file system has them."""
        await asyncio.to_thread(self.link, record, target, progress)

    async def adopt(self, record: ModelRecord, source: ModelStore, progress: Progress = silent) -> None:
        """A version of another store under its own number; what is here and whole is not fetched again.

        The caller sees to it that nobody does the same at once. Raises the errors of `fetch` of the other store.
        """
        files = self._folder(record.name, record.version) / "files"
        if not await asyncio.to_thread(self._has, record, files):
            await source.fetch(record, files, progress)
            for name in record.files:
                _seal(files / name)
        await asyncio.to_thread(self._write, record)

    async def delete(self, name: str, version: int) -> None:
        """See ModelStore."""
        users = await self.users(name, version)
        await asyncio.to_thread(self.remove, name, version, users)

    async def users(self, name: str, version: int) -> list[str]:
        """See ModelStore."""
        return await asyncio.to_thread(self._users, name, version)

    async def use(self, name: str, version: int, by: str) -> None:
        """See ModelStore."""
        await asyncio.to_thread(self.get, name, version)
        await asyncio.to_thread(self._mark, name, version, by)

    async def release(self, name: str, version: int, by: str) -> None:
        """See ModelStore."""
        await asyncio.to_thread(self._user_file(name, version, by).unlink, missing_ok=True)

    # --- the same, blocking

    def all_names(self) -> list[str]:
        """Of all models, sorted."""
        if not self._root.is_dir():
            return []
        return sorted(path.name for path in self._root.iterdir() if path.is_dir() and self.all_versions(path.name))

    def all_versions(self, name: str) -> list[ModelRecord]:
        """Of a model, the oldest first."""
        found = (self._read(name, number) for number in self._numbers(name))
        return [record for record in found if record is not None]

    def get(self, name: str, version: int) -> ModelRecord:
        """Raises NotFound."""
        record = self._read(name, version)
        if record is None:
            present = ", ".join(str(r.version) for r in self.all_versions(name)) or "none"
            raise NotFound(f"no model {name}:{version} is stored (versions of {name}: {present})")
        return record

    def store(self, upload: Upload, progress: Progress = silent) -> ModelRecord:
        """See ModelStore.put."""
        with self._locked():
            found = same_version(self.all_versions(upload.name), upload)
            if found is not None:
                self._fill(upload, self._folder(upload.name, found.version), progress)
                newer = amended(found, upload.facts)
                if newer != found:
                    self._write(newer)
                return newer
            version = max(self._numbers(upload.name), default=0) + 1
            record = upload.record(version, datetime.now(UTC).isoformat(timespec="seconds"))
            self._fill(upload, self._folder(upload.name, version), progress)
            self._write(record)
            return record

    def remove(self, name: str, version: int, users: Collection[str] = ()) -> None:
        """See ModelStore.delete. The record stays as a mark that the number was given."""
        with self._locked():
            self.get(name, version)
            refuse_used(name, version, sorted(users))
            folder = self._folder(name, version)
            _replace(folder / "record.json", json.dumps({"recordVersion": RECORD_VERSION, "deleted": True}))
            shutil.rmtree(folder / "files", ignore_errors=True)

    def link(self, record: ModelRecord, target: Path, progress: Progress = silent) -> None:
        """The files of a version below a folder, without a copy where that is possible. Raises ContentMismatch."""
        source, done = self._folder(record.name, record.version) / "files", 0
        self._verify(record, source)
        for name, digest in record.files.items():
            place = target / name
            with disk_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source / name, place)
                except FileExistsError:
                    if file_digest(place) != digest:
                        raise ContentMismatch(f"{place}: is there with another content; remove it") from None
                except OSError:
                    # Another file system, or one without links.
                    _copy(source / name, place, digest)
            done += record.file_sizes.get(name, 0)
            progress(done, record.size_bytes)

    # --- inside

    def _folder(self, name: str, version: int) -> Path:
        return self._root / name / str(version)

    def _numbers(self, name: str) -> list[int]:
        """All that were ever given."""
        folder = self._root / name
        if not folder.is_dir():
            return []
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        return sorted(number for number in numbers if (folder / str(number) / "record.json").is_file())

    def _read(self, name: str, version: int) -> ModelRecord | None:
        path = self._folder(name, version) / "record.json"
        try:
            raw = json.loads(path.read_text("utf-8"))
            if not raw.get("deleted"):
                if int(raw.pop("recordVersion", RECORD_VERSION)) > RECORD_VERSION:
                    raise InvalidInput(f"{path} was written by a newer version; use that version")
                return ModelRecord.model_validate(raw)
        except FileNotFoundError:
            return None
        except (ValueError, ValidationError, AttributeError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise InvalidInput(
                f"{path} is damaged ({first}); nothing was changed: put it back from a backup, or remove the folder "
                f"of this version"
            ) from None
        return None

    def _write(self, record: ModelRecord) -> None:
        path = self._folder(record.name, record.version) / "record.json"
        content = {"recordVersion": RECORD_VERSION, **record.to_wire()}
        with disk_errors(path):
            _replace(path, json.dumps(content, indent=1) + "\n")

    def _contents(self, name: str) -> dict[str, Path]:
        """What is stored under a name, by digest."""
        return {
            digest: self._folder(name, record.version) / "files" / file
            for record in self.all_versions(name)
            for file, digest in record.files.items()
        }

    def _fill(self, upload: Upload, folder: Path, progress: Progress) -> None:
        """Files that are there and whole stay, also those of an upload that was cut off; all others are made anew."""
        files, known, done = folder / "files", self._contents(upload.name), 0
        total = sum(file.size for file in upload.files.values())
        wanted = {(files / name).resolve() for name in upload.files}
        if files.is_dir():
            for path in [path for path in files.rglob("*") if path.is_file() and path.resolve() not in wanted]:
                path.unlink()
        for name, file in upload.files.items():
            place = files / name
            with disk_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                if not _whole(place, file.digest, file.size):
                    place.unlink(missing_ok=True)
                    have = known.get(file.digest)
                    if have is None or not _whole(have, file.digest, file.size) or not _linked(have, place):
                        _copy(file.path, place, file.digest, _within(progress, done, total))
                known[file.digest] = place
            done += file.size
            progress(done, total)
        origins = {name: str(file.path.absolute()) for name, file in upload.files.items()}
        with disk_errors(folder):
            _replace(folder / "origins.json", json.dumps(origins))

    def _verify(self, record: ModelRecord, files: Path) -> None:
        """Compares what is stored with its digests, and mends from where it came from. Raises ContentMismatch."""
        with disk_errors(files):
            found = file_digests({name: files / name for name in record.files if (files / name).is_file()})
        damaged = [name for name, digest in record.files.items() if found.get(name) != digest]
        if damaged:
            with self._locked():
                lost = [name for name in damaged if not self._mended(files, name, record.files[name])]
            if lost:
                raise ContentMismatch("\n".join(_told(record, files, name, found.get(name)) for name in lost))
        for name in found:
            _seal(files / name)

    def _mended(self, files: Path, name: str, digest: str) -> bool:
        """Puts a file back from where it came from, if it is there and is still the same."""
        try:
            origin = Path(json.loads((files.with_name("origins.json")).read_text("utf-8"))[name])
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(origin, files / name, digest)
        except (OSError, ValueError, KeyError, TypeError, ContentMismatch) as error:
            _log.warning("%s cannot be put back from where it came from: %s", files / name, error)
            return False
        _log.warning("%s was changed in the store; it was put back from %s", files / name, origin)
        return True

    def _has(self, record: ModelRecord, files: Path) -> bool:
        """Whether all is there; what is not as it should be is taken away."""
        damaged = []
        for name, digest in record.files.items():
            if not _whole(files / name, digest, record.file_sizes[name]):
                damaged.append(name)
                (files / name).unlink(missing_ok=True)
        return not damaged

    def _user_file(self, name: str, version: int, by: str) -> Path:
        return self._folder(name, version) / "users" / f"{hashlib.sha256(by.encode()).hexdigest()[:32]}.json"

    def _users(self, name: str, version: int) -> list[str]:
        folder = self._folder(name, version) / "users"
        return sorted(str(json.loads(path.read_text())["by"]) for path in folder.glob("*.json"))

    def _mark(self, name: str, version: int, by: str) -> None:
        path = self._user_file(name, version, by)
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
            _replace(path, json.dumps({"by": by}))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with disk_errors(self._root):
            self._root.mkdir(parents=True, mode=0o700, exist_ok=True)
            handle = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _whole(path: Path, digest: str, size: int) -> bool:
    """Whether a stored file is what it should be; it is read-only then."""
    if not (path.is_file() and path.stat().st_size == size and file_digest(path) == digest):
        return False
    _seal(path)
    return True


def _seal(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) != READ_ONLY:
        # Of somebody else's file the mode is theirs.
        with contextlib.suppress(PermissionError):
            path.chmod(READ_ONLY)


def _linked(source: Path, place: Path) -> bool:
    """False where the file system has no links, or no more of them."""
    try:
        os.link(source, place)
    except OSError:
        return False
    return True


def _copy(source: Path, place: Path, digest: str, progress: Progress = silent) -> None:
    copy_checked(source, place, digest, progress)
    place.chmod(READ_ONLY)


def _told(record: ModelRecord, files: Path, name: str, found: str | None) -> str:
    state = "is missing from the store" if found is None else f"was changed in the store (it is {found} now)"
    return (
        f"model {record.name}:{record.version}: {files / name} {state}, expected {record.files[name]}, and where it "
        f"came from there is no such file any more; put a file of this content there, or register the model anew"
    )


def _within(progress: Progress, done: int, total: int) -> Progress:
    """Progress of one file as that of all."""
    return lambda bytes_of_file, _: progress(done + bytes_of_file, total)


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise OperationFailed(f"{path} cannot be written: {error.strerror or error}") from None
