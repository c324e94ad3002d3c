"""Every store by the same tests, against what really keeps the bytes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.content import file_digest, file_digests, model_files
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.errors import ContentMismatch, StoreUnavailable
from aks_inference_runtime.models.stores import ModelStore, Upload, open_store
from aks_inference_runtime.models.stores.blob import BlobStore
from aks_inference_runtime.models.stores.store import StoredFile, find_version

KINDS = ["folder", "blob", "oci"]
ODD = {"net/a b/ü 漢.bin": b"1" * 3000, "net/line\nbreak": b"2", "net/empty": b"", f"net/{'long' * 40}/x": b"3"}


def upload(source: Path, name: str = "net", **facts: Any) -> Upload:
    files = model_files(source)
    digests = file_digests(files)
    stored = {key: StoredFile(path, digests[key], path.stat().st_size) for key, path in files.items()}
    return Upload(name, stored, ModelFacts(**facts))


@pytest.fixture(params=KINDS)
def address(request: pytest.FixtureRequest, tmp_path: Path, own_cache: Path) -> str:
    """A store of the test's own."""
    mark = uuid.uuid4().hex[:12]
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "blob":
        azurite = request.getfixturevalue("azurite")
        azurite.container("stores")
        return f"az://{azurite.account}/stores/{mark}"
    return f"oci://{request.getfixturevalue('oci_registry').host}/stores-{mark}"


@pytest.fixture
def store(address: str) -> ModelStore:
    return open_store(address)


async def test_versions_by_content(store: ModelStore, tmp_path: Path, write_files: Callable[..., Path]) -> None:
    source = write_files(tmp_path, ODD) / "net"
    assert await store.names() == []
    assert await store.versions("net") == []
    first = await store.put(upload(source, tags={"stage": "test"}, framework="Onnx", run_id="r1"))
    assert (first.version, first.model_id, first.tags, first.framework) == (1, "net:1", {"stage": "test"}, "Onnx")
    assert first.size_bytes == sum(map(len, ODD.values()))
    # The same bytes are the same version; what may change does.
    again = await store.put(upload(source, tags={"stage": "live"}, framework="Onnx", description="new"))
    assert (again.version, again.tags, again.description, again.run_id) == (1, {"stage": "live"}, "new", None)
    assert (await store.put(upload(source, framework="Onnx", properties={"p": "1"}))).version == 2
    (source / "empty").write_bytes(b"now not")
    assert (await store.put(upload(source, framework="Onnx"))).version == 3
    (source / "empty").write_bytes(b"")
    assert (await store.put(upload(source, framework="Onnx"))).version == 1
    assert [record.version for record in await store.versions("net")] == [1, 2, 3]
    assert await store.names() == ["net"]
    with pytest.raises(NotFound, match="versions of net: 1, 2, 3"):
        await find_version(store, "net", 9)
    assert (await find_version(store, "net")).version == 3


async def test_what_went_in_comes_out(store: ModelStore, tmp_path: Path, write_files: Callable[..., Path]) -> None:
    contents = {**ODD, "net/big": os.urandom(3 * 1024 * 1024), "net/twice": b"1" * 3000}
    record = await store.put(upload(write_files(tmp_path / "in", contents) / "net"))
    told: list[tuple[int, int | None]] = []
    await store.fetch(record, tmp_path / "out", lambda done, total: told.append((done, total)))
    found = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == contents
    assert told[-1] == (record.size_bytes, record.size_bytes)
    await store.fetch(record, tmp_path / "out")


