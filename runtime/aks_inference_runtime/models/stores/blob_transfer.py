"""Contents to and from Blob Storage: in parallel, block by block, continued after a kill, compared with their digests.

The name of a block is its place and the digest of its bytes. What a killed upload had staged stays at the service for
a week, uncommitted; the next one lists it and sends only the rest.
"""

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aks_inference_runtime.api.content import file_digest
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.azure import error_code
from aks_inference_runtime.models.copying import disk_errors
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress
from aks_inference_runtime.models.ranges import PartialFile
from aks_inference_runtime.models.stores.store import StoredFile

if TYPE_CHECKING:
    from azure.storage.blob import BlobBlock, BlobClient, ContainerClient

BLOCK_BYTES = 8 * 1024 * 1024
COMMITS = 3
MAX_BLOCKS = 50_000
"""Of one blob (Azure Storage, "Scalability targets for Blob storage")."""


class _Counter:
    """Bytes done, told from any thread."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress, self._done = total, progress, 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._progress(self._done, self._total)


def send_content(
    client: "ContainerClient",
    name_of: Callable[[str], str],
    files: Iterable[StoredFile],
    parallel: int,
    progress: Progress,
) -> None:
    """Sends what is not there yet. Blocks.

    Args:
        client: Required. Of the container.
        name_of: Required. The blob of a digest.
        files: Required. What has to be there afterwards.
        parallel: Required. Requests at a time.
        progress: Required. Told of bytes that are there, also of those that were.

    Raises:
        ContentMismatch: a file is no longer what its digest says; nothing of it is kept.
        AzureError: the SDK's.
    """
    wanted = {file.digest: file for file in files}
    counter = _Counter(sum(file.size for file in wanted.values()), progress)
    with ThreadPoolExecutor(parallel) as pool:
        there = dict(zip(wanted, pool.map(lambda digest: _touch(client, name_of(digest), digest), wanted), strict=True))
        missing = []
        for digest, file in wanted.items():
            if there[digest]:
                counter.add(file.size)
            else:
                missing.append(file)
        small = [
            pool.submit(_send_whole, client.get_blob_client(name_of(file.digest)), file, counter)
            for file in missing
            if file.size <= BLOCK_BYTES
        ]
        room = threading.Semaphore(parallel * 2)
        try:
            for file in missing:
                if file.size > BLOCK_BYTES:
                    _Sending(client.get_blob_client(name_of(file.digest)), file, pool, room, counter).run()
            for one in small:
                one.result()
        finally:
            for one in small:
                one.cancel()


def _touch(client: "ContainerClient", blob: str, digest: str) -> bool:
    """Whether a content is there; then its time is now, so that a sweep sees that it is wanted again."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        client.get_blob_client(blob).set_blob_metadata({"sha256": digest.removeprefix("sha256:")})
    except ResourceNotFoundError:
        return False
    return True


def _send_whole(blob: "BlobClient", file: StoredFile, counter: _Counter) -> None:
    """A content that fits in one request."""
    from azure.core.exceptions import ResourceExistsError

    with disk_errors(file.path):
        content = file.path.read_bytes()
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != file.digest:
        raise _changed(file)
    # Another writer may have sent the same content meanwhile.
    with suppress(ResourceExistsError):
        blob.upload_blob(content, metadata={"sha256": file.digest.removeprefix("sha256:")}, validate_content=True)
    counter.add(file.size)


def _changed(file: StoredFile) -> ContentMismatch:
    return ContentMismatch(f"{file.path}: has changed since it was looked at; apply again when it rests")


