"""The whole runtime in pods of a real node: declared, applied, scored under load while it is changed, destroyed."""

import asyncio
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import API_VERSION
from testbed.project import Project

pytestmark = pytest.mark.long

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import ControlledRolloutEndpoint, InferenceRuntime, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
image = told["image"]
runtime = InferenceRuntime(
    "runtime", image=image, kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest"
)
config = {"entry_script": "score.py", "source_directory": "code"}
service = ModelWebService(
    "churn", target=runtime, image=image, inference_config=config, max_request_wait_time=3000,
    key_version=told["key_version"], **told["scaling"])
rollout = ControlledRolloutEndpoint("fraud", target=runtime, versions=[
    {"version_name": "blue", "image": image, "inference_config": config, "traffic_percentile": 80, "num_replicas": 1},
    {"version_name": "green", "image": image, "inference_config": config, "traffic_percentile": 20,
     "num_replicas": 1}])
counted = ModelWebService(
    "counted", target=runtime, num_replicas=2, replica_max_concurrent_requests=2, max_request_wait_time=5000,
    custom_image={"image": image, "port": 9000, "score_path": "/score", "health_path": "/",
                  "command": ["python", "-c", told["counting"]]})
for name, component in (("churn", service), ("fraud", rollout), ("counted", counted)):
    pulumi.export(name, {"uri": component.scoring_uri, "primary": component.primary_key, "state": component.state})
"""
SCRIPT = """
import time
def init():
    pass
def run(data):
    time.sleep(0.03)
    return {mark!r}
"""
SCALED = {"autoscale_enabled": True, "autoscale_max_replicas": 4, "autoscale_scale_down_delay_seconds": 5}
COUNTING = """
import asyncio
from aiohttp import web

class Counts:
    now = most = 0

async def healthy(request):
    return web.Response()

async def score(request):
    Counts.now += 1
    Counts.most = max(Counts.most, Counts.now)
    await asyncio.sleep(0.1)
    Counts.now -= 1
    return web.Response(text=str(Counts.most))

app = web.Application()
app.add_routes([web.get("/", healthy), web.post("/score", score)])
web.run_app(app, port=9000)
"""
"""It answers how many it has had at once at the most: nothing of its own keeps it to a number."""
AT_ONCE, COUNTING_CLIENTS, COUNTING_PAUSE_S = 2, 8, 0.18
"""Of each of its two replicas. The clients come to 70 % of what those bear: 0.1 s of the server's, then a pause."""
ONE_OF_EACH = ("router", "autoscaler", "churn", "fraud blue", "fraud green", "counted", "counted")
ENDPOINTS = f"/apis/{API_VERSION}/namespaces/default/scoringendpoints"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


@dataclass
class Load:
    """Clients that score one after the other, and what they were answered."""

    answers: collections.Counter[tuple[int, str]] = field(default_factory=collections.Counter)
    texts: collections.Counter[str] = field(default_factory=collections.Counter)
    versions: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def failed(self) -> dict[tuple[int, str], int]:
        return {key: count for key, count in self.answers.items() if key[0] != 200}


@contextlib.asynccontextmanager
async def loaded(address: str, name: str, key: str, clients: int, pause_s: float = 0.0) -> AsyncIterator[Load]:
    """Load until the block ends."""
    load, over = Load(), asyncio.Event()
    uri = f"http://{address}/api/v1/service/{name}/score"

    async def client(session: aiohttp.ClientSession) -> None:
        while not over.is_set():
            try:
                async with session.post(uri, json={}, headers={"Authorization": f"Bearer {key}"}) as answer:
                    text = await answer.text()
                    load.answers[answer.status, answer.headers.get("x-aks-inference-reason", "")] += 1
                    load.texts[text] += 1
                    load.versions[answer.headers.get("x-aks-inference-version", "")] += 1
            except aiohttp.ClientError as error:
                load.answers[0, type(error).__name__] += 1
            await asyncio.sleep(pause_s)

    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(client(session)) for _ in range(clients)]
        try:
            yield load
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def eventually(holds: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def served(node, tmp_path_factory):
    """The applied stack, and the router's address."""
    project = Project(
        tmp_path_factory.mktemp("served"), PROGRAM, kubeconfig=str(node.kubeconfig), image=node.image, key_version=1,
        scaling=SCALED,
        counting=COUNTING,
    )  # fmt: skip
    (project.folder / "code" / "score.py").write_text(SCRIPT.format(mark="first"))
    project.up()
    service = node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}").body
    yield project, service["spec"]["clusterIP"]
    project.must("destroy", "--yes", "--stack", "dev")
    pods = node.api.get("/api/v1/pods").body["items"]
    assert [p["metadata"]["name"] for p in pods] == [], "nothing is left"