async def test_names_that_a_registry_cannot_have(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    for name in ("Upper_Case", "dots..dots", "a" * 255):
        record = await store.put(upload(tmp_path / "m", name))
        assert (record.name, record.version) == (name, 1)
        assert [one.name for one in await store.versions(name)] == [name]
    assert await store.names() == sorted(["Upper_Case", "dots..dots", "a" * 255])


async def test_deleting(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    await store.put(upload(tmp_path / "m"))
    await store.use("net", 1, "endpoint one")
    await store.use("net", 1, "endpoint two")
    await store.put(upload(tmp_path / "m", tags={"changed": "facts"}))
    with pytest.raises(Conflict, match="used by endpoint one, endpoint two"):
        await store.delete("net", 1)
    await store.release("net", 1, "endpoint one")
    await store.release("net", 1, "endpoint one")
    assert await store.users("net", 1) == ["endpoint two"]
    await store.release("net", 1, "endpoint two")
    await store.delete("net", 1)
    assert await store.versions("net") == []
    assert await store.names() == []
    for call in (store.delete("net", 1), store.use("net", 1, "x"), store.delete("other", 1)):
        with pytest.raises(NotFound):
            await call
    # The number was given: it never means other bytes.
    (tmp_path / "m").write_bytes(b"y")
    assert (await store.put(upload(tmp_path / "m"))).version == 2


async def test_a_file_that_changes_meanwhile(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"before")
    looked_at = upload(path)
    path.write_bytes(b"behind")
    with pytest.raises(ContentMismatch, match="has changed"):
        await store.put(looked_at)
    assert await store.versions("net") == []
    assert (await store.put(upload(path))).version == 1


async def test_what_is_there_is_known(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"before")
    digest = file_digest(path)
    other = "sha256:" + "0" * 64
    assert await store.present("net", {digest, other}) == set()
    await store.put(upload(path))
    assert await store.present("net", {digest, other}) == {digest}


PUT = """
import asyncio, json, sys
from pathlib import Path
from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile

files = model_files(Path(sys.argv[2]))
digests = file_digests(files)
stored = {key: StoredFile(path, digests[key], path.stat().st_size) for key, path in files.items()}
told = []
upload = Upload("net", stored, ModelFacts())
record = asyncio.run(open_store(sys.argv[1]).put(upload, lambda done, total: print(done, total, flush=True)))
print(json.dumps({"version": record.version, "digest": record.digest}), flush=True)
"""


def putting(address: str, source: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", PUT, address, str(source)], stdout=subprocess.PIPE, text=True)


async def test_two_writers_at_once(address: str, tmp_path: Path) -> None:
    """Two processes with the same content: one version. With another: each its own."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "m").write_bytes(os.urandom(300_000))
    running = [putting(address, tmp_path / name) for name in "aabb"]
    said = [(await asyncio.to_thread(one.communicate))[0].splitlines()[-1] for one in running]
    versions = [json.loads(line)["version"] for line in said]
    assert versions[0] == versions[1]
    assert versions[2] == versions[3]
    if not address.startswith("oci://"):
        assert {versions[0], versions[2]} == {1, 2}
    store = open_store(address)
    records = await store.versions("net")
    assert len(records) == 2
    for record in records:
        await store.fetch(record, tmp_path / "out" / str(record.version))


async def test_an_upload_that_is_killed_goes_on(
    address: str, tmp_path: Path, write_files: Callable[..., Path], wait_until: Callable[..., None]
) -> None:
    parts = {f"net/{number}": os.urandom(6 * 1024 * 1024) for number in range(8)}
    source = write_files(tmp_path, parts) / "net"
    first = putting(address, source)
    assert first.stdout is not None
    seen = 0
    for line in first.stdout:
        seen = int(line.split()[0])
        if seen >= 12 * 1024 * 1024:
            break
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    store = open_store(address)
    assert await store.versions("net") == []
    second = putting(address, source)
    said = (await asyncio.to_thread(second.communicate))[0].splitlines()
    assert json.loads(said[-1])["version"] == 1
    record = await find_version(store, "net")
    await store.fetch(record, tmp_path / "out")
    assert (tmp_path / "out" / "net" / "7").read_bytes() == parts["net/7"]


# --- Blob Storage alone


def counted(azurite: Any, account: str, container: str, prefix: str) -> tuple[BlobStore, list[int]]:
    """A store whose requests' bodies are counted."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy
    from azure.storage.blob import BlobServiceClient

    sent: list[int] = []

    class Count(SansIOHTTPPolicy):  # type: ignore[type-arg]
        def on_request(self, request: Any) -> None:
            if request.http_request.method == "PUT":
                sent.append(int(request.http_request.headers.get("Content-Length") or 0))

    def make() -> Any:
        service = BlobServiceClient.from_connection_string(azurite.connection_string, per_call_policies=[Count()])
        return service.get_container_client(container)

    return BlobStore(account, container, prefix, client=make, grace_s=0), sent


async def test_blocks_that_are_there_are_not_sent_again(azurite: Any, tmp_path: Path, own_cache: Path) -> None:
    azurite.container("resume")
    mark = uuid.uuid4().hex[:8]
    source = tmp_path / "net"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(40 * 1024 * 1024))
    first = putting(f"az://{azurite.account}/resume/{mark}", source)
    assert first.stdout is not None
    for line in first.stdout:
        if int(line.split()[0]) >= 16 * 1024 * 1024:
            break
    first.kill()
    first.wait()
    first.stdout.close()
    store, sent = counted(azurite, azurite.account, "resume", mark)
    await store.put(upload(source))
    assert sum(sent) < 25 * 1024 * 1024  # of 40 MB at least two blocks were there
    sent.clear()
    (source / "small").write_bytes(b"new")
    assert (await store.put(upload(source))).version == 2
    assert sum(sent) < 100_000
    # Another model with the same content sends none, either.
    sent.clear()
    await store.put(upload(source, "other"))
    assert sum(sent) < 100_000


async def test_content_goes_when_nothing_names_it(azurite: Any, tmp_path: Path, own_cache: Path) -> None:
    container = azurite.container("sweep")
    mark = uuid.uuid4().hex[:8]
    store, _ = counted(azurite, azurite.account, "sweep", mark)
    source = tmp_path / "net"
    source.mkdir()
    (source / "kept").write_bytes(b"kept")
    (source / "goes").write_bytes(b"goes")
    await store.put(upload(source))
    (source / "goes").unlink()
    kept = await store.put(upload(source))
    await store.delete("net", 1)
    left = [blob.rpartition("/")[2] for blob in container.list_blob_names(name_starts_with=f"{mark}/content/")]
    assert left == [digest.removeprefix("sha256:") for digest in kept.files.values()]


@pytest.mark.long
async def test_azurite_killed_in_the_middle_of_an_upload(
    own_azurite: Any, tmp_path: Path, own_cache: Path, wait_until: Callable[..., None]
) -> None:
    """The upload waits for the service to come back. It has forgotten what it took in its last seconds (it saves its
    lists every few): that is sent again."""
    own_azurite.container("kill")
    saved = own_azurite.folder / "__azurite_db_blob__.json"
    wait_until(lambda: saved.is_file() and '"name":"kill"' in saved.read_text(), "the container is saved")
    source = tmp_path / "net"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(40 * 1024 * 1024))
    store = open_store(f"az://{own_azurite.account}/kill")
    killed = threading.Event()

    def progress(done: int, _total: int | None) -> None:
        if done >= 16 * 1024 * 1024 and not killed.is_set():
            killed.set()
            own_azurite.kill()
            threading.Timer(0.5, own_azurite.start).start()

    record = await store.put(upload(source), progress)
    assert killed.is_set()
    await store.fetch(record, tmp_path / "out")
    assert file_digest(tmp_path / "out" / "net" / "big") == record.files["net/big"]


async def test_a_store_that_is_gone(own_azurite: Any, tmp_path: Path, own_cache: Path) -> None:
    own_azurite.container("gone")
    (tmp_path / "m").write_bytes(b"x")
    own_azurite.kill()
    from aks_inference_runtime.models.azure import container_client

    store = BlobStore(
        own_azurite.account, "gone", client=lambda: container_client(own_azurite.account, "gone", retries=0)
    )
    with pytest.raises(StoreUnavailable, match="does not answer") as caught:
        await store.put(upload(tmp_path / "m"))
    assert "AccountKey" not in str(caught.value)
    own_azurite.start()
    with pytest.raises(StoreUnavailable, match="ContainerNotFound"):
        await open_store(f"az://{own_azurite.account}/nowhere").put(upload(tmp_path / "m"))


async def test_wrong_bytes_in_a_store(azurite: Any, tmp_path: Path, own_cache: Path) -> None:
    container = azurite.container("wrong")
    mark = uuid.uuid4().hex[:8]
    store = open_store(f"az://{azurite.account}/wrong/{mark}")
    (tmp_path / "m").write_bytes(b"right")
    record = await store.put(upload(tmp_path / "m"))
    name = next(iter(container.list_blob_names(name_starts_with=f"{mark}/content/")))
    container.upload_blob(name, b"wrong", overwrite=True)
    with pytest.raises(ContentMismatch, match="register the model again"):
        await store.fetch(record, tmp_path / "out")
    assert not (tmp_path / "out" / "m").exists()


async def test_a_damaged_record(azurite: Any, tmp_path: Path, own_cache: Path) -> None:
    container = azurite.container("damaged")
    mark = uuid.uuid4().hex[:8]
    for text, said in ((b"no json", "no JSON object"), (b"{}", "damaged"), (b'{"recordVersion": 9}', "newer version")):
        container.upload_blob(f"{mark}/models/net/1/record.json", text, overwrite=True)
        with pytest.raises(InvalidInput, match=said):
            await open_store(f"az://{azurite.account}/damaged/{mark}").versions("net")


# --- a folder alone


@pytest.mark.parametrize("size", [256 * 1024**2, pytest.param(5 * 1024**3, marks=pytest.mark.long)])
async def test_a_sparse_file_stays_one(tmp_path: Path, size: int) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.write(b"begin")
        file.truncate(size)
    store = open_store(str(tmp_path / "store"))
    record = await store.put(upload(source))
    kept = tmp_path / "store" / "net" / "1" / "files" / "sparse"
    assert (record.size_bytes, kept.stat().st_size) == (size, size)
    assert kept.stat().st_blocks * 512 < 8 * 1024 * 1024


async def test_the_same_content_takes_its_place_once(tmp_path: Path) -> None:
    source = tmp_path / "net"
    source.mkdir()
    (source / "a").write_bytes(b"same")
    (source / "b").write_bytes(b"same")
    store = open_store(str(tmp_path / "store"))
    await store.put(upload(source))
    (source / "c").write_bytes(b"new")
    record = await store.put(upload(source))
    await store.fetch(record, tmp_path / "app")
    kept = tmp_path / "store" / "net"
    inodes = {(kept / v / "files" / "net" / n).stat().st_ino for v in "12" for n in "ab"}
    assert inodes == {(tmp_path / "app" / "net" / "a").stat().st_ino}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relative/path", "is not a store"),
        ("s3://bucket/x", "is not a store"),
        ("az://account", "not a container"),
        ("az://account/container/a b", "not a prefix"),
        ("oci://UPPER/Repo", "is not a registry"),
    ],
)
def test_wrong_addresses(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        open_store(text)


async def test_without_the_azure_packages(tmp_path: Path) -> None:
    """In an interpreter that has them not."""
    code = (
        "import asyncio; from importlib import util; find = util.find_spec; "
        "util.find_spec = lambda name, *more: None if name.startswith('azure') else find(name, *more); "
        "from aks_inference_runtime.models.stores import open_store; "
        "asyncio.run(open_store('az://account/container').names())"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "MissingPackage: az:// needs the packages azure-storage-blob" in done.stderr
