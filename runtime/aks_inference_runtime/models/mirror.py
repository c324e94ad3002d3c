"""Models of other stores on this machine, for a local cluster: brought before an endpoint that uses them is declared.

`<state directory>/stores/<hash of the store's address>` is a folder store whose versions have the numbers of the other
store. What no endpoint uses any more goes.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from aks_inference_runtime.api.endpoint import ModelReference
from aks_inference_runtime.api.errors import NotFound
from aks_inference_runtime.models.copying import disk_errors
from aks_inference_runtime.models.progress import Progress, silent
from aks_inference_runtime.models.stores import open_store
from aks_inference_runtime.models.stores.folder import FolderStore
from aks_inference_runtime.models.stores.store import find_version

FOLDER = "stores"
"""Of a state directory."""


def mirror(state_directory: Path, address: str) -> FolderStore:
    """What is here of a store."""
    return FolderStore(state_directory / FOLDER / hashlib.sha256(address.encode()).hexdigest()[:16])


async def bring(state_directory: Path, reference: ModelReference, by: str, progress: Progress = silent) -> None:
    """Has the files of a model here, compared with their digests, and keeps them for a user.

    Args:
        state_directory: Required. Of the local cluster.
        reference: Required. With its store.
        by: Required. Who uses it, until `let_go`.
        progress: Optional. Called with the bytes.

    Raises:
        NotFound, StoreUnavailable: the model is not there, or its store does not answer.
        ContentMismatch: bytes are not what their digest says.
        OperationFailed: the disk.
    """
    if reference.store is None:
        return
    here, source = mirror(state_directory, reference.store), open_store(reference.store)
    async with _alone(Path(here.address), reference):
        record = await find_version(source, reference.name, reference.version)
        await here.adopt(record, source, progress)
        await here.use(record.name, record.version, by)


async def let_go(state_directory: Path, used: Collection[ModelReference], by: str) -> None:
    """Ends the use of all models but these, and removes those that nobody uses any more."""
    root = state_directory / FOLDER
    kept = {(mirror(state_directory, each.store).address, each.name, each.version) for each in used if each.store}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        here = FolderStore(folder)
        for name in await here.names():
            for record in await here.versions(name):
                if (here.address, name, record.version) in kept:
                    continue
                async with _alone(folder, ModelReference(name=name, version=record.version)):
                    try:
                        await here.release(name, record.version, by)
                        if not await here.users(name, record.version):
                            await here.delete(name, record.version)
                    except NotFound:
                        continue


@asynccontextmanager
async def _alone(folder: Path, reference: ModelReference) -> AsyncIterator[None]:
    """One at a time for a version: also two that apply at once fetch it once, and none removes what another brings."""
    path = folder / f"{reference.name}.{reference.version}.lock"
    with disk_errors(path):
        await asyncio.to_thread(folder.mkdir, parents=True, mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