class _Sending:
    """One content on its way."""

    def __init__(
        self,
        blob: "BlobClient",
        file: StoredFile,
        pool: ThreadPoolExecutor,
        room: threading.Semaphore,
        counter: _Counter,
    ) -> None:
        self._blob, self._file, self._pool, self._room, self._counter = blob, file, pool, room, counter
        self._size = max(BLOCK_BYTES, -(-file.size // MAX_BLOCKS))

    def run(self) -> None:
        """Block by block."""
        from azure.storage.blob import BlobBlock

        for left in reversed(range(COMMITS)):
            identifiers = self._send()
            if self._commit([BlobBlock(block_id=identifier) for identifier in identifiers], last=not left):
                return

    def _send(self) -> list[str]:
        """Stages what is not staged; gives the names of all blocks."""
        staged = self._staged()
        pending: list[Future[None]] = []
        identifiers = []
        digest = hashlib.sha256()
        try:
            for index, block in enumerate(self._blocks()):
                digest.update(block)
                identifier = f"{index:08d}-{hashlib.sha256(block).hexdigest()[:32]}"
                identifiers.append(identifier)
                if staged.get(identifier) == len(block):
                    self._counter.add(len(block))
                    continue
                self._room.acquire()
                pending.append(self._pool.submit(self._stage, identifier, block))
                for one in [one for one in pending if one.done()]:
                    pending.remove(one)
                    one.result()
            if f"sha256:{digest.hexdigest()}" != self._file.digest:
                raise _changed(self._file)
            for one in pending:
                one.result()
        finally:
            for one in pending:
                if one.cancel():
                    self._room.release()
        return identifiers

    def _commit(self, blocks: "list[BlobBlock]", *, last: bool) -> bool:
        """False where the service has forgotten blocks that it had taken: they are sent again."""
        from azure.core.exceptions import HttpResponseError, ResourceExistsError

        try:
            self._blob.commit_block_list(
                blocks,
                metadata={"sha256": self._file.digest.removeprefix("sha256:")},
                if_none_match="*",
            )
        except ResourceExistsError:
            # Another writer sent the same content meanwhile.
            return True
        except HttpResponseError as error:
            if last or error_code(error) != "InvalidBlockList":
                raise
            return False
        return True

    def _stage(self, identifier: str, block: bytes) -> None:
        try:
            self._blob.stage_block(identifier, block, length=len(block), validate_content=True)
            self._counter.add(len(block))
        finally:
            self._room.release()

    def _staged(self) -> dict[str, int]:
        """What an earlier try left, by identifier."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            _, uncommitted = self._blob.get_block_list("uncommitted")
        except ResourceNotFoundError:
            return {}
        return {_decoded(block.id): int(block.size or 0) for block in uncommitted}

    def _blocks(self) -> Iterator[bytes]:
        with disk_errors(self._file.path), self._file.path.open("rb", buffering=0) as file:
            while block := file.read(self._size):
                # A read may give less than it was asked for.
                while len(block) < self._size and (more := file.read(self._size - len(block))):
                    block += more
                yield block


def _decoded(identifier: str) -> str:
    """The SDK gives what it was given, older services the encoded form."""
    if "-" in identifier:
        return identifier
    return base64.b64decode(identifier).decode(errors="replace")


def fetch_content(
    client: "ContainerClient",
    name_of: Callable[[str], str],
    record: ModelRecord,
    target: Path,
    parallel: int,
    progress: Progress,
) -> None:
    """The files of a version below a folder, in parallel; what a killed one had is kept. Blocks.

    Raises ContentMismatch, AzureError.
    """
    counter = _Counter(record.size_bytes, progress)
    have: dict[str, Path] = {}
    with ThreadPoolExecutor(parallel) as pool:
        for name, digest in record.files.items():
            place, size = target / name, record.file_sizes[name]
            with disk_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.is_file() and place.stat().st_size == size and file_digest(place) == digest:
                    counter.add(size)
                elif digest in have:
                    place.unlink(missing_ok=True)
                    os.link(have[digest], place)
                    counter.add(size)
                else:
                    _fetch(client.get_blob_client(name_of(digest)), place, size, digest, pool, counter)
            have[digest] = place


def _fetch(
    blob: "BlobClient", place: Path, size: int, digest: str, pool: ThreadPoolExecutor, counter: _Counter
) -> None:
    def check(path: Path) -> None:
        if (found := file_digest(path)) != digest:
            raise ContentMismatch(f"{blob.blob_name}: holds {found}; remove the blob and register the model again")

    with PartialFile(place, size, digest) as file:
        counter.add(file.present_bytes)

        def get(span: tuple[int, int]) -> None:
            file.put(span[0], blob.download_blob(offset=span[0], length=span[1]).readall())
            counter.add(span[1])

        list(pool.map(get, file.missing()))
        file.finish(check)
