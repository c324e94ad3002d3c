"""One contract, two targets: answers, split and limits are the same on this machine and on a cluster.

The same program runs against a LocalInferenceCluster and against an InferenceRuntime in pods of a real node; the tests
see only the scoring address and the keys.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from aks_inference_runtime.api import kubernetes as k8s
from testbed.processes import free_ports
from testbed.project import Project

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import ControlledRolloutEndpoint, InferenceRuntime, LocalInferenceCluster, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
if "image" in told:
    runtime = InferenceRuntime("runtime", image=told["image"], kubeconfig=told["kubeconfig"], service_type="ClusterIP",
                               cluster_purpose="DevTest")
    placed = {"image": told["image"]}
else:
    runtime, placed = LocalInferenceCluster("local", port=told["port"], state_directory=told["state"]), {}
config = {"entry_script": "score.py", "source_directory": "code"}
service = ModelWebService("contract", target=runtime, inference_config=config, num_replicas=1, max_queued_requests=2,
                          max_request_wait_time=1000, scoring_timeout_ms=2500, primary_key="contract-key-1",
                          secondary_key="contract-key-2", **placed)
versions = [{"version_name": name, "inference_config": config, "num_replicas": 1, "traffic_percentile": share,
             "max_request_wait_time": 5000, **placed} for name, share in (("blue", 70), ("green", 30))]
split = ControlledRolloutEndpoint("split", target=runtime, versions=versions, primary_key="contract-key-1")
free = ModelWebService("free", target=runtime, inference_config=config, num_replicas=1, auth_enabled=False, **placed)
pulumi.export("state", service.state)
"""
SCRIPT = """
import os
import time
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    pass

@rawhttp
def run(request):
    told = request.get_json(force=True, silent=True) or {}
    time.sleep(told.get("sleep", 0))
    if told.get("die"):
        os._exit(9)
    if told.get("throw"):
        raise ValueError("as asked")
    return AMLResponse(told.get("say", "scored"), told.get("status", 200))
"""
KEY, OTHER_KEY = "contract-key-1", "contract-key-2"


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    version: str
    text: str
    headers: Any
    seconds: float


class Client:
    """Asks the endpoints at one address."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.address, self.session = address, session

    async def score(
        self,
        body: object = None,
        endpoint: str = "contract",
        key: str | None = KEY,
        method: str = "POST",
        **headers: str,
    ) -> Answer:
        sent = {**({"Authorization": f"Bearer {key}"} if key else {}), **headers}
        begun = time.monotonic()
        uri = f"http://{self.address}/api/v1/service/{endpoint}/score"
        async with self.session.request(method, uri, json=body or {}, headers=sent) as answer:
            text = await answer.text()
            told = answer.headers
            return Answer(
                answer.status,
                told.get("x-aks-inference-reason", ""),
                told.get("x-aks-inference-version", ""),
                text,
                told,
                time.monotonic() - begun,
            )


@pytest.fixture(scope="module", params=["local", pytest.param("cluster", marks=pytest.mark.long)])
def address(request, tmp_path_factory):
    """Where the target serves, `host:port`."""
    folder = tmp_path_factory.mktemp("contract")
    if request.param == "local":
        (port,) = free_ports(1)
        told = {"port": port, "state": str(folder / "runtime")}
    else:
        node = request.getfixturevalue("node")
        told = {"image": node.image, "kubeconfig": str(node.kubeconfig)}
    project = Project(folder, PROGRAM, **told)
    (project.folder / "code" / "score.py").write_text(SCRIPT)
    try:
        project.up()
        if request.param == "local":
            yield f"127.0.0.1:{told['port']}"
        else:
            path = f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}"
            yield node.api.get(path).body["spec"]["clusterIP"]
    finally:
        project.must("destroy", "--yes", "--stack", "dev")


@pytest_asyncio.fixture
async def client(address) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(address, session)


async def settled(client: Client) -> None:
    """Until the one replica takes requests again."""
    async with asyncio.timeout(60):
        while (await client.score()).status != 200:
            await asyncio.sleep(0.1)


async def test_both_keys_and_no_other(client):
    for key in (KEY, OTHER_KEY):
        assert (await client.score(key=key)).status == 200
    for key in ("contract-key-3", "", None):
        refused = await client.score(key=key)
        assert (refused.status, refused.reason) == (401, "auth")
    assert (await client.score(endpoint="free", key=None)).status == 200


async def test_what_is_not_there(client):
    unknown = await client.score(endpoint="nobody")
    assert (unknown.status, unknown.reason) == (404, "not-found")
    version = await client.score(endpoint="split", **{"x-aks-inference-version": "purple"})
    assert (version.status, version.reason) == (404, "not-found")


async def test_a_method_that_is_none(client):
    refused = await client.score(method="DELETE")
    assert (refused.status, refused.reason) == (405, "method")


async def test_a_body_above_the_limit(client):
    """By its length, before any of it is read."""
    host, _, port = client.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port or 80))
    head = f"POST /api/v1/service/contract/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}Content-Length: {101_000_000}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"x-aks-inference-reason: too-large" in answer.lower()


@pytest.mark.parametrize("status", [200, 201, 400, 404, 418, 429, 500, 503])
async def test_the_models_own_status_passes_unchanged(client, status):
    answer = await client.score({"status": status, "say": "mine"})
    assert (answer.status, answer.text) == (status, "mine")
    assert answer.version == "default"
    assert answer.reason == ""


async def test_the_bound_of_the_queue(client):
    """One runs, two wait, the rest is refused at once and told when to come back."""
    await settled(client)
    answers = await asyncio.gather(*(client.score({"sleep": 2}) for _ in range(7)))
    refused = [a for a in answers if a.status == 429]
    assert {a.reason for a in refused} == {"queue-full"}
    assert len(refused) >= 3
    assert all(int(a.headers["retry-after"]) >= 1 for a in refused)
    # Before those that wait are given up, after a second.
    assert max(a.seconds for a in refused) < 0.9


async def test_the_deadline_of_the_queue(client):
    await settled(client)
    runs, late = sorted(await asyncio.gather(*[client.score({"sleep": 2}) for _ in range(2)]), key=lambda a: a.status)
    assert runs.status == 200
    assert (late.status, late.reason) == (503, "queue-timeout")
    assert 0.9 < late.seconds < 1.9
    assert "retry-after" in late.headers


async def test_the_scoring_timeout(client):
    """504 at the deadline; the slot comes back when the replica is through, and not before (I1)."""
    await settled(client)
    begun = time.monotonic()
    answer = await client.score({"sleep": 3.2})
    assert (answer.status, answer.reason) == (504, "scoring-timeout")
    assert answer.seconds > 2.3
    await settled(client)
    assert time.monotonic() - begun >= 3.1


async def test_a_replica_that_dies_with_a_request(client):
    await settled(client)
    answer = await client.score({"die": True})
    assert (answer.status, answer.reason) == (502, "replica-lost")
    await settled(client)


async def test_the_split_and_a_version_that_is_asked_for(client):
    """I6, within five standard deviations: outside by chance less than once in 10^6 runs."""
    number, share = 400, 0.7
    seen: Counter[str] = Counter()
    for _ in range(number):
        answer = await client.score(endpoint="split")
        assert answer.status == 200
        seen[answer.version] += 1
    bound = 5 * math.sqrt(number * share * (1 - share)) + 0.5
    assert abs(seen["blue"] - number * share) <= bound
    assert set(seen) == {"blue", "green"}
    for version in ("blue", "green"):
        for _ in range(5):
            asked = await client.score(endpoint="split", **{"x-aks-inference-version": version})
            assert asked.version == version
