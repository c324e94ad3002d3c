"""`aks-inference models …` as a process, on a folder, on Blob Storage and on a local cluster's store."""

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

from aks_inference_runtime.api.client import SupervisorClient, destroy, launch
from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.models import DatasetReference, ModelFacts
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.api.supervisor import LocalSettings, ModelRegistration
from aks_inference_runtime.models.filters import Filter, matching
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile
from testbed.processes import free_ports

PROGRAM = Path(sys.executable).with_name("aks-inference")


def record(name: str, version: int, **facts: Any) -> ModelRecord:
    return ModelRecord(name=name, version=version, digest="sha256:0", **facts)


RECORDS = [
    record("b", 2, tags={"stage": "live", "team": "x"}, framework="Onnx", run_id="r2"),
    record("a", 1, tags={"stage": "live"}, framework="Onnx", properties={"p": "1"}),
    record(
        "b",
        1,
        tags={"stage": "test=1"},
        framework="ScikitLearn",
        datasets=(DatasetReference(relationship="t", dataset="d"),),
    ),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), ["a:1", "b:1", "b:2"]),
        (Filter(name="b"), ["b:1", "b:2"]),
        (Filter(latest=True), ["a:1", "b:2"]),
        (Filter(name="b", latest=True), ["b:2"]),
        (Filter(tags=("stage=live",)), ["a:1", "b:2"]),
        (Filter(tags=("stage=live", "team")), ["b:2"]),
        (Filter(tags=("stage=test=1",)), ["b:1"]),
        (Filter(tags=("stage=test=1",), latest=True), []),
        (Filter(tags=("Stage=live",)), []),
        (Filter(framework="ScikitLearn"), ["b:1"]),
        (Filter(run_id="r2"), ["b:2"]),
        (Filter(dataset="d"), ["b:1"]),
        (Filter(properties=("p=1",)), ["a:1"]),
    ],
)
def test_filters(wanted: Filter, found: list[str]) -> None:
    assert [one.model_id for one in matching(RECORDS, wanted)] == found


@pytest.mark.parametrize("text", ["=x", "", " a=b", "a=b "])
def test_filters_that_mean_nothing(text: str) -> None:
    with pytest.raises(InvalidInput, match="write TagName=TagValue"):
        matching(RECORDS, Filter(tags=(text,)))


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(PROGRAM), *arguments], capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
    )


def put(address: str, source: Path, name: str = "net", **facts: Any) -> ModelRecord:
    files = model_files(source)
    digests = file_digests(files)
    stored = {key: StoredFile(path, digests[key], path.stat().st_size) for key, path in files.items()}
    return asyncio.run(open_store(address).put(Upload(name, stored, ModelFacts(**facts))))


