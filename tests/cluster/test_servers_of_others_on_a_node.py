"""Servers that people run models with, each from its own packages: `custom_image` on a real node, behind the router."""

import asyncio
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed import open_inference
from testbed.images import ImageRegistry
from testbed.project import Project
from testbed.registry import Registry

# Each is an image of some hundred MB: fetched, packed, pushed, pulled and unpacked on a machine of two cores.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService, RegisteredModel

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", image=told["image"], kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest",
    model_store=told["store"], model_cache="")
models = {path: RegisteredModel(path, target=runtime, model_path=path) for path in told["models"]}
for name, custom in told["services"].items():
    with_models = {"models": list(models.values()), "model_secret_name": "store-access"} if models else {}
    service = ModelWebService(
        name, target=runtime, num_replicas=1, custom_image=custom, memory_gb=0.5, scoring_timeout_ms=20_000,
        **with_models)
    pulumi.export(name, {"key": service.primary_key, "state": service.state})
"""
SECRETS = "/api/v1/namespaces/default/secrets"
DEADLINE_S = 90
DOUBLED = [2.0, 4.0, 6.0]
V1 = {"instances": [[1.0, 2.0, 3.0]]}
V2 = {"inputs": [{"name": "rows", "datatype": "FP64", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}]}
V2_PATH = {"score_path": "/v2/models/doubled/infer"}
READY = {"health_path": "/v2/health/ready"}
GRPC = {"protocol": "grpc"}


@dataclass(frozen=True)
class Server:
    """A server of somebody else's, and the services that run from its image."""

    packages: tuple[str, ...]
    services: Mapping[str, Mapping[str, Any]]
    """Their `custom_image` without the image."""
    files: Mapping[str, str] = field(default_factory=dict)
    """In its image, in `/var/azureml-app/server`."""
    model: Mapping[str, str] = field(default_factory=dict)
    """Files of the model `repository`, which comes to the pod by itself."""


MLSERVER_MODEL = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import decode_args


class Doubled(MLModel):
    @decode_args
    async def predict(self, rows: np.ndarray) -> np.ndarray:
        return rows * 2
"""
MLSERVER = {
    # `/v2/health/ready` says yes before it has looked for models.
    "health_path": "/v2/models/doubled/ready",
    "command": ["mlserver", "start", "$(AZUREML_MODEL_DIR)"],
    "environment_variables": {"MLSERVER_METRICS_DIR": "/tmp", "MLSERVER_ENVIRONMENTS_DIR": "/tmp"},
}
KSERVE_SERVER = """
import kserve
from kserve import InferOutput, InferResponse


class Doubled(kserve.Model):
    def __init__(self):
        super().__init__("doubled")
        self.ready = True

    def predict(self, payload, headers=None, **more):
        if isinstance(payload, dict):
            return {"predictions": [[2 * value for value in row] for row in payload["instances"]]}
        (rows,) = payload.inputs
        output = InferOutput("rows", rows.shape, rows.datatype, [2 * float(value) for value in rows.as_numpy().flat])
        return InferResponse(payload.id or "1", self.name, [output])


kserve.ModelServer(workers=1).start([Doubled()])
"""
KSERVE = {"port": 8080, "command": ["python", "/var/azureml-app/server/server.py"], **READY}
BENTOML_SERVICE = """
import bentoml


@bentoml.service(workers=1)
class Doubled:
    @bentoml.api
    def score(self, rows: list[list[float]]) -> list[list[float]]:
        return [[2 * value for value in row] for row in rows]
"""
BENTOML = {
    "port": 3000,
    "score_path": "/score",
    "health_path": "/readyz",
    "command": ["bentoml", "serve", "service:Doubled", "--working-dir", "/var/azureml-app/server"],
    "environment_variables": {"BENTOML_HOME": "/tmp/bentoml", "BENTOML_DO_NOT_TRACK": "True"},
}
TRITON_MODEL = """
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests):
        asked = [triton.get_input_tensor_by_name(request, "rows").as_numpy() for request in requests]
        return [triton.InferenceResponse([triton.Tensor("doubled", rows * 2)]) for rows in asked]
