"""A folder as a store: `<root>/<name>/<version>/record.json` and `files/…` beside it.

The same content under one name is one file with several links.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.content import file_digest
from aks_inference_runtime.api.errors import InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.copying import copy_checked, disk_errors
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, silent
from aks_inference_runtime.models.stores.store import Upload, amended, refuse_used, same_version

RECORD_VERSION = 1


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
                newer = amended(found, upload.facts)
                if newer != found:
                    self._write(newer)
                return newer
            version = max(self._numbers(upload.name), default=0) + 1
            record = upload.record(version, datetime.now(UTC).isoformat(timespec="seconds"))
            self._fill(upload, self._folder(upload.name, version) / "files", progress)
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
                    copy_checked(source / name, place, digest)
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

    def _fill(self, upload: Upload, files: Path, progress: Progress) -> None:
        """Files of an upload that was cut off and are whole are taken over: only what is whole has its own name."""
        known, done, total = self._contents(upload.name), 0, sum(file.size for file in upload.files.values())
        wanted = {(files / name).resolve() for name in upload.files}
        if files.is_dir():
            for path in [path for path in files.rglob("*") if path.is_file() and path.resolve() not in wanted]:
                path.unlink()
        for name, file in upload.files.items():
            place = files / name
            with disk_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                if not (place.is_file() and place.stat().st_size == file.size and file_digest(place) == file.digest):
                    place.unlink(missing_ok=True)
                    if file.digest in known:
                        os.link(known[file.digest], place)
                    else:
                        copy_checked(file.path, place, file.digest, _within(progress, done, total))
                known[file.digest] = place
            done += file.size
            progress(done, total)

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
