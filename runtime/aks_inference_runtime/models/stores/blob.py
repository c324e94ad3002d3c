"""Azure Blob Storage as a store.

`<prefix>/content/<sha256>` holds each content once, `<prefix>/models/<name>/<version>/record.json` what a version is.
A record is written when all its content is there, and only if its number is free: two writers never get the same.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aks_inference_runtime.api.errors import InvalidInput, NotFound
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.azure import PARALLEL, azure_errors, container_client
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, silent
from aks_inference_runtime.models.stores.blob_transfer import fetch_content, send_content
from aks_inference_runtime.models.stores.store import Upload, amended, refuse_used, same_version

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

RECORD_VERSION = 1
GRACE_S = 3600.0
"""Content that no version names stays that long: an upload may be about to name it."""
_RECORD = re.compile(r"models/(?P<name>[^/]+)/(?P<version>\d+)/record\.json")


class BlobStore:
    """Safe for several processes and machines at once."""

    def __init__(
        self,
        account: str,
        container: str,
        prefix: str = "",
        *,
        parallel: int = PARALLEL,
        grace_s: float = GRACE_S,
        client: "Callable[[], ContainerClient] | None" = None,
    ) -> None:
        self._address = f"az://{account}/{container}" + (f"/{prefix}" if prefix else "")
        self._prefix = f"{prefix}/" if prefix else ""
        self._parallel, self._grace_s = parallel, grace_s
        self._make = client or (lambda: container_client(account, container))
        self._made: ContainerClient | None = None

    @property
    def address(self) -> str:
        """`az://account/container/prefix`."""
        return self._address

    async def names(self) -> list[str]:
        """See ModelStore."""
        return await asyncio.to_thread(self._names)

    async def versions(self, name: str) -> list[ModelRecord]:
        """See ModelStore."""
        return await asyncio.to_thread(self._versions, name)

    async def present(self, name: str, digests: Collection[str]) -> set[str]:
        """See ModelStore. What one model sent serves all."""
        return await asyncio.to_thread(self._present, digests)

    async def put(self, upload: Upload, progress: Progress = silent) -> ModelRecord:
        """See ModelStore."""
        return await asyncio.to_thread(self._put, upload, progress)

    async def fetch(self, record: ModelRecord, target: Path, progress: Progress = silent) -> None:
        """See ModelStore."""
        with azure_errors(self.address):
            await asyncio.to_thread(
                fetch_content, self._client, self._content, record, target, self._parallel, progress
            )

    async def delete(self, name: str, version: int) -> None:
        """See ModelStore."""
        await asyncio.to_thread(self._delete, name, version)

    async def users(self, name: str, version: int) -> list[str]:
        """See ModelStore."""
        return await asyncio.to_thread(self._users, name, version)

    async def use(self, name: str, version: int, by: str) -> None:
        """See ModelStore."""
        await asyncio.to_thread(self._use, name, version, by)

    async def release(self, name: str, version: int, by: str) -> None:
        """See ModelStore."""
        await asyncio.to_thread(self._remove, self._user(name, version, by))

    # --- blocking

    @property
    def _client(self) -> "ContainerClient":
        if self._made is None:
            self._made = self._make()
        return self._made

    def _content(self, digest: str) -> str:
        return f"{self._prefix}content/{digest.removeprefix('sha256:')}"

    def _record(self, name: str, version: int) -> str:
        return f"{self._prefix}models/{name}/{version}/record.json"

    def _user(self, name: str, version: int, by: str) -> str:
        mark = hashlib.sha256(by.encode()).hexdigest()[:32]
        return f"{self._prefix}models/{name}/{version}/users/{mark}.json"

    def _records(self, name: str | None = None) -> list[tuple[str, int]]:
        """Names and numbers of all versions, also of those that were removed."""
        begin = f"{self._prefix}models/" + (f"{name}/" if name else "")
        with azure_errors(self.address):
            found = (
                _RECORD.fullmatch(blob.removeprefix(self._prefix))
                for blob in self._client.list_blob_names(name_starts_with=begin)
            )
            return sorted((match["name"], int(match["version"])) for match in found if match)

    def _names(self) -> list[str]:
        names = sorted({name for name, _ in self._records()})
        return [name for name in names if self._versions(name)]

    def _versions(self, name: str) -> list[ModelRecord]:
        numbers = [number for _, number in self._records(name)]
        with ThreadPoolExecutor(self._parallel) as pool:
            found = list(pool.map(lambda number: self._read(name, number), numbers))
        return [record for record in found if record is not None]

    def _read(self, name: str, version: int) -> ModelRecord | None:
        blob = self._record(name, version)
        raw = self._json(blob)
        if raw is None or raw.get("deleted"):
            return None
        if int(raw.pop("recordVersion", RECORD_VERSION)) > RECORD_VERSION:
            raise InvalidInput(f"{self.address}: {blob} was written by a newer version; use that version")
        try:
            return ModelRecord.model_validate(raw)
        except ValidationError as error:
            raise InvalidInput(f"{self.address}: {blob} is damaged ({error.errors()[0]['msg']})") from None

    def _json(self, blob: str) -> dict[str, Any] | None:
        from azure.core.exceptions import ResourceNotFoundError

        with azure_errors(self.address):
            try:
                text = self._client.download_blob(blob).readall()
            except ResourceNotFoundError:
                return None
        try:
            raw = json.loads(text)
        except ValueError:
            raw = None
        if not isinstance(raw, dict):
            raise InvalidInput(f"{self.address}: {blob} is damaged: no JSON object")
        return raw

    def _write(self, blob: str, content: dict[str, Any], *, new: bool) -> bool:
        """False where it is there already and should be new."""
        from azure.core.exceptions import ResourceExistsError

        text = json.dumps(content, indent=1).encode()
        with azure_errors(self.address):
            try:
                self._client.upload_blob(blob, text, overwrite=not new)
            except ResourceExistsError:
                return False
        return True

    def _remove(self, blob: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with azure_errors(self.address):
            try:
                self._client.delete_blob(blob)
            except ResourceNotFoundError:
                return

    def _present(self, digests: Collection[str]) -> set[str]:
        from azure.core.exceptions import ResourceNotFoundError

        def there(digest: str) -> bool:
            with azure_errors(self.address):
                try:
                    self._client.get_blob_client(self._content(digest)).get_blob_properties()
                except ResourceNotFoundError as error:
                    if getattr(error, "error_code", None) == "ContainerNotFound":
                        raise
                    return False
            return True

        wanted = sorted(set(digests))
        with ThreadPoolExecutor(self._parallel) as pool:
            return {digest for digest, found in zip(wanted, pool.map(there, wanted), strict=True) if found}

    def _put(self, upload: Upload, progress: Progress) -> ModelRecord:
        found = same_version(self._versions(upload.name), upload)
        if found is None:
            begin = time.monotonic()
            with azure_errors(self.address):
                send_content(self._client, self._content, upload.files.values(), self._parallel, progress)
            found = self._claim(upload, begin)
        newer = amended(found, upload.facts)
        if newer != found:
            self._write(self._record(newer.name, newer.version), {"recordVersion": 1, **newer.to_wire()}, new=False)
        return newer

    def _claim(self, upload: Upload, begin: float) -> ModelRecord:
        """The record under the next free number, unless another writer has just written the same model.

        All its content was touched since `begin`: within the grace nobody removes it.
        """
        while True:
            numbers = [number for _, number in self._records(upload.name)]
            found = same_version(self._versions(upload.name), upload)
            if found is not None:
                return found
            created = datetime.now(UTC).isoformat(timespec="seconds")
            record = upload.record(max(numbers, default=0) + 1, created)
            content = {"recordVersion": RECORD_VERSION, **record.to_wire()}
            if self._write(self._record(record.name, record.version), content, new=True):
                within_grace = time.monotonic() - begin < self._grace_s / 2
                if not within_grace and set(record.files.values()) - self._present(record.files.values()):
                    self._remove(self._record(record.name, record.version))
                    raise ContentMismatch(f"{self.address}: content was removed while it was named; apply again")
                return record

    def _delete(self, name: str, version: int) -> None:
        record = self._read(name, version)
        if record is None:
            present = ", ".join(str(r.version) for r in self._versions(name)) or "none"
            raise NotFound(f"no model {name}:{version} in {self.address} (versions of {name}: {present})")
        refuse_used(name, version, self._users(name, version))
        self._write(self._record(name, version), {"recordVersion": RECORD_VERSION, "deleted": True}, new=False)
        self._sweep()

    def _sweep(self) -> None:
        """Removes content that no version names any more and that nobody touched lately."""
        from azure.core.exceptions import HttpResponseError

        oldest = datetime.fromtimestamp(time.time() - self._grace_s, UTC) + timedelta(seconds=1)
        with azure_errors(self.address):
            listed = list(self._client.list_blobs(name_starts_with=f"{self._prefix}content/"))
            named = {
                self._content(digest)
                for name, number in self._records()
                if (record := self._read(name, number)) is not None
                for digest in record.files.values()
            }
            for blob in listed:
                if blob.name not in named and blob.last_modified < oldest:
                    try:
                        self._client.delete_blob(blob.name, if_unmodified_since=oldest)
                    except HttpResponseError as error:
                        if error.status_code not in {404, 409, 412}:
                            raise

    def _users(self, name: str, version: int) -> list[str]:
        begin = f"{self._prefix}models/{name}/{version}/users/"
        with azure_errors(self.address):
            blobs = list(self._client.list_blob_names(name_starts_with=begin))
        found = (self._json(blob) for blob in blobs)
        return sorted(str(raw["by"]) for raw in found if raw and "by" in raw)

    def _use(self, name: str, version: int, by: str) -> None:
        if self._read(name, version) is None:
            raise NotFound(f"no model {name}:{version} in {self.address}")
        self._write(self._user(name, version, by), {"by": by}, new=False)
