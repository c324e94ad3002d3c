"""A disk that fills up in the middle: at the store, at the server behind it, at a node. Nothing half is ever seen."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disks import SmallDisks

from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.errors import AksInferenceError, OperationFailed
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.delivery import DeliveredModel, DeliverySettings, deliver
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.folder import FolderStore
from aks_inference_runtime.models.stores.store import StoredFile

MB = 1024 * 1024
LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile
files = model_files(Path(sys.argv[2]))
digests = file_digests(files)
stored = {name: StoredFile(path, digests[name], path.stat().st_size) for name, path in files.items()}
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    asyncio.run(open_store(sys.argv[1]).put(Upload("net", stored, ModelFacts())))
except OperationFailed as error:
    print(error)
"""


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """A file system of so many MB."""
    disks, made = SmallDisks(), list[Path]()

    def make(megabytes: int) -> Path:
        # Not below pytest's own folders: another run tidies them, and cannot remove a mount.
        place = Path(tempfile.mkdtemp(prefix="small-disk-"))
        made.append(place)
        disks.mount(place, megabytes * 1024)
        return place

    try:
        yield make
    finally:
        disks.unmount()
        for place in made:
            place.rmdir()


def model(folder: Path, megabytes: int, parts: int = 3) -> Path:
    source = folder / "net"
    source.mkdir()
    for number in range(parts):
        (source / f"part-{number}").write_bytes(os.urandom(megabytes * MB // parts))
    return source


def upload(source: Path) -> Upload:
    files = model_files(source)
    digests = file_digests(files)
    stored = {name: StoredFile(path, digests[name], path.stat().st_size) for name, path in files.items()}
    return Upload("net", stored, ModelFacts())


async def test_a_folder(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    disk = small_disk(8)
    store, source = FolderStore(disk / "store"), model(tmp_path, 6)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(4 * MB))
    with pytest.raises(OperationFailed, match="the disk is full: make room and apply again"):
        await store.put(upload(source))
    assert await store.versions("net") == [], "nothing half is seen"
    ballast.unlink()
    record = await store.put(upload(source))
    assert record.version == 1, "the number was not given to what failed"
    await store.fetch(record, tmp_path / "out")
    assert file_digests(model_files(tmp_path / "out" / "net")) == file_digests(model_files(source))


def test_a_limit_of_the_process(tmp_path: Path) -> None:
    """As a quota answers: EFBIG."""
    source, store = model(tmp_path, 6), tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(store), str(source)], capture_output=True, text=True, check=False
    )
    assert "the disk is full: make room and apply again" in done.stdout, done.stderr
    assert not list(store.rglob("record.json"))
    assert not list(store.rglob("*.part")), "what was begun is not left on a full disk"


@pytest.mark.long
async def test_a_server_of_blob_storage(
    small_disk: Callable[[int], Path], tmp_path: Path, start_own_azurite: Callable[[Path], Any], own_cache: Path
) -> None:
    disk = small_disk(16)
    ballast = disk / "ballast"
    azurite = start_own_azurite(disk)
    azurite.container("full")
    ballast.write_bytes(bytes(10 * MB))
    store, source = open_store(f"az://{azurite.account}/full/{uuid.uuid4().hex[:8]}"), model(tmp_path, 9)
    with pytest.raises(AksInferenceError) as caught:
        async with asyncio.timeout(120):
            await store.put(upload(source))
    assert "Traceback" not in str(caught.value)
    assert "az://" in str(caught.value)
    assert await store.versions("net") == []
    ballast.unlink()
    record = await store.put(upload(source))
    assert record.version == 1
    await store.fetch(record, tmp_path / "out")
    assert file_digests(model_files(tmp_path / "out" / "net")) == file_digests(model_files(source))


async def test_a_node(small_disk: Callable[[int], Path], tmp_path: Path, own_cache: Path) -> None:
    """The cache and the pod's own volume: what is delivered is whole, or the container ends with the reason."""
    source, address = model(tmp_path, 6), str(tmp_path / "store")
    record = await FolderStore(Path(address)).put(upload(source))
    wanted = DeliveredModel(name="net", version=1, store=address, digest=record.digest)
    for which in ("cache", "app"):
        disk = small_disk(8)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(4 * MB))
        places = {"cache": tmp_path / f"cache-{which}", "app": tmp_path / f"app-{which}", which: disk / which}
        settings = DeliverySettings(models=(wanted,), app_root=str(places["app"]), cache=str(places["cache"]))
        with pytest.raises(OperationFailed, match="the disk is full"):
            await deliver(settings)
        ballast.unlink()
        delivered = await deliver(settings)
        assert file_digests(model_files(delivered / "net")) == file_digests(model_files(source))
        shutil.rmtree(disk / which)