def replicas(node: Any, name: str) -> int:
    return int(node.api.get(f"{DEPLOYMENTS}/{name}").body["status"].get("readyReplicas", 0))


def lasting(node: Any) -> set[str]:
    """The pods that are not on their way out."""
    pods = node.api.get("/api/v1/pods").body["items"]
    return {p["metadata"]["uid"] for p in pods if "deletionTimestamp" not in p["metadata"]}


async def test_scored_with_the_key_alone(node, served):
    project, address = served
    told = project.outputs()
    assert told["churn"]["state"] == "Healthy"
    assert told["churn"]["uri"].endswith("/api/v1/service/churn/score")
    async with loaded(address, "fraud", told["fraud"]["primary"], clients=2) as load:
        await asyncio.sleep(6)
    assert not load.failed
    total = sum(load.versions.values())
    assert set(load.versions) == {"blue", "green"}
    assert 0.05 < load.versions["green"] / total < 0.4
    async with loaded(address, "churn", "not-the-key", clients=1, pause_s=0.1) as load:
        await asyncio.sleep(1)
    assert set(load.answers) == {(401, "auth")}
    status = node.api.get(f"{ENDPOINTS}/fraud").body["status"]
    assert {v["name"]: v["traffic"] for v in status["versions"]} == {"blue": 80, "green": 20}


def told(node: Any, *arguments: str) -> str:
    command = Path(sys.executable).with_name("aks-inference")
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [command, "--kubeconfig", str(node.kubeconfig), *arguments],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_people_and_prometheus_see_it(node, served):
    project, address = served
    async with loaded(address, "churn", project.outputs()["churn"]["primary"], clients=1) as load:
        await eventually(lambda: sum(load.answers.values()) >= 5, 30, "five answers")
    view = json.loads(await asyncio.to_thread(told, node, "--json", "status", "churn"))
    assert view["state"] == "Healthy"
    replica = view["versions"][0]["replicas"][0]
    assert replica["state"] == "Ready"
    lines = await asyncio.to_thread(told, node, "logs", "churn", "--replica", replica["id"])
    assert f"default/{replica['id']} " in lines
    assert "churn" in await asyncio.to_thread(told, node, "top")
    url = f"http://{replica['address']}:{k8s.GATE_READY_PORT}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        metrics = await answer.text()
    assert 'aks_inference_answers_total{endpoint="churn",version="default",code="200",reason=""}' in metrics
    path = f"/api/v1/namespaces/default/pods/{replica['id']}/log"
    logged = node.api.get(path, container="gate", tailLines="5").body["message"]
    assert json.loads(logged.splitlines()[-1])["endpoint"] == "churn"
    events = node.api.get("/apis/events.k8s.io/v1/namespaces/default/events").body["items"]
    about = {(e["regarding"]["name"], e["reason"]) for e in events if e["regarding"].get("kind") == "ScoringEndpoint"}
    assert {("churn", "Healthy"), ("fraud", "Healthy")} <= about


async def test_replicas_follow_the_load(node, served):
    project, address = served
    key = project.outputs()["churn"]["primary"]
    async with loaded(address, "churn", key, clients=6) as load:
        await eventually(lambda: replicas(node, "churn-default") >= 3, 60, "three replicas")
    assert set(load.failed) <= {(503, "queue-timeout")}
    await eventually(lambda: replicas(node, "churn-default") == 1, 60, "one replica again")


