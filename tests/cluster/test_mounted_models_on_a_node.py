"""Models as image volumes on a real node: its containerd pulls and mounts them, and a replica scores from them."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed.images import ImageRegistry
from testbed.project import Project

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService, RegisteredModel

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", image=told["image"], kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest",
    model_store=told["store"], model_volumes=True)
price = RegisteredModel("price", target=runtime, model_path="price")
words = RegisteredModel("words", target=runtime, model_path="words.json")
shared = {"target": runtime, "image": told["image"], "num_replicas": 1,
          "inference_config": {"entry_script": "score.py", "source_directory": "code"}}
for name, models in (("single", [price]), ("several", [price, words])):
    service = ModelWebService(name, models=models, **shared)
    pulumi.export(name, {"key": service.primary_key, "state": service.state})
"""
SCRIPT = """
import json, os, pathlib
ROOT = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
def init():
    pass
def run(data):
    files = {str(p.relative_to(ROOT)): p.stat().st_size for p in sorted(ROOT.rglob("*")) if p.is_file()}
    place, written = next(p for p in ROOT.rglob("*") if p.is_file()), []
    for attempt in (place, place.parent / "new"):
        try:
            attempt.write_text("x")
            written.append(str(attempt))
        except OSError:
            pass
    weights = next(p for p in ROOT.rglob("weights.json"))
    return {"root": str(ROOT), "files": files, "written": written, "weights": json.loads(weights.read_text())}
"""
ODD = "read me \u00fc \u6f22\nof two lines.txt"
PODS = "/api/v1/namespaces/default/pods"
DEADLINE_S = 120


@pytest.fixture(scope="module")
def served(newer_node, tmp_path_factory):
    """The applied stack, what its preview said, and the router's address."""
    folder = tmp_path_factory.mktemp("mounted")
    registry = ImageRegistry(folder)
    try:
        project = Project(
            folder,
            PROGRAM,
            kubeconfig=str(newer_node.kubeconfig),
            image=newer_node.image,
            store=f"oci://{registry.host}/models",
        )
        project.write(SCRIPT)
        (project.folder / "price").mkdir()
        (project.folder / "price" / "weights.json").write_text("[2, 3]")
        (project.folder / "price" / ODD).write_text("sold")
        with (project.folder / "price" / "sparse.bin").open("wb") as file:
            file.truncate(64 * 1024 * 1024)
        (project.folder / "words.json").write_text("{}")
        previewed = project.must("preview", "--stack", "dev")
        project.up()
        service = newer_node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}").body
        yield project, previewed, service["spec"]["clusterIP"]
        project.must("destroy", "--yes", "--stack", "dev")
        assert newer_node.api.get("/api/v1/pods").body["items"] == [], "nothing is left"
    finally:
        registry.stop()


async def score(served: Any, name: str) -> Any:
    project, _, address = served
    headers = {"Authorization": f"Bearer {project.outputs()[name]['key']}"}
    uri = f"http://{address}/api/v1/service/{name}/score"
    async with aiohttp.ClientSession() as session, session.post(uri, json={}, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        return json.loads(text)


async def test_the_script_finds_them_where_an_init_container_would_put_them(newer_node, served):
    """azureml-v1.md 4.7; the names of files are as they were."""
    _, previewed, _ = served
    assert "replicas on some nodes will not start" not in previewed
    price = {f"price/{ODD}": 4, "price/sparse.bin": 64 * 1024 * 1024, "price/weights.json": 6}
    one = await score(served, "single")
    assert (one["root"], one["files"]) == ("/var/azureml-app/azureml-models/price/1", price)
    several = await score(served, "several")
    assert several["root"] == "/var/azureml-app/azureml-models"
    assert several["files"] == {**{f"price/1/{name}": size for name, size in price.items()}, "words/1/words.json": 2}
    assert (one["weights"], several["weights"]) == ([2, 3], [2, 3])
    assert one["written"] == several["written"] == [], "they can only be read"
    for pod in newer_node.api.get(PODS).body["items"]:
        assert [container["name"] for container in pod["spec"]["initContainers"]] == ["gate"]
        assert not [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume]


async def test_another_content_is_another_version_mounted(newer_node, served):
    project, *_ = served
    (project.folder / "price" / "weights.json").write_text("[7, 7]")
    assert "1 file changed (price/weights.json)" in await asyncio.to_thread(project.must, "preview", "--stack", "dev")
    await asyncio.to_thread(project.up)
    deadline = time.monotonic() + DEADLINE_S
    while (one := await score(served, "single"))["weights"] != [7, 7]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    assert one["root"] == "/var/azureml-app/azureml-models/price/2"
    again = await asyncio.to_thread(project.up)
    assert " updated" not in again
    assert " created" not in again