"""
TRITON_CONFIG = """
name: "doubled"
backend: "python"
input [{ name: "rows", data_type: TYPE_FP64, dims: [-1, -1] }]
output [{ name: "doubled", data_type: TYPE_FP64, dims: [-1, -1] }]
instance_group [{ kind: KIND_CPU }]
"""
TRITON_START = """
packages=$VIRTUAL_ENV/lib/python3.11/site-packages
server=$packages/pytriton/tritonserver
mkdir /tmp/backends && cp -r $server/backends/python /tmp/backends/
cp $server/python_backend_stubs/3.11/triton_python_backend_stub /tmp/backends/python/
export LD_LIBRARY_PATH=$packages/nvidia_pytriton.libs
exec $server/bin/tritonserver --model-repository=$AZUREML_MODEL_DIR/repository --backend-directory=/tmp/backends
"""
"""As `tritonserver --model-repository=…` of its image: the wheel has the parts in other places."""
TRITON = {"command": ["sh", "-e", "-c", TRITON_START], "shm_size": "256m"}
SERVERS = {
    "mlserver": Server(
        # Its workers end at newer loops: they look for one where none runs.
        ("mlserver==1.7.1", "uvloop<0.22"),
        {
            "mlserver": {"port": 8080, **V2_PATH, **MLSERVER},
            "mlserver-grpc": {"port": 8081, **GRPC, "health_port": 8080, **MLSERVER},
        },
        model={
            "model-settings.json": '{"name": "doubled", "implementation": "doubled_model.Doubled"}',
            "doubled_model.py": MLSERVER_MODEL,
        },
    ),
    "kserve": Server(
        ("kserve==0.21.0",),
        {
            "kserve-v1": {"score_path": "/v1/models/doubled:predict", **KSERVE},
            "kserve-v2": {**V2_PATH, **KSERVE},
        },
        files={"server.py": KSERVE_SERVER},
    ),
    "bentoml": Server(("bentoml==1.4.39",), {"bentoml": BENTOML}, files={"service.py": BENTOML_SERVICE}),
    "triton": Server(
        ("nvidia-pytriton==0.7.0",),
        {"triton": {"port": 8000, **V2_PATH, **READY, **TRITON}, "triton-grpc": {"port": 8001, **GRPC, **TRITON}},
        model={"doubled/config.pbtxt": TRITON_CONFIG, "doubled/1/model.py": TRITON_MODEL},
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    running = ImageRegistry(tmp_path_factory.mktemp("image-registry"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def applied(node, until, images, tmp_path_factory):
    """The runtime without services, and the router's address."""
    folder = tmp_path_factory.mktemp("servers")
    (folder / "models").mkdir()
    models = Registry(folder / "models")
    try:
        told = {"image": node.image, "store": f"oci://{models.host}/models", "models": [], "services": {}}
        project = Project(folder, PROGRAM, kubeconfig=str(node.kubeconfig), **told)
        project.environment |= models.environment
        assert node.api.create(SECRETS, models.secret("store-access")).status == 201
        project.up()
        service = node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}").body
        yield project, service["spec"]["clusterIP"]
        project.must("destroy", "--yes", "--stack", "dev")
        node.api.delete(f"{SECRETS}/store-access")
        # Their grace is that of the longest score, and some of these servers take their time.
        until(lambda: node.api.get("/api/v1/pods").body["items"] == [], 60)
    finally:
        models.stop()


NO_LIBRARY = "the node's base image lacks libpython3.11.so.1.0, which Triton's stub for models in Python needs"


NO_GPU = "vLLM's packages are built for GPUs; its protocol: tests/router/test_router_protocols.py"


@pytest.fixture(
    params=[
        *(name for name in SERVERS if name != "triton"),
        pytest.param("triton", marks=pytest.mark.skip(NO_LIBRARY)),
        pytest.param("vllm", marks=pytest.mark.skip(NO_GPU)),
    ]
)
async def served(request, applied, images, tmp_path):
    """The services of one server and the router's address; the one before is gone."""
    project, address = applied
    server: Server = SERVERS[request.param]
    base = await asyncio.to_thread(images.push_base)
    image = await asyncio.to_thread(images.push_server, base, tmp_path, "server", server.files, server.packages)
    project.told["services"] = {name: {"image": image, **custom} for name, custom in server.services.items()}
    project.told["models"] = ["repository"] if server.model else []
    repository = project.folder / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    for name, text in server.model.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    await asyncio.to_thread(project.up)
    told = await asyncio.to_thread(project.outputs)
    assert {name: told[name]["state"] for name in server.services} == dict.fromkeys(server.services, "Healthy")
    return {name: told[name]["key"] for name in server.services}, address


async def test_answers_behind_the_router(served):
    keys, address = served
    for name, key in keys.items():
        if name.endswith("-grpc"):
            await _calls(address, name, key)
        else:
            await _scores(address, name, key)


async def _scores(address: str, name: str, key: str) -> None:
    asked: Any = V1 if name.endswith("-v1") else V2
    if name == "bentoml":
        asked = {"rows": V1["instances"]}
    uri, headers = f"http://{address}/api/v1/service/{name}/score", {"Authorization": f"Bearer {key}"}
    deadline = time.monotonic() + DEADLINE_S
    async with aiohttp.ClientSession() as session:
        async with session.post(uri, json=asked) as answer:
            assert (answer.status, answer.headers["x-aks-inference-reason"]) == (401, "auth")
        while True:
            async with session.post(uri, json=asked, headers=headers) as answer:
                got = await answer.json(content_type=None) if answer.status == 200 else await answer.text()
                if answer.status == 200:
                    break
                assert answer.status == 503, (answer.status, got)
                assert time.monotonic() < deadline, got
            await asyncio.sleep(0.2)
    if name == "bentoml":
        assert got == [DOUBLED]
    elif asked is V1:
        assert got["predictions"] == [DOUBLED]
    else:
        assert got["outputs"][0]["data"] == DOUBLED


async def _calls(address: str, name: str, key: str) -> None:
    named = (("x-aks-inference-endpoint", name),)
    keyed = (*named, ("authorization", f"Bearer {key}"))
    async with grpc.aio.insecure_channel(f"{address}:80") as channel:
        infer = channel.unary_unary(open_inference.INFER)
        request = open_inference.asked("doubled", "rows", [[1.0, 2.0, 3.0]])
        answer = await infer(request, metadata=keyed, timeout=DEADLINE_S, wait_for_ready=True)
        assert open_inference.answered(answer) == DOUBLED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(request, metadata=named, timeout=DEADLINE_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