async def test_a_fixed_number_becomes_autoscaled_and_back(node, served):
    """The number that there is stays until less is needed for as long as the delay says; nobody sees a change."""
    project, address = served
    delay_s, fixed = 15, 3
    seen: list[tuple[float, bool, int]] = []
    over = asyncio.Event()

    def look() -> tuple[bool, int]:
        (version,) = node.api.get(f"{ENDPOINTS}/churn").body["spec"]["versions"]
        scaling = version.get("scaling") or {}
        wanted = node.api.get(f"{DEPLOYMENTS}/churn-default").body["spec"]["replicas"]
        return bool(scaling.get("autoscaleEnabled", True)), int(wanted)

    async def watch() -> None:
        while not over.is_set():
            seen.append((time.monotonic(), *await asyncio.to_thread(look)))
            await asyncio.sleep(0.05)

    async def apply(**scaling: Any) -> None:
        project.told["scaling"] = scaling
        await asyncio.to_thread(project.up)

    key = project.outputs()["churn"]["primary"]
    # Less than one replica's work: no need holds the number.
    async with loaded(address, "churn", key, clients=1, pause_s=0.1) as load:
        await apply(num_replicas=fixed)
        await eventually(lambda: replicas(node, "churn-default") == fixed, 60, "the fixed number")
        watching = asyncio.create_task(watch())
        try:
            await apply(**{**SCALED, "autoscale_scale_down_delay_seconds": delay_s})
            await eventually(lambda: look()[1] < fixed, 120, "less, as less is needed")
            await apply(num_replicas=fixed)
            await eventually(lambda: replicas(node, "churn-default") == fixed, 60, "the fixed number again")
        finally:
            over.set()
            await watching
    assert not load.failed
    switched = next(at for at, scaled, _ in seen if scaled)
    fell = next(at for at, _, wanted in seen if wanted < fixed)
    assert fell - switched > delay_s - 2, "not before the delay; two seconds for who looks"
    assert [scaled for at, scaled, _ in seen if at == fell] == [True]
    await apply(**SCALED)
    await eventually(lambda: replicas(node, "churn-default") == 1, 60, "one replica again")


async def test_changes_fail_no_request(node, served):
    """I4: another script, which replaces every pod, and new keys, while requests come."""
    project, address = served
    key = project.outputs()["churn"]["primary"]
    (project.folder / "code" / "score.py").write_text(SCRIPT.format(mark="second"))
    project.told["key_version"] = 2
    async with loaded(address, "churn", key, clients=2, pause_s=0.02) as load:
        await asyncio.to_thread(project.up)
        before = load.texts.copy()
        await eventually(lambda: load.texts['"second"'] > before['"second"'], 20, "the new script")
    assert not load.failed, "the old key is good as the secondary one, the old pods until the new ones are ready"
    assert set(load.texts) == {'"first"', '"second"'}
    assert project.outputs()["churn"]["primary"] != key


async def test_the_same_program_again_changes_nothing(node, served):
    project, _ = served
    # What the load before has brought goes again by itself.
    await eventually(lambda: len(lasting(node)) == len(ONE_OF_EACH), 60, "one pod of each")
    before = lasting(node)
    shown = await asyncio.to_thread(project.up)
    assert " updated" not in shown
    assert " created" not in shown
    assert lasting(node) == before


async def test_a_failing_script_is_told_with_its_log(node, served):
    """Failed, with the tail of the log, and what served before goes on."""
    project, address = served
    key = project.outputs()["churn"]["primary"]
    score = project.folder / "code" / "score.py"
    good = score.read_text()
    score.write_text("def init():\n    raise RuntimeError('no such model file')\ndef run(data):\n    return data\n")
    # So little that the autoscaler, which here takes replicas away after 5 s, keeps to one.
    async with loaded(address, "churn", key, clients=1, pause_s=0.5) as load:
        with pytest.raises(AssertionError, match="no such model file"):
            await asyncio.to_thread(project.up)
    assert not load.failed
    score.write_text(good)
    await asyncio.to_thread(project.up)


