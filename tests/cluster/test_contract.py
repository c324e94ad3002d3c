"""One contract, two targets: answers, split and limits are the same on this machine and on a cluster.

The same program runs against a LocalInferenceCluster and against an InferenceRuntime in pods of a real node; the tests
see only the scoring address and the keys.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from chunked_bodies import chunked

from aks_inference_runtime.api import kubernetes as k8s
from testbed.contract import KEY, Answer, Client, Target
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
                          max_request_wait_time=1000, scoring_timeout_ms=2500, primary_key=told["primary"],
                          secondary_key="contract-key-2", **placed)
versions = [{"version_name": name, "inference_config": config, "num_replicas": 1, "traffic_percentile": share,
             "max_request_wait_time": 5000, **placed} for name, share in told["shares"].items()]
split = ControlledRolloutEndpoint("split", target=runtime, versions=versions, primary_key="contract-key-1")
late = {**config, "environment": {"environment_variables": {"START_SECONDS": "3"}}}
slow = ModelWebService("slow", target=runtime, inference_config=late, num_replicas=1, max_request_wait_time=300,
                       primary_key="contract-key-1", **placed)
grows = ModelWebService("grows", target=runtime, inference_config=config, autoscale_enabled=True,
                        autoscale_max_replicas=2, max_request_wait_time=30000, primary_key="contract-key-1", **placed)
pair = ModelWebService("pair", target=runtime, inference_config=config, num_replicas=1, max_request_wait_time=30000,
                       replica_max_concurrent_requests=2, primary_key="contract-key-1", **placed)
for name, starts, waits in (("cold", 2, 60000), ("never", 8, 1000)):
    cold = {**config, "environment": {"environment_variables": {"START_SECONDS": str(starts)}}}
    ModelWebService(name, target=runtime, inference_config=cold, autoscale_enabled=True, scale_to_zero=True,
                    autoscale_max_replicas=1, autoscale_scale_down_delay_seconds=2, max_request_wait_time=300,
                    cold_start_timeout_ms=waits, primary_key="contract-key-1", **placed)
free = ModelWebService("free", target=runtime, inference_config=config, num_replicas=1, auth_enabled=False, **placed)
pulumi.export("state", service.state)
"""
SCRIPT = """
import os
import tempfile
import time
from pathlib import Path
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

ME = os.urandom(8).hex()

def init():
    time.sleep(float(os.environ.get("START_SECONDS", 0)))

@rawhttp
def run(request):
    told = request.get_json(force=True, silent=True) or {}
    time.sleep(told.get("sleep", 0))
    if told.get("die"):
        os._exit(9)
    if told.get("throw"):
        raise ValueError("as asked")
    if told.get("who"):
        return AMLResponse(ME, 200)
    if told.get("count"):
        return AMLResponse(str(at_once()), 200)
    return AMLResponse(told.get("say", "scored"), told.get("status", 200))

def at_once():
    # In all workers of this replica: the most that this request has seen.
    name = f"at-once-{os.getppid()}-"
    folder, most = Path(tempfile.gettempdir()), 0
    mark = folder / f"{name}{os.urandom(8).hex()}"
    mark.touch()
    for _ in range(20):
        most = max(most, len(list(folder.glob(f"{name}*"))))
        time.sleep(0.01)
    mark.unlink()
    return most
"""
OTHER_KEY = "contract-key-2"


@pytest.fixture(scope="module", params=["local", pytest.param("cluster", marks=pytest.mark.long)])
def target(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    if request.param == "local":
        (port,) = free_ports(1)
        told = {"port": port, "state": str(folder / "runtime")}
    else:
        node = request.getfixturevalue("node")
        told = {"image": node.image, "kubeconfig": str(node.kubeconfig)}
    project = Project(folder, PROGRAM, primary=KEY, shares={"blue": 70, "green": 30}, **told)
    (project.folder / "code" / "score.py").write_text(SCRIPT)
    try:
        project.up()
        if request.param == "local":
            yield Target(f"127.0.0.1:{told['port']}", project)
        else:
            path = f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}"
            yield Target(node.api.get(path).body["spec"]["clusterIP"], project)
    finally:
        project.must("destroy", "--yes", "--stack", "dev")


@pytest_asyncio.fixture
async def client(target) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(target.address, session)


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


