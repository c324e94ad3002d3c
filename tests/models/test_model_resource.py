"""The resource Model with remote sources and stores of its own: what a preview says, what an apply does."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources.base import Caution, Operation, State, Urn
from aks_inference_provider.resources.model import Model
from aks_inference_runtime.models.stores import open_store

URN = Urn.parse("urn:pulumi:dev::project::aks-inference:index:Model::net")
OPERATION = Operation(URN, Progress(EngineLog(""), URN.text))


class Resource:
    """Checks, previews and applies as an engine does; keeps the state."""

    def __init__(self) -> None:
        self.model = Model()
        self.state: State | None = None

    async def check(self, inputs: dict[str, Any]) -> dict[str, Any]:
        checked = await self.model.check(URN, self.state.inputs if self.state else {}, inputs)
        assert checked.failures == []
        return dict(checked.inputs)

    async def failures(self, inputs: dict[str, Any]) -> list[str]:
        checked = await self.model.check(URN, {}, inputs)
        return [f"{failure.path}: {failure.reason}" for failure in checked.failures]

    async def up(self, inputs: dict[str, Any]) -> tuple[list[str], Any]:
        """Notes of the preview, and the outputs."""
        news = await self.check(inputs)
        if self.state is None:
            notes = await self.model.notes(news, None)
            made = await self.model.create(OPERATION, news)
            self.state = State(made.id, news, {**news, **made.computed})
            return notes, made.computed
        if not (await self.model.diff(self.state, news)).properties:
            return [], self.state.outputs
        notes = await self.model.notes(news, self.state)
        computed = await self.model.update(OPERATION, self.state, news)
        self.state = State(self.state.id, news, {**news, **computed})
        return notes, computed


@pytest.fixture(params=["folder", "blob", "oci"])
def store(request: pytest.FixtureRequest, tmp_path: Path, own_cache: Path) -> str:
    mark = uuid.uuid4().hex[:12]
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "blob":
        azurite = request.getfixturevalue("azurite")
        azurite.container("resource")
        return f"az://{azurite.account}/resource/{mark}"
    return f"oci://{request.getfixturevalue('oci_registry').host}/resource-{mark}"


async def test_a_model_in_a_store(store: str, tmp_path: Path, write_files: Callable[..., Path]) -> None:
    source = write_files(tmp_path, {"net/a": b"a" * 1000, "net/b": b"b" * 500}) / "net"
    inputs = {"store": store, "name": "net", "path": str(source), "framework": "Onnx", "tags": {"x": "1"}}
    resource = Resource()
    notes, made = await resource.up(inputs)
    assert notes == ["model net: 2 files new (net/a, net/b); 1.5 kB of 1.5 kB will be uploaded"]
    assert (made["version"], made["modelId"], made["versions"]) == (1, "net:1", [1])
    assert (await resource.up(inputs))[0] == []
    (source / "b").write_bytes(b"c" * 700)
    notes, made = await resource.up(inputs)
    assert notes == ["model net: 1 file changed (net/b); 700 bytes of 1.7 kB will be uploaded"]
    assert (made["version"], made["versions"]) == (2, [1, 2])
    assert resource.state is not None
    read = await resource.model.read(OPERATION, resource.state)
    assert read is not None
    assert read.outputs["version"] == 2
    # Somebody uses the first one: it stays, the others go.
    kept = open_store(store)
    await kept.use("net", 1, "endpoint svc")
    await resource.model.delete(OPERATION, resource.state)
    assert [record.version for record in await kept.versions("net")] == [1]
    assert await resource.model.read(OPERATION, resource.state) is None


async def test_a_store_that_does_not_answer_is_told(
    tmp_path: Path, write_files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preview counts everything then; and a name of two lines stays one."""
    monkeypatch.setattr("aks_inference_provider.resources.model.LOOK_S", 0.1)
    source = write_files(tmp_path, {"net/a\nb": b"a" * 1000}) / "net"
    resource = Resource()
    store = "oci://127.0.0.1:1/none"
    news = await resource.check({"store": store, "name": "net", "path": str(source)})
    told, caution = await resource.model.notes(news, None)
    assert told == r"model net: 1 file new ('net/a\nb'); 1.0 kB of 1.0 kB will be uploaded"
    assert isinstance(caution, Caution)
    assert caution.startswith(f"store {store}: not known what it has already (")