@pytest.fixture(params=[pytest.param("folder", marks=pytest.mark.long), "blob"])
def address(request: pytest.FixtureRequest, tmp_path: Path, own_cache: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    azurite = request.getfixturevalue("azurite")
    azurite.container("cli")
    return f"az://{azurite.account}/cli/{uuid.uuid4().hex[:8]}"


def test_a_person_and_a_program_look_at_models(address: str, tmp_path: Path, write_files: Callable[..., Path]) -> None:
    odd = ("net/line\nbreak", "net/[bold]:smile:", "net/x[/b]")
    source = write_files(tmp_path, {"net/a b.bin": b"a" * 2000, **dict.fromkeys(odd, b"x")}) / "net"
    facts = {"framework": "Onnx", "framework_version": "1.2", "run_id": "r1", "description": "one\ntwo\x1b[31m"}
    put(address, source, tags={"stage": "live", "label": "[/b]"}, **facts)
    put(address, source, "other")
    (source / "a b.bin").write_bytes(b"b")
    put(address, source)
    store = ("--store", address)
    shown = run("models", "list", *store).stdout
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [["net", "1"], ["net", "2"], ["other", "1"]]
    assert "stage=live" in shown
    raw = json.loads(run("models", "list", *store, "--tag", "stage=live", "--json").stdout)
    assert [(one["name"], one["version"], one["runId"]) for one in raw["models"]] == [("net", 1, "r1")]
    text = run("models", "show", "net:1", *store).stdout
    assert text.splitlines()[0] == "model net:1: 4 files, 2.0 kB"
    assert "'net/line\\nbreak'" in text
    assert "description  one\n'two\\x1b[31m'\n" in text
    for name in ("net/[bold]:smile:", "net/x[/b]", "label=[/b]"):
        assert name in text, "names are no markup"
    assert json.loads(run("--json", "models", "show", "net", *store).stdout)["version"] == 2
    got = run("models", "download", "net:1", "--to", str(tmp_path / "out"), *store)
    assert got.stdout.strip() == str(tmp_path / "out" / "net")
    assert (tmp_path / "out" / "net" / "a b.bin").read_bytes() == b"a" * 2000
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"net"}
    again = run("models", "download", "net:2", "--to", str(tmp_path / "out"), *store)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    assert run("models", "download", "net:2", "--to", str(tmp_path / "out"), "--exist-ok", *store).returncode == 0
    assert (tmp_path / "out" / "net" / "a b.bin").read_bytes() == b"b"
    asyncio.run(open_store(address).use("net", 2, "endpoint churn"))
    refused = run("models", "delete", "net:2", *store)
    assert (refused.returncode, refused.stderr.strip()) == (
        1,
        "error: model net:2 is used by endpoint churn; delete or change them first",
    )
    assert run("models", "delete", "net:1", *store).stdout.strip() == "deleted net:1"
    assert run("models", "show", "net:1", *store).returncode == 3
    assert run("models", "delete", "net", *store).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("list", "--tag", "=x"), 2, "write TagName=TagValue"),
        (("list", "--store", "s3://bucket"), 2, "is not a store"),
        (("list", "--store", ""), 2, "--store: is empty"),
        (("show", "net:one"), 2, "write NAME or NAME:VERSION"),
        (("show", f"net:{'9' * 5000}"), 2, "write NAME or NAME:VERSION"),
        (("show", "none"), 3, "versions of none: none"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    store = () if "--store" in arguments else ("--store", str(tmp_path))
    got = run("models", *arguments, *store)
    assert (got.returncode, said in got.stderr, "Traceback" in got.stderr) == (code, True, False)


async def test_models_of_a_local_cluster(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"x" * 300)
    state = tmp_path / "state"
    (port,) = free_ports(1)
    await launch(LocalSettings(name="cli", state_directory=str(state), port=port))
    try:
        registration = ModelRegistration(name="ridge", source_path=str(tmp_path / "model.pkl"), run_id="r9")
        await SupervisorClient(state).put_model(registration)
        here = ("--state-directory", str(state), "models")
        listed = await asyncio.to_thread(run, *here, "list", "--run-id", "r9", "--json")
        assert [one["name"] for one in json.loads(listed.stdout)["models"]] == ["ridge"]
        shown = await asyncio.to_thread(run, *here, "show", "ridge")
        assert shown.stdout.splitlines()[0] == "model ridge:1: 1 file, 300 bytes"
        got = await asyncio.to_thread(run, *here, "download", "ridge:1", "--to", str(tmp_path / "out"))
        assert Path(got.stdout.strip()).read_bytes() == b"x" * 300
        assert (await asyncio.to_thread(run, *here, "delete", "ridge:1")).returncode == 0
        assert await SupervisorClient(state).models() == []
    finally:
        await destroy(state)


def test_a_download_leaves_the_store_alone(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    """What the user does to the copy is not done to the store."""
    source = write_files(tmp_path, {"net/a": b"right"}) / "net"
    kept = put(str(tmp_path / "store"), source)
    run("models", "download", "net", "--to", str(tmp_path / "out"), "--store", str(tmp_path / "store"))
    (tmp_path / "out" / "net" / "a").write_bytes(b"wrong")
    assert (tmp_path / "store" / "net" / str(kept.version) / "files" / "net" / "a").read_bytes() == b"right"


def test_a_download_where_something_else_is(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    """Told before anything is fetched, also where files may be replaced; nothing is left among the user's files."""
    store, out = ("--store", str(tmp_path / "store")), tmp_path / "out"
    put(store[1], write_files(tmp_path, {"net/a": b"a", "net/b/c": b"c"}) / "net")
    (out / "net" / "a").mkdir(parents=True)
    got = run("models", "download", "net", "--to", str(out), "--exist-ok", *store)
    assert got.stderr == f"error: {out}/net/a is a folder there and a file in the model; choose another folder\n"
    (out / "net" / "a").rmdir()
    (out / "net" / "b").touch()
    got = run("models", "download", "net", "--to", str(out), *store)
    assert got.stderr == f"error: {out}/net/b is no folder there and one in the model; choose another folder\n"
    assert [path.name for path in out.rglob("*")] == ["net", "b"]
