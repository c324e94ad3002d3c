"""Models of stores for services of a local cluster: brought, compared, kept while they are used, removed after."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api.content import file_digests
from aks_inference_runtime.api.endpoint import ModelReference
from aks_inference_runtime.api.errors import Conflict, NotFound
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.local.models import ModelStore
from aks_inference_runtime.models.mirror import bring, let_go, mirror
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile
from testbed.processes import free_ports
from testbed.project import Project

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import LocalInferenceCluster, ModelWebService, RegisteredModel

told = json.loads(pathlib.Path("told.json").read_text())
cluster = LocalInferenceCluster("local", port=told["port"], state_directory=told["state"])
model = RegisteredModel("price", store=told["store"], model_path="price.json")
service = ModelWebService("shop", target=cluster, models=[model], num_replicas=1,
                          inference_config={"entry_script": "score.py", "source_directory": "code"})
pulumi.export("uri", service.scoring_uri)
pulumi.export("key", service.primary_key)
"""
SCRIPT = """
import json, os, pathlib
def init():
    global root, weights
    root = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
    weights = json.loads((root / "price.json").read_text())
def run(data):
    return {"root": str(root), "prices": [sum(w * x for w, x in zip(weights, row)) for row in json.loads(data)["data"]]}
"""


@pytest.fixture(params=["folder", "blob", "oci"])
def store(request: pytest.FixtureRequest, tmp_path: Path, own_cache: Path) -> str:
    unique = uuid.uuid4().hex[:12]
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "blob":
        azurite = request.getfixturevalue("azurite")
        azurite.container("mirrored")
        return f"az://{azurite.account}/mirrored/{unique}"
    return f"oci://{request.getfixturevalue('oci_registry').host}/mirrored-{unique}"


async def put(address: str, folder: Path, content: str) -> None:
    file = folder / "m.bin"
    file.write_text(content)
    stored = {"m.bin": StoredFile(file, file_digests({"m.bin": file})["m.bin"], len(content))}
    await open_store(address).put(Upload("net", stored, ModelFacts()))
    file.unlink()


async def test_the_numbers_are_those_of_the_store(store: str, tmp_path: Path) -> None:
    await put(store, tmp_path, "one")
    await put(store, tmp_path, "two")
    state, local = tmp_path / "state", ModelStore(tmp_path / "state" / "models")
    reference = ModelReference(name="net", version=2, store=store)
    with pytest.raises(NotFound):
        local.find(reference)
    await asyncio.gather(*(bring(state, reference, f"endpoint {n}") for n in range(3)))
    local.link(reference, tmp_path / "app")
    assert (tmp_path / "app" / "m.bin").read_text() == "two"
    assert (tmp_path / "app" / "m.bin").stat().st_mode & 0o222 == 0, "nobody writes to what others have too"
    assert local.all() == [], "no model of the cluster's own"
    with pytest.raises(NotFound):
        local.find(ModelReference(name="net", version=1, store=store))


async def test_what_is_damaged_here_is_fetched_again(store: str, tmp_path: Path) -> None:
    await put(store, tmp_path, "right")
    reference = ModelReference(name="net", version=1, store=store)
    await bring(tmp_path, reference, "endpoint a")
    (kept,) = Path(mirror(tmp_path, store).address).rglob("m.bin")
    kept.unlink()
    kept.write_text("wrong")
    await bring(tmp_path, reference, "endpoint a")
    assert kept.read_text() == "right"


async def test_what_nobody_uses_goes(store: str, tmp_path: Path) -> None:
    for content in ("one", "two"):
        await put(store, tmp_path, content)
    old, new = (ModelReference(name="net", version=n, store=store) for n in (1, 2))
    for user in ("endpoint a", "endpoint b"):
        await bring(tmp_path, old, user)
    await bring(tmp_path, new, "endpoint a")
    here = mirror(tmp_path, store)
    with pytest.raises(Conflict, match="endpoint b"):
        await here.delete("net", 1)
    await let_go(tmp_path, [new], "endpoint a")
    assert [record.version for record in await here.versions("net")] == [1, 2], "b still uses the old one"
    await let_go(tmp_path, [], "endpoint b")
    assert [record.version for record in await here.versions("net")] == [2]
    await bring(tmp_path, old, "endpoint c")
    assert [record.version for record in await here.versions("net")] == [1, 2], "it can come back"
    assert len(await open_store(store).versions("net")) == 2, "nothing of that is the store's affair"


async def test_nothing_was_ever_brought(tmp_path: Path) -> None:
    await let_go(tmp_path, [], "endpoint a")
    await bring(tmp_path, ModelReference(name="net", version=1), "endpoint a")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def project(tmp_path: Path, oci_registry: Any) -> Iterator[Project]:
    told = {
        "port": free_ports(1)[0],
        "state": str(tmp_path / "runtime"),
        "store": f"oci://{oci_registry.host}/local-{uuid.uuid4().hex[:8]}",
    }
    made = Project(tmp_path, PROGRAM, **told)
    (made.folder / "code" / "score.py").write_text(SCRIPT)
    (made.folder / "price.json").write_text("[2, 3]")
    try:
        yield made
    finally:
        made.must("destroy", "--yes", "--stack", "dev")
        assert not (tmp_path / "runtime").exists()


async def answer(project: Project) -> dict[str, Any]:
    told = project.outputs()
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            told["uri"], json={"data": [[1, 1]]}, headers={"Authorization": f"Bearer {told['key']}"}
        ) as response,
    ):
        assert response.status == 200, await response.text()
        found: dict[str, Any] = json.loads(await response.text())
        return found


@pytest.mark.long
async def test_a_service_with_a_model_of_a_registry(project: Project) -> None:
    shown = await asyncio.to_thread(project.must, "preview", "--stack", "dev")
    assert "StoredModels" in shown
    await asyncio.to_thread(project.up)
    found = await answer(project)
    assert found["prices"] == [5]
    assert found["root"].endswith("/azureml-models/price/1")
    store = open_store(project.told["store"])
    with pytest.raises(Conflict, match="endpoint shop, version default of t/dev"):
        await store.delete("price", 1)
    (project.folder / "price.json").write_text("[10, 10]")
    await asyncio.to_thread(project.up)
    found = await answer(project)
    assert found["prices"] == [20]
    assert found["root"].endswith("/azureml-models/price/2")
    here = mirror(Path(project.told["state"]), project.told["store"])
    assert [record.version for record in await here.versions("price")] == [2]
    await store.delete("price", 1)
    assert " updated" not in await asyncio.to_thread(project.up)
