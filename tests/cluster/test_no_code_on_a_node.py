"""Models without an entry script on a real node: scikit-learn, ONNX and TensorFlow, each in an image that is built."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bench.servers import of_tests
from example_models import TRIPLE, doubling_model

from aks_inference_runtime.api import kubernetes as k8s
from testbed.images import ImageRegistry
from testbed.project import Project
from testbed.registry import Registry

# TensorFlow is an image of 1.6 GB: packed, pushed, pulled and unpacked on a machine of two cores.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
TENSORFLOW = "2.21.0"

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService, RegisteredModel

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", image=told["image"], registry={"server": told["registry"], "base_image": told["base"]},
    kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest", model_store=told["store"],
    model_cache="")
for name, (path, framework, version) in told["models"].items():
    model = RegisteredModel(
        name, target=runtime, model_path=path, model_framework=framework, model_framework_version=version,
        resource_configuration={"cpu": 0.2, "memory_in_gb": 1.5})
    service = ModelWebService(
        name, target=runtime, models=[model], model_secret_name="store-access", num_replicas=1,
        scoring_timeout_ms=20_000)
    pulumi.export(name, {"key": service.primary_key, "state": service.state})
"""
LINE = "import joblib, sys; from sklearn.linear_model import LinearRegression as L; "
LINE += "joblib.dump(L().fit([[0.0], [1.0]], [1.0, 3.0]), sys.argv[1])"
SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture(scope="module")
def served(node, tmp_path_factory):
    """The applied stack and the router's address."""
    folder = tmp_path_factory.mktemp("no-code")
    for name in ("images", "models"):
        (folder / name).mkdir()
    images, models = ImageRegistry(folder / "images"), Registry(folder / "models")
    try:
        project = Project(folder, PROGRAM, kubeconfig=str(node.kubeconfig), image=node.image, registry=images.host)
        project.told |= {"base": images.push_base(), "store": f"oci://{models.host}/models"}
        project.environment |= {"XDG_CACHE_HOME": str(folder / "cache"), **models.environment}
        project.told["models"] = save_models(project.folder)
        assert node.api.create(SECRETS, models.secret("store-access")).status == 201
        shown = project.must("preview", "--stack", "dev")
        assert "will build: about" in shown
        project.up()
        service = node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}").body
        yield project, service["spec"]["clusterIP"]
        project.must("destroy", "--yes", "--stack", "dev")
        node.api.delete(f"{SECRETS}/store-access")
        assert node.api.get("/api/v1/pods").body["items"] == [], "nothing is left"
    finally:
        models.stop()
        images.stop()


def save_models(folder: Path) -> dict[str, tuple[str, str, str | None]]:
    """Path, framework and version of each model, which the programs that people train with have saved."""
    (folder / "both").mkdir()
    (folder / "both" / "double.onnx").write_bytes(doubling_model())
    (folder / "double.onnx").write_bytes(doubling_model())
    subprocess.run([sys.executable, "-c", LINE, str(folder / "both" / "line.joblib")], check=True)
    tensorflow = of_tests("models").python_with(f"tensorflow-cpu=={TENSORFLOW}")
    subprocess.run([tensorflow, "-c", TRIPLE, str(folder / "triple")], check=True, capture_output=True)
    return {
        "double": ("double.onnx", "Onnx", "1.3"),
        "both": ("both", "Multi", None),
        "triple": ("triple", "TensorFlow", TENSORFLOW),
    }


async def score(served: Any, name: str, body: Any) -> Any:
    project, address = served
    headers = {"Authorization": f"Bearer {project.outputs()[name]['key']}"}
    uri = f"http://{address}/api/v1/service/{name}/score"
    async with aiohttp.ClientSession() as session, session.post(uri, json=body, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        return json.loads(text)


async def test_each_framework_answers(served):
    assert await score(served, "double", {"data": [[1, 2], [3, 4]]}) == {"y": [[2.0, 4.0], [6.0, 8.0]]}
    line = await score(served, "both", {"data": [[4.0]], "model": "line.joblib"})
    assert line == pytest.approx([9.0])
    assert await score(served, "both", {"data": [[1, 2]], "model": "double.onnx"}) == {"y": [[2.0, 4.0]]}
    assert await score(served, "triple", {"data": [1, 2]}) == {"y": [3.0, 6.0]}


async def test_again_changes_nothing(served):
    shown = await asyncio.to_thread(served[0].up)
    assert " updated" not in shown
    assert " created" not in shown
