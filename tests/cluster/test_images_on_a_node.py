"""Images on a real node: the runtime's, a service's and a custom one, looked up, built by us, pulled and run."""

import asyncio
import time
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed.images import ImageRegistry
from testbed.project import Project

pytestmark = pytest.mark.long

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", registry={"server": told["registry"], "base_image": told["base"]}, kubeconfig=told["kubeconfig"],
    service_type="ClusterIP", cluster_purpose="DevTest")
built = ModelWebService(
    "built", target=runtime, num_replicas=1, inference_config={
        "entry_script": "score.py", "source_directory": "code",
        "environment": {"pip_packages": ["humanize==4.12.3"], "environment_variables": {"GREETING": "hello"}}})
custom = ModelWebService("custom", target=runtime, num_replicas=1, custom_image={
    "image": told["custom"], "port": 9000, "score_path": "/v2/infer", "health_path": "/ready", "shm_size": "96m",
    "command": ["python3", "/var/azureml-app/custom/server.py"], "environment_variables": {"GREETING": "bonjour"}})
calls = ModelWebService("calls", target=runtime, num_replicas=1, custom_image={
    "image": told["calls"], "port": 9000, "protocol": "grpc",
    "command": ["python3", "/var/azureml-app/calls/server.py"]})
for name, service in (("built", built), ("custom", custom), ("calls", calls)):
    pulumi.export(name, {"key": service.primary_key, "state": service.state, "uri": service.scoring_uri})
"""
SCRIPT = """
import humanize, os
def init():
    pass
def run(data):
    return [os.environ["GREETING"], humanize.intcomma(1234567), {mark!r}]
"""
SERVER = """
import http.server, json, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(200 if self.path == "/ready" else 404, "")
    def do_POST(self):
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        shared = os.statvfs("/dev/shm")
        where = [self.path.split("?")[0], os.environ["GREETING"], os.getuid(), shared.f_blocks * shared.f_frsize]
        told = json.dumps([*where, json.loads(asked)])
        self.answer(200, told)
http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Handler).serve_forever()
"""
GRPC_SERVER = """
import os, signal
from concurrent import futures
import grpc
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
def score(request, context):
    context.set_trailing_metadata((("x-uid", str(os.getuid())),))
    return request[::-1]
def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number
server = grpc.server(futures.ThreadPoolExecutor(4))
methods = {"Score": grpc.unary_unary_rpc_method_handler(score), "Count": grpc.unary_stream_rpc_method_handler(count)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own.Model", methods),))
server.add_insecure_port("0.0.0.0:9000")
server.start()
server.wait_for_termination()
"""
DEADLINE_S = 90


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    running = ImageRegistry(tmp_path_factory.mktemp("image-registry"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def served(node, registry, tmp_path_factory):
    """The applied stack, what the preview and the first update said, and the router's address."""
    folder = tmp_path_factory.mktemp("images")
    base = registry.push_base()
    custom = registry.push_server(base, folder, "custom", {"server.py": SERVER})
    calls = registry.push_server(base, folder, "calls", {"server.py": GRPC_SERVER}, ["grpcio"])
    images = {"base": base, "custom": custom, "calls": calls}
    project = Project(folder, PROGRAM, kubeconfig=str(node.kubeconfig), registry=registry.host, **images)
    project.environment["XDG_CACHE_HOME"] = str(folder / "cache")
    project.write(SCRIPT.format(mark="first"))
    previewed = project.must("preview", "--stack", "dev")
    applied = project.up()
    service = node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}").body
    yield project, previewed, applied, service["spec"]["clusterIP"]
    project.must("destroy", "--yes", "--stack", "dev")
    assert node.api.get("/api/v1/pods").body["items"] == [], "nothing is left"


async def score(address: str, name: str, key: str, data: object) -> Any:
    """The answer of a service as soon as there is one."""
    deadline = time.monotonic() + DEADLINE_S
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.post(
                f"http://{address}/api/v1/service/{name}/score", json=data, headers=headers
            ) as answer:
                if answer.status == 200:
                    return await answer.json(content_type=None)
                assert time.monotonic() < deadline, (answer.status, await answer.text())
            await asyncio.sleep(0.2)


async def test_found_or_built_said_before_and_run(served):
    project, previewed, _, address = served
    told = project.outputs()
    assert "will build: about 2 packages; application: 2 files" in previewed
    assert (told["built"]["state"], told["custom"]["state"]) == ("Healthy", "Healthy")
    assert await score(address, "built", told["built"]["key"], {}) == ["hello", "1,234,567", "first"]


async def test_a_custom_image_answers_behind_the_router(served):
    project, _, _, address = served
    key = project.outputs()["custom"]["key"]
    told = await score(address, "custom", key, {"a": [1]})
    assert told == ["/v2/infer", "bonjour", 10_001, 96 * 2**20, {"a": [1]}]
    uri = f"http://{address}/api/v1/service/custom/score"
    async with aiohttp.ClientSession() as session, session.post(uri, json={}) as answer:
        assert (answer.status, answer.headers["x-aks-inference-reason"]) == (401, "auth")


async def test_a_container_that_speaks_grpc(served):
    project, _, _, address = served
    told = project.outputs()["calls"]
    assert told["state"] == "Healthy"
    assert told["uri"].startswith("grpc://")
    assert told["uri"].endswith(":80/calls")
    named = (("x-aks-inference-endpoint", "calls"),)
    keyed = (*named, ("authorization", f"Bearer {told['key']}"))
    async with grpc.aio.insecure_channel(f"{address}:80") as channel:
        score = channel.unary_unary("/own.Model/Score")
        call = score(b"abc", metadata=keyed, timeout=DEADLINE_S, wait_for_ready=True)
        assert await call == b"cba"
        assert ("x-uid", "10001") in list(await call.trailing_metadata())
        count = channel.unary_stream("/own.Model/Count")(b"3", metadata=keyed, timeout=DEADLINE_S)
        assert [part async for part in count] == [b"0", b"1", b"2"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await score(b"abc", metadata=named, timeout=DEADLINE_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_runtime_runs_from_its_own_image(node, served):
    pods = node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/pods").body["items"]
    images = {container["image"] for pod in pods for container in pod["spec"]["containers"]}
    (image,) = images
    assert "/aks-inference/runtime:" in image


def test_again_changes_nothing(served):
    project, *_ = served
    shown = project.up()
    assert " updated" not in shown
    assert " created" not in shown


async def test_another_script_is_a_small_layer(served):
    """The environment stays, and the preview says where it is."""
    project, _, _, address = served
    key = project.outputs()["built"]["key"]
    project.write(SCRIPT.format(mark="second"))
    previewed = await asyncio.to_thread(project.must, "preview", "--stack", "dev")
    assert "environment image found in 127.0.0.1:" in previewed
    shown = await asyncio.to_thread(project.up)
    assert "sent 0.0 MB" in shown
    deadline = time.monotonic() + DEADLINE_S
    while (await score(address, "built", key, {}))[2] != "second":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