@pytest.mark.parametrize(
    ("rest", "status", "reason"),
    [
        # By its length, before any of it is read.
        (f"Content-Length: {101_000_000}\r\n\r\n", 413, "too-large"),
        # Of a body that never comes, ten seconds later.
        ("Content-Length: 100\r\n\r\nno more", 408, "client-timeout"),
        # A trailer that frames its body: seen by who alone reads such a body to its end.
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n", 400, "bad-request"),
    ],
    ids=["too large", "too slow", "malformed"],
)
async def test_what_is_no_request_of_ours(client, rest, status, reason):
    await settled(client)
    host, _, port = client.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port or 80))
    head = f"POST /api/v1/service/contract/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}{rest}".encode())
    async with asyncio.timeout(30):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert f"x-aks-inference-reason: {reason}".encode() in answer.lower()


async def test_a_body_of_unknown_length_that_is_too_large(client):
    """Seen by who alone reads such a body: the gate, at the byte above the limit."""
    await settled(client)

    host, _, port = client.address.partition(":")
    answer = await chunked(host, int(port or 80), "contract", KEY, 101)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"x-aks-inference-reason: too-large" in answer
    await settled(client)


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


async def test_no_replica(client):
    """While the only one starts again."""
    async with asyncio.timeout(120):
        while (await client.score(endpoint="slow")).status != 200:
            await asyncio.sleep(0.1)
        assert (await client.score({"die": True}, endpoint="slow")).reason == "replica-lost"
        while (answer := await client.score(endpoint="slow")).reason != "no-replica":
            await asyncio.sleep(0.05)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1


async def test_first_come_first_served(client):
    """I2, of one replica: a tenth of a second apart, which no queue on the way turns round."""
    served: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number / 10)
        asked = {"x-aks-inference-version": "blue"}
        assert (await client.score({"sleep": 0.3}, endpoint="split", **asked)).status == 200
        served.append(number)

    await asyncio.gather(*map(one, range(8)))
    assert served == list(range(8))


async def test_replicas_between_their_bounds(client):
    """I5: the second one comes with the need, a third one never."""
    seen: set[str] = set()

    async def asks() -> None:
        while len(seen) < 2:
            answer = await client.score({"sleep": 0.2, "who": True}, endpoint="grows")
            assert answer.status == 200
            seen.add(answer.text)

    async with asyncio.timeout(120):
        await asyncio.gather(*(asks() for _ in range(6)))
    answers = await asyncio.gather(*(client.score({"sleep": 0.1, "who": True}, endpoint="grows") for _ in range(40)))
    assert {answer.text for answer in answers} == seen


async def test_the_limit_as_the_replica_counts_it(client):
    """I1: as many at once as it takes, of many more that wait, and no more."""
    answers = await asyncio.gather(*(client.score({"count": True}, endpoint="pair") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert max(int(answer.text) for answer in answers) == 2


async def asleep(client: Client, endpoint: str) -> Answer:
    """The answer to who comes once there is no replica: another one than before, or none in time."""
    first: str | None = None
    async with asyncio.timeout(150):
        while True:
            answer = await client.score({"who": True}, endpoint=endpoint)
            if answer.status != 200 or answer.text != (first or answer.text):
                return answer
            first = answer.text
            # Nobody asks meanwhile: that is what it goes by.
            await asyncio.sleep(8)


async def test_who_wakes_a_service_is_served(client):
    """From no replica at all, long after the time that others may wait in the queue."""
    answer = await asleep(client, "cold")
    assert answer.status == 200
    assert answer.seconds > 2


async def test_who_wakes_a_service_waits_no_longer_than_it_may(client):
    answer = await asleep(client, "never")
    assert (answer.status, answer.reason) == (503, "no-replica")
    assert answer.seconds > 0.9
    assert int(answer.headers["retry-after"]) >= 1
    async with asyncio.timeout(120):
        while (await client.score(endpoint="never")).status != 200:
            await asyncio.sleep(0.1)


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


async def test_changes_fail_no_request(client, target):
    """I4: shares and a key, under requests. The last test, as it leaves others behind."""
    over = asyncio.Event()
    answers: Counter[tuple[int, str]] = Counter()

    async def asks(endpoint: str, key: str) -> None:
        while not over.is_set():
            answer = await client.score(endpoint=endpoint, key=key)
            answers[answer.status, answer.reason] += 1
            # What is changed meanwhile needs the machine, too.
            await asyncio.sleep(0.02)

    await settled(client)
    asking = [asyncio.create_task(asks(*who)) for who in (("split", KEY), ("split", KEY), ("contract", OTHER_KEY))]
    target.project.told |= {"primary": "contract-key-3", "shares": {"blue": 0, "green": 100}}
    try:
        await asyncio.to_thread(target.project.up)
    finally:
        over.set()
        await asyncio.gather(*asking)
    assert set(answers) == {(200, "")}, answers
    assert {(await client.score(endpoint="split")).version for _ in range(20)} == {"green"}
    assert (await client.score(key="contract-key-3")).status == 200
    assert (await client.score(key=KEY)).status == 401