async def test_a_killed_router_comes_back(node, served):
    project, address = served
    key = project.outputs()["churn"]["primary"]
    path = f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/pods"
    query = {"labelSelector": f"{k8s.COMPONENT_LABEL}={k8s.ROUTER_COMPONENT}"}
    (pod,) = node.api.get(path, **query).body["items"]
    name = pod["metadata"]["name"]
    node.api.delete(f"{path}/{name}", gracePeriodSeconds="0")

    def replaced() -> bool:
        pods = {one["metadata"]["name"]: one for one in node.api.get(path, **query).body["items"]}
        return bool(pods) and name not in pods and all(map(is_ready, pods.values()))

    # Who is asked to end goes on serving for a while: answers alone do not say that the next one is there.
    await eventually(replaced, 60, "the next pod")
    async with loaded(address, "churn", key, clients=1, pause_s=0.1) as load:
        await eventually(lambda: load.answers[200, ""] > 5, 60, "answers from the next router")


async def test_kills_of_the_kubelet_cost_no_request(node, served):
    """Pods go on without it, the next one takes them as they are, and brings back what died meanwhile. Half of the
    times it is stopped, and goes on."""
    project, address = served
    key = project.outputs()["counted"]["primary"]
    await eventually(lambda: len(lasting(node)) == len(ONE_OF_EACH), 60, "one pod of each")
    before = lasting(node)
    async with loaded(address, "counted", key, COUNTING_CLIENTS, COUNTING_PAUSE_S) as load:
        for number in range(KUBELET_KILLS):
            stopped = node.bed.kubelet.process if number % 2 else None
            if stopped is not None:
                stopped.send_signal(signal.SIGSTOP)
            else:
                await asyncio.to_thread(node.bed.kill_kubelet)
            answered = load.answers[200, ""]
            await eventually(lambda least=answered + 50: load.answers[200, ""] >= least, 20, "answers without it")
            renewed = renewal(node)
            if stopped is not None:
                stopped.send_signal(signal.SIGCONT)
            else:
                node.bed.start_kubelet()
            await eventually(lambda last=renewed: renewal(node) != last, 60, "a kubelet looks after the node")
    assert not load.failed
    assert max(map(int, load.texts)) <= AT_ONCE, "I1, as the replicas counted"
    assert before <= lasting(node), "what ran goes on; the load may have brought more"
    await asyncio.to_thread(node.bed.kill_kubelet)
    (task,) = await asyncio.to_thread(scoring_of, node, "fraud", "green")
    await asyncio.to_thread(node.bed.ctr, "tasks", "kill", "--signal", "SIGKILL", task)
    node.bed.start_kubelet()
    await eventually(lambda: scoring_of(node, "fraud", "green") not in ([], [task]), 90, "the container again")
    await eventually(lambda: replicas(node, "fraud-green") == 1, 60, "a replica that is ready")
    assert before <= lasting(node)


KUBELET_KILLS = 20


def renewal(node: Any) -> str:
    """When a kubelet last told that the node is alive."""
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/bed-node"
    return str(node.api.get(path).body["spec"]["renewTime"])


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def scoring_of(node: Any, endpoint: str, version: str) -> list[str]:
    """The running containers that score for a version."""
    labels = f"{k8s.ENDPOINT_LABEL}={endpoint},{k8s.VERSION_LABEL}={k8s.version_label(version)}"
    pods = node.api.get("/api/v1/namespaces/default/pods", labelSelector=labels).body["items"]
    states = [state for pod in pods for state in pod["status"]["containerStatuses"] if "running" in state["state"]]
    return [state["containerID"].removeprefix("containerd://") for state in states]


def test_a_folder_without_paths_of_this_machine(node, served):
    """What is declared in the cluster names no place of the machine that applied it."""
    project, _ = served
    for name in ("churn", "fraud"):
        spec = str(node.api.get(f"{ENDPOINTS}/{name}").body["spec"])
        assert str(Path(project.folder).parent) not in spec
