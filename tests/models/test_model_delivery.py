"""Delivery to replicas: the init container's command, the layout of the reference, the cache of a machine."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.models.delivery import DeliverySettings, deliver
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile

COMMAND = [sys.executable, "-m", "aks_inference_runtime.models.delivery"]


async def put(address: str, source: Path, name: str = "net") -> ModelRecord:
    files = model_files(source)
    digests = file_digests(files)
    stored = {key: StoredFile(path, digests[key], path.stat().st_size) for key, path in files.items()}
    return await open_store(address).put(Upload(name, stored, ModelFacts()))


@pytest.fixture(params=["folder", "blob", "oci"])
def address(request: pytest.FixtureRequest, tmp_path: Path, own_cache: Path) -> str:
    mark = uuid.uuid4().hex[:12]
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "blob":
        azurite = request.getfixturevalue("azurite")
        azurite.container("delivery")
        return f"az://{azurite.account}/delivery/{mark}"
    return f"oci://{request.getfixturevalue('oci_registry').host}/delivery-{mark}"


def settings(tmp_path: Path, *records: tuple[str, ModelRecord], **more: Any) -> DeliverySettings:
    models = [{"name": r.name, "version": r.version, "store": store, "digest": r.digest} for store, r in records]
    return DeliverySettings.model_validate({"models": models, "appRoot": str(tmp_path / "app"), **more})


async def test_the_layout(address: str, tmp_path: Path, write_files: Callable[..., Path]) -> None:
    """azureml-v1.md 4.7: one model, several models, a file, a folder."""
    write_files(tmp_path, {"folder/deep/a": b"a", "single.pkl": b"s"})
    folder = await put(address, tmp_path / "folder", "net")
    single = await put(address, tmp_path / "single.pkl", "ridge")
    app = tmp_path / "app" / "azureml-models"
    one = await deliver(settings(tmp_path, (address, single)))
    assert one == app / "ridge" / "1"
    assert (one / "single.pkl").read_bytes() == b"s"
    several = await deliver(settings(tmp_path, (address, folder), (address, single)))
    assert several == app
    assert (several / "net" / "1" / "folder" / "deep" / "a").read_bytes() == b"a"
    assert (several / "ridge" / "1" / "single.pkl").read_bytes() == b"s"
    assert await deliver(settings(tmp_path)) == app


async def test_replicas_of_a_machine_share_one_copy(
    address: str, tmp_path: Path, write_files: Callable[..., Path]
) -> None:
    source = write_files(tmp_path, {"net/a": os.urandom(500_000), "net/b": b"b"}) / "net"
    record = await put(address, source)
    cache = str(tmp_path / "cache-of-node")
    files = []
    for replica in ("one", "two"):
        wanted = settings(tmp_path / replica, (address, record), cache=cache)
        path = tmp_path / f"{replica}.json"
        path.write_text(json.dumps(wanted.to_wire()))
        files.append(path)
    running = [
        await asyncio.create_subprocess_exec(*COMMAND, str(path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for path in files
    ]
    said = [(await one.communicate())[0].decode() for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    assert said[0].splitlines()[-1] == f"AZUREML_MODEL_DIR={tmp_path / 'one' / 'app' / 'azureml-models' / 'net' / '1'}"
    places = [tmp_path / name / "app" / "azureml-models" / "net" / "1" / "net" / "a" for name in ("one", "two")]
    assert places[0].stat().st_ino == places[1].stat().st_ino
    assert places[0].read_bytes() == (source / "a").read_bytes()


async def test_bytes_that_rot_in_the_cache(tmp_path: Path, own_cache: Path, write_files: Callable[..., Path]) -> None:
    """The folder store refuses, since its files may be these; elsewhere they are fetched anew."""
    source = write_files(tmp_path, {"net/a": b"right"}) / "net"
    store = str(tmp_path / "store")
    record = await put(store, source)
    wanted = settings(tmp_path, (store, record), cache=str(tmp_path / "node"))
    await deliver(wanted)
    rotten = tmp_path / "node" / record.digest.removeprefix("sha256:") / "net" / "a"
    rotten.unlink()
    rotten.write_bytes(b"wrong")
    with pytest.raises(ContentMismatch, match="another content"):
        await deliver(wanted)


async def test_a_cache_of_limited_size(tmp_path: Path, own_cache: Path) -> None:
    store, records = str(tmp_path / "store"), []
    for number in range(3):
        (tmp_path / "m").write_bytes(os.urandom(1000))
        records.append(await put(store, tmp_path / "m"))
        wanted = settings(tmp_path / str(number), (store, records[-1]), cache=str(tmp_path / "node"), cacheBytes=2_500)
        await deliver(wanted)
    kept = {path.stem for path in (tmp_path / "node").glob("*.used")}
    assert kept == {record.digest.removeprefix("sha256:") for record in records[1:]}
    # What was delivered stays, whatever the cache does.
    assert (tmp_path / "0" / "app" / "azureml-models" / "net" / "1" / "m").is_file()


async def test_another_content_than_was_deployed(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    store = str(tmp_path / "store")
    record = await put(store, tmp_path / "m")
    other = record.model_copy(update={"digest": "sha256:" + "0" * 64})
    with pytest.raises(ContentMismatch, match="not sha256:000"):
        await deliver(settings(tmp_path, (store, other)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{}", "models: Field required"),
        (
            '{"models": [{"name": "n", "version": 0, "store": "/x"}]}',
            "models.0.version: Input should be greater than 0",
        ),
        ('{"models": [{"name": "n", "version": 1, "store": "s3://x"}]}', "is not a store"),
        (
            '{"models": [{"name": "n", "version": 1, "store": "/nowhere"}], "appRoot": "APP"}',
            "no model n:1 in /nowhere",
        ),
    ],
)
def test_what_cannot_be_delivered(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "settings.json"
    if text is not None:
        path.write_text(text.replace("APP", str(tmp_path / "app")))
    done = subprocess.run([*COMMAND, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
