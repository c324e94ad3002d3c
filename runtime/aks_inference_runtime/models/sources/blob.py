"""A blob, or all blobs below a path, of Azure Blob Storage."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.models.azure import PARALLEL, azure_errors, container_client
from aks_inference_runtime.models.progress import Progress, silent
from aks_inference_runtime.models.ranges import PartialFile
from aks_inference_runtime.models.sources.address import Address

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


@dataclass(frozen=True)
class RemoteBlob:
    """One blob of a source."""

    blob: str
    name: str
    """Relative to the source; empty for a single blob."""
    size: int
    etag: str


def list_blobs(address: Address) -> tuple[RemoteBlob, ...]:
    """The blobs that a source names, by name. Blocks. Raises StoreUnavailable, InvalidInput."""
    container, _, path = address.path.partition("/")
    found = []
    with azure_errors(address.text):
        for one in container_client(address.place, container).list_blobs(name_starts_with=path):
            if one.name == path:
                found.append(RemoteBlob(one.name, "", one.size, one.etag))
            # Storage with folders lists them as blobs of no bytes.
            elif one.name.startswith(f"{path}/") and not (one.metadata or {}).get("hdi_isfolder"):
                found.append(RemoteBlob(one.name, one.name[len(path) + 1 :], one.size, one.etag))
    single = [blob for blob in found if not blob.name]
    if not found:
        raise InvalidInput(f"{address.text}: holds no blob; look at its name (upper and lower case count)")
    if single and len(found) > 1:
        return tuple(single)
    for blob in found:
        if blob.name and (".." in PurePosixPath(blob.name).parts or blob.name.startswith("/") or "//" in blob.name):
            raise InvalidInput(f"{address.text}: {blob.blob!r} is no name for a file; rename the blob")
    return tuple(sorted(found, key=lambda blob: blob.name))


def blob_revision(blobs: Sequence[RemoteBlob]) -> str:
    """Equal for equal contents."""
    text = "".join(f"{one.name}\0{one.size} {one.etag}\n" for one in blobs)
    return f"blobs {hashlib.sha256(text.encode()).hexdigest()}"


def download_blobs(address: Address, blobs: Sequence[RemoteBlob], target: Path, progress: Progress = silent) -> None:
    """The blobs under a folder (or the single one at `target`), in parallel; an earlier try is continued. Blocks.

    Raises StoreUnavailable; also where a blob has changed since it was listed.
    """
    client = container_client(address.place, address.path.partition("/")[0])
    total, lock, done = sum(one.size for one in blobs), threading.Lock(), 0

    def tell(length: int) -> None:
        nonlocal done
        with lock:
            done += length
            progress(done, total)

    with ThreadPoolExecutor(PARALLEL) as pool:
        for one in blobs:
            _download(client, address, one, target / one.name if one.name else target, pool, tell)


def _download(
    client: "ContainerClient",
    address: Address,
    one: RemoteBlob,
    path: Path,
    pool: ThreadPoolExecutor,
    tell: Callable[[int], None],
) -> None:
    from azure.core import MatchConditions

    if path.is_file() and path.stat().st_size == one.size:
        tell(one.size)
        return
    with PartialFile(path, one.size, one.etag) as file, azure_errors(address.text):
        tell(file.present_bytes)

        def get(span: tuple[int, int]) -> None:
            stream = client.download_blob(
                one.blob, offset=span[0], length=span[1], etag=one.etag, match_condition=MatchConditions.IfNotModified
            )
            file.put(span[0], stream.readall())
            tell(span[1])

        list(pool.map(get, file.missing()))
        file.finish(lambda _path: None)
