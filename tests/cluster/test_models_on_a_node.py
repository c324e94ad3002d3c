"""Models from a registry in pods of a real node: one and several, read-only, compared, protected, changed."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
from bench.servers import of_tests

from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.errors import Conflict
from aks_inference_runtime.models.stores import open_store
from testbed.node import address
from testbed.project import Project
from testbed.registry import PASSWORD, Registry

pytestmark = pytest.mark.long

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService, RegisteredModel

told = json.loads(pathlib.Path("told.json").read_text())
image = told["image"]
runtime = InferenceRuntime(
    "runtime", image=image, kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest",
    model_store=told["store"], model_cache=told["cache"])
price = RegisteredModel("price", target=runtime, model_path="price")
words = RegisteredModel("words", store=told["other"], model_path="words.json")
blob = RegisteredModel("blob", store=told["blob"], model_path="price")
shared = {"target": runtime, "image": image, "model_secret_name": "store-access", "num_replicas": 1,
          "inference_config": {"entry_script": "score.py", "source_directory": "code"}, "scoring_timeout_ms": 5000}
services = {"single": ModelWebService("single", models=[price], **shared),
            "of-blob": ModelWebService("of-blob", models=[blob], **shared)}
if told["several"]:
    services["several"] = ModelWebService("several", models=[price, words], **shared)
if told["by_id"]:
    services["by-id"] = ModelWebService("by-id", models=[told["by_id"]], **shared)
for name, service in services.items():
    pulumi.export(name, {"key": service.primary_key, "state": service.state})
"""
SCRIPT = """
import json, os, pathlib
ROOT = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
def init():
    global files, weights
    files = {str(p.relative_to(ROOT)): p.read_text() for p in sorted(ROOT.rglob("*")) if p.is_file()}
    weights = json.loads(next(text for name, text in files.items() if name.endswith("weights.json")))
def run(data):
    data = json.loads(data)["data"]
    if data == "look":
        place = next(p for p in ROOT.rglob("*") if p.is_file())
        written = []
        for attempt in (place, ROOT / "new"):
            try:
                attempt.write_text("x")
                written.append(str(attempt))
            except OSError:
                pass
        return {"root": str(ROOT), "files": sorted(files), "environment": dict(os.environ), "written": written}
    return [sum(w * x for w, x in zip(weights, row)) for row in data]
"""
ENDPOINTS = f"/apis/{API_VERSION}/namespaces/default/scoringendpoints"
SECRETS = "/api/v1/namespaces/default/secrets"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    running = Registry(tmp_path_factory.mktemp("registry"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def azurite(tmp_path_factory):
    """Where pods reach it."""
    of_models = of_tests("models")
    with of_models.running_azurite(tmp_path_factory.mktemp("azurite"), address()) as running:
        running.container("models")
        yield running


@pytest.fixture(scope="module")
def access(registry, azurite):
    """What the Secret of the pods has."""
    return registry.secret("store-access", **{"connection-string": azurite.connection_string})


@pytest.fixture(scope="module")
def served(node, registry, azurite, access, tmp_path_factory):
    """The applied stack, and the router's address."""
    folder = tmp_path_factory.mktemp("models-served")
    assert node.api.create(SECRETS, access).status == 201
    told = {
        "kubeconfig": str(node.kubeconfig),
        "image": node.with_packages("azure-storage-blob"),
        "blob": f"az://{azurite.account}/models/of-pods",
        "store": f"oci://{registry.host}/models",
        "other": f"oci://{registry.host}/words",
        "cache": str(folder / "node-cache"),
        "several": True,
        "by_id": None,
    }
    project = Project(folder, PROGRAM, **told)
    project.environment |= registry.environment | {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    (project.folder / "code" / "score.py").write_text(SCRIPT)
    (project.folder / "price").mkdir()
    (project.folder / "price" / "weights.json").write_text("[2, 3]")
    (project.folder / "price" / "read me.txt").write_text("sold")
    (project.folder / "words.json").write_text("{}")
    project.up()
    service = node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}").body
    yield project, service["spec"]["clusterIP"]
    project.must("destroy", "--yes", "--stack", "dev")
    node.api.delete(f"{SECRETS}/store-access")
    assert node.api.get("/api/v1/pods").body["items"] == [], "nothing is left"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in registry.environment.items():
            patch.setenv(name, value)
        for store, name in ((told["store"], "price"), (told["other"], "words")):
            assert asyncio.run(open_store(store).versions(name)) == [], "a model goes with its last user"


async def score(served: Any, name: str, data: Any) -> Any:
    project, address = served
    key = project.outputs()[name]["key"]
    uri = f"http://{address}/api/v1/service/{name}/score"
    async with (
        aiohttp.ClientSession() as session,
        session.post(uri, json={"data": data}, headers={"Authorization": f"Bearer {key}"}) as answer,
    ):
        text = await answer.text()
        assert answer.status == 200, text
        return json.loads(text)


async def eventually(holds: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.2)


async def test_the_layout_for_one_and_for_several(served):
    """azureml-v1.md 4.7."""
    assert await score(served, "single", [[1, 1], [10, 0]]) == [5, 20]
    one = await score(served, "single", "look")
    assert one["root"] == "/var/azureml-app/azureml-models/price/1"
    assert one["files"] == ["price/read me.txt", "price/weights.json"]
    several = await score(served, "several", "look")
    assert several["root"] == "/var/azureml-app/azureml-models"
    assert several["files"] == ["price/1/price/read me.txt", "price/1/price/weights.json", "words/1/words.json"]
    assert await score(served, "several", [[1, 2]]) == [8]
    assert await score(served, "of-blob", [[1, 2]]) == [8]
    assert (await score(served, "of-blob", "look"))["root"] == "/var/azureml-app/azureml-models/blob/1"


async def test_the_models_cannot_be_written_and_the_environment_has_no_credentials(node, served, azurite):
    found = await score(served, "several", "look")
    assert found["written"] == []
    hidden = (PASSWORD, azurite.connection_string.split("AccountKey=")[1].split(";")[0])
    assert not any(secret in value for secret in hidden for value in found["environment"].values())
    deployment = json.dumps(node.api.get("/apis/apps/v1/namespaces/default/deployments").body)
    assert not any(secret in deployment for secret in hidden)
    assert "auths" not in deployment


async def test_nodes_fetch_once_and_bytes_that_rot_there_are_not_served(node, served):
    project, _ = served
    cached = list((project.folder.parent / "node-cache").rglob("weights.json"))
    assert len(cached) == 1, "three services, one copy of the same content, wherever it came from"
    cached[0].write_text("[0, 0]")
    (pod,) = [
        p
        for p in node.api.get(PODS, labelSelector=f"{k8s.ENDPOINT_LABEL}=single").body["items"]
        if "deletionTimestamp" not in p["metadata"]
    ]
    node.api.delete(f"{PODS}/{pod['metadata']['name']}")

    def another() -> bool:
        found = node.api.get(PODS, labelSelector=f"{k8s.ENDPOINT_LABEL}=single").body["items"]
        ready = [
            p["metadata"]["uid"]
            for p in found
            if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions") or ())
        ]
        return bool(ready) and pod["metadata"]["uid"] not in ready

    await eventually(another, 90, "another pod")
    assert cached[0].read_text() == "[2, 3]", "fetched anew"
    assert await score(served, "single", [[1, 1]]) == [5]


async def test_other_files_are_the_next_version_and_those_in_use_are_protected(served, registry, monkeypatch):
    project, _ = served
    for name, value in registry.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(project.told["store"])
    with pytest.raises(Conflict, match=r"endpoint several, version default of t/dev .*endpoint single, version"):
        await store.delete("price", 1)
    (project.folder / "price" / "weights.json").write_text("[7, 7]")
    shown = await asyncio.to_thread(project.must, "preview", "--stack", "dev")
    assert "1 file changed (price/weights.json)" in shown
    await asyncio.to_thread(project.up)
    assert await score(served, "single", [[1, 1]]) == [14]
    assert (await score(served, "single", "look"))["root"].endswith("/price/2")
    assert await store.users("price", 1) == [], "nobody uses the version before any more"
    assert len(await store.users("price", 2)) == 2
    again = await asyncio.to_thread(project.up)
    assert " updated" not in again
    assert " created" not in again


async def test_a_model_that_is_not_there_is_refused_in_the_preview(served):
    project, _ = served
    project.told["by_id"] = "price:99"
    try:
        with pytest.raises(AssertionError, match=r"no model price:99 in oci://.*versions of price: 1, 2"):
            await asyncio.to_thread(project.must, "preview", "--stack", "dev")
    finally:
        project.told["by_id"] = None


async def test_a_store_that_refuses_is_told_with_the_log(node, served, access):
    project, _ = served
    secret = f"{SECRETS}/store-access"
    wrong = {**access, "data": {**access["data"], ".dockerconfigjson": "e30="}}  # {}
    assert node.api.delete(secret).status == 200
    assert node.api.create(SECRETS, wrong).status == 201
    (project.folder / "price" / "weights.json").write_text("[1, 1]")
    try:
        with pytest.raises(AssertionError, match=r"(?s)container=models .*no login is known; .* model_secret_name"):
            await asyncio.to_thread(project.up)
        assert await score(served, "single", [[1, 1]]) == [14], "what served before goes on"
    finally:
        assert node.api.delete(secret).status == 200
        assert node.api.create(SECRETS, access).status == 201

    def ready() -> bool:
        found = [node.api.get(f"{ENDPOINTS}/{name}").body["status"] for name in ("single", "several", "of-blob")]
        return all(status["state"] == "Healthy" for status in found)

    # The kubelet renews a mounted Secret within about a minute, and waits longer and longer between two tries.
    await eventually(ready, 300, "the pods fetched their models")
    await asyncio.to_thread(project.up)
    assert await score(served, "single", [[1, 1]]) == [2]