async def test_a_model_of_the_web(files: Any, tmp_path: Path, own_cache: Path) -> None:
    files.content["/m/net.bin"] = os.urandom(2_000)
    path = f"{files.url}/m/net.bin"
    inputs = {"store": str(tmp_path / "store"), "name": "net", "path": path, "facts": {"runId": "r7"}}
    resource = Resource()
    notes, _ = await resource.up(inputs)
    assert notes == ["model net: 1 file new (net.bin); 2.0 kB of 2.0 kB will be uploaded"]
    record = (await open_store(inputs["store"]).versions("net"))[0]
    assert (record.source, record.run_id, list(record.files)) == (path, "r7", ["net.bin"])
    before = [method for method, *_ in files.seen].count("GET")
    assert (await resource.up(inputs))[0] == []
    assert [method for method, *_ in files.seen].count("GET") == before == 1
    files.content["/m/net.bin"] = os.urandom(3_000)
    _, made = await resource.up(inputs)
    assert made["version"] == 2
    assert [method for method, *_ in files.seen].count("GET") == 2


async def test_other_properties_are_told(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    """A version more of the same files, which a preview would not show by its files."""
    source = write_files(tmp_path, {"net/b": b"b", "net/a": b"a"}) / "net"
    inputs = {"store": str(tmp_path / "store"), "name": "net", "path": str(source)}
    resource = Resource()
    assert (await resource.up(inputs))[0][0].startswith("model net: 2 files new (net/a, net/b)")
    assert (await resource.up({**inputs, "tags": {"x": "1"}}))[0] == []
    notes, made = await resource.up({**inputs, "properties": {"accuracy": "0.9"}, "framework": "Onnx"})
    assert notes == ["model net: the same files with other properties and another framework are another version"]
    assert made["version"] == 2


RUN = """
import mlflow, pathlib, tempfile
mlflow.set_experiment("lineage")
with mlflow.start_run() as run:
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "weights").write_bytes(b"w")
    mlflow.log_artifacts(str(folder), "out")
print(run.info.run_id)
"""


async def test_the_run_that_made_a_model_is_known(mlflow: Any, tmp_path: Path, own_cache: Path) -> None:
    run_id = mlflow.run(RUN)
    path = f"runs:/{run_id}/out"
    inputs = {"store": str(tmp_path / "store"), "name": "net", "path": path, "trackingUri": mlflow.uri}
    resource = Resource()
    await resource.up(inputs)
    (record,) = await open_store(inputs["store"]).versions("net")
    assert (record.run_id, record.experiment_name) == (run_id, "lineage")
    assert await resource.up(inputs) == ([], resource.state.outputs if resource.state else None)
    await resource.up({**inputs, "facts": {"runId": "r7"}})
    (record,) = await open_store(inputs["store"]).versions("net")
    assert (record.run_id, record.experiment_name) == ("r7", "lineage"), "what the program says wins"


async def test_a_container_that_is_not_there(azurite: Any, tmp_path: Path) -> None:
    """The program may make it: the preview warns."""
    (tmp_path / "m").write_bytes(b"x")
    resource = Resource()
    store = f"az://{azurite.account}/no-{uuid.uuid4().hex[:12]}"
    news = await resource.check({"store": store, "name": "net", "path": str(tmp_path / "m")})
    _, caution = await resource.model.notes(news, None)
    assert isinstance(caution, Caution)
    assert "ContainerNotFound" in caution


async def test_children_of_a_source_are_told_with_its_address(files: Any, tmp_path: Path, own_cache: Path) -> None:
    files.content["/m.bin"] = b"x"
    path = f"{files.url}/m.bin"
    found = await Resource().failures({"store": "/srv/x", "name": "net", "path": path, "childPaths": ["a"]})
    assert found == [f"childPaths: {path} is a file; child paths choose among the files of a folder"]


async def test_a_source_that_is_gone(files: Any, own_cache: Path) -> None:
    path = f"{files.url}/gone.bin"
    found = await Resource().failures({"store": "/srv/x", "name": "net", "path": path})
    assert found == [f"path: {path}: answered 404; there is no such file"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "target: is required, or store"),
        ({"store": "/a", "target": "x"}, "target: is given beside store; give one"),
        ({"store": "s3://b"}, "store: 's3://b' is not a store"),
        ({"store": "/dev/null/models"}, "store: '/dev/null/models' cannot be"),
        ({"store": "/a", "path": "http://example.org/x"}, "path: 'http://example.org/x' is not protected"),
        ({"store": "/a", "path": "relative"}, "path: 'relative' is not absolute"),
        ({"store": "/a", "unpack": "yes"}, "unpack: must be a boolean"),
    ],
)
async def test_refused_inputs(inputs: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    found = await Resource().failures({"name": "net", "path": str(tmp_path / "m"), **inputs})
    assert any(text.startswith(said) for text in found), found
