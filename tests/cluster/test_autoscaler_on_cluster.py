"""The autoscaler's processes against a real API server: one leads, writes scales and states, respects others."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web

from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from aks_inference_runtime.api.kubernetes import (
    AUTOSCALER_NAME,
    COMPONENT_LABEL,
    ENDPOINT_LABEL,
    PART_OF,
    PART_OF_LABEL,
    ROUTER_COMPONENT,
    ROUTER_NAME,
    SETTINGS_VARIABLE,
    VERSION_LABEL,
    RuntimeSettings,
)
from aks_inference_runtime.kubernetes import reports
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.connection import from_kubeconfig
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.workloads import workload
from aks_inference_runtime.router.model import VersionKey, VersionLoad
from testbed.accounts import DENIED, take_back, with_rights_of
from testbed.processes import Running, free_ports

ROUTER_ADDRESS = "127.0.0.9"


@dataclass
class Bed:
    cluster: Any
    namespace: str
    folder: Path
    name: str
    port: int = 0
    generation: int = 1
    """That the router serves."""
    running: dict[str, Running] = field(default_factory=dict)
    loads: dict[VersionKey, VersionLoad] = field(default_factory=dict)
    unserved: dict[str, str] = field(default_factory=dict)

    @property
    def deployment(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}-blue"

    def create(self, path: str, body: dict[str, Any]) -> None:
        deadline = time.monotonic() + 20
        while (answer := self.cluster.api.create(path, body)).status != 201:
            assert time.monotonic() < deadline, answer.message
            assert answer.status in (403, 404), answer.message  # the namespace's account is still to come
            time.sleep(0.1)

    def declare(self, **scaling: Any) -> None:
        labels = {ENDPOINT_LABEL: self.name, VERSION_LABEL: "blue"}
        version = {
            "name": "blue",
            "isDefault": True,
            "trafficPercentile": 100,
            "code": {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"},
            "scaling": scaling,
        }
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": self.name}}
        path = f"/apis/{API_VERSION}/namespaces/{self.namespace}/scoringendpoints"
        self.create(path, {**body, "spec": {"versions": [version]}})
        container = {"name": "scoring", "image": "none", "resources": {"requests": {"cpu": "100m"}}}
        deployment = {
            "metadata": {"name": f"{self.name}-blue", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }
        self.create(f"/apis/apps/v1/namespaces/{self.namespace}/deployments", deployment)

    def router_pod(self, name: str = "router-0", address: str = ROUTER_ADDRESS, word: str = "True") -> None:
        labels = {PART_OF_LABEL: PART_OF, COMPONENT_LABEL: ROUTER_COMPONENT}
        spec = {"containers": [{"name": "router", "image": "none"}], "automountServiceAccountToken": False}
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        self.create(path, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        ready = {"type": "Ready", "status": word}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
        answer = self.cluster.api.call("PATCH", f"{path}/{name}/status", {"status": status}, MERGE)
        assert answer.status == 200, answer.message

    def start(self, number: int) -> None:
        settings = self.folder / "settings.json"
        settings.write_text(json.dumps({"namespace": self.namespace, "agentPort": self.port}))
        name = f"autoscaler-{number}"
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "POD_NAME": name,
            "POD_IP": f"127.0.0.{20 + number}",
            SETTINGS_VARIABLE: str(settings),
        }
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        command = [sys.executable, "-m", "aks_inference_runtime.kubernetes.autoscaler"]
        self.running[name] = Running(name, command, self.folder / f"{name}.log", env=environment)

    def replicas(self) -> int:
        return int(self.cluster.api.get(self.deployment).body["spec"]["replicas"])

    def status(self) -> dict[str, Any]:
        path = f"/apis/{API_VERSION}/namespaces/{self.namespace}/scoringendpoints/{self.name}"
        found = self.cluster.api.get(path).body.get("status")
        return found if isinstance(found, dict) else {}

    def version(self) -> dict[str, Any]:
        return dict(self.status()["versions"][0])

    def told(self) -> list[str]:
        """Reasons of the events about the endpoint."""
        found = self.cluster.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events").body["items"]
        return [event["reason"] for event in found if event["regarding"].get("kind") == KIND]

    def leader(self) -> str:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{AUTOSCALER_NAME}"
        return str((self.cluster.api.get(path).body.get("spec") or {}).get("holderIdentity", ""))

    async def wanted(self, number: int) -> list[str]:
        """What an autoscaler tells Prometheus that it wants of the endpoint."""
        async with ClientSession() as session, session.get(f"http://127.0.0.{20 + number}:{self.port}/metrics") as told:
            lines = (await told.text()).splitlines()
        return [line for line in lines if line.startswith(f'aks_inference_wanted_replicas{{endpoint="{self.name}"')]

    async def until(self, what: str, holds: Any, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(holds):
            tails = "\n".join(one.tail() for one in self.running.values())
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s\n{tails}\n{self.status()}"
            await asyncio.sleep(0.05)


MERGE = "application/merge-patch+json"


@pytest.fixture
def bed(cluster: Any, namespace: str, tmp_path: Path) -> Iterator[Bed]:
    if not cluster.has_controllers:
        pytest.skip("no controllers here: Deployments have no status")
    bed = Bed(cluster, namespace, tmp_path, f"svc-{namespace[-6:]}", free_ports(1)[0])
    try:
        yield bed
    finally:
        for one in bed.running.values():
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGCONT)
                one.process.kill()
            one.process.wait()


@pytest_asyncio.fixture
async def router(bed: Bed) -> AsyncIterator[None]:
    """What a router tells of its load."""

    async def load(request: web.Request) -> web.StreamResponse:
        return await reports.stream(request, lambda: reports.Told(bed.loads, {bed.name: bed.generation}, bed.unserved))

    app = web.Application()
    app.add_routes([web.get(reports.PATH, load)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, ROUTER_ADDRESS, bed.port).start()
    await asyncio.to_thread(bed.router_pod)
    yield
    await runner.cleanup()


def load(busy: int, queued: int = 0) -> VersionLoad:
    return VersionLoad(busy, queued, 1)


async def test_scales_by_load_within_the_nodes_and_survives_its_leader(
    bed: Bed, router: None, fake_nodes: list[str]
) -> None:
    key = VersionKey(bed.name, "blue")
    bed.loads = {key: load(1)}
    bed.declare(autoscaleMaxReplicas=6, autoscaleScaleDownDelaySeconds=2)
    for number in range(2):
        bed.start(number)
    await bed.until("two replicas for 1 of 0.7", lambda: bed.replicas() == 2)
    await bed.until("a status", lambda: bed.status().get("observedGeneration") == 1)
    first = bed.leader()
    leads = int(first[-1])
    of_it = f'aks_inference_wanted_replicas{{endpoint="{bed.name}",version="blue"}}'
    assert await bed.wanted(leads) == [f"{of_it} 2"]
    assert await bed.wanted(1 - leads) == [], "who does not lead wants nothing"
    bed.running[first].process.kill()
    bed.loads = {key: load(2, queued=6)}
    await bed.until("as many as there may be", lambda: bed.replicas() == 6)
    assert bed.leader() != first
    assert await bed.wanted(1 - leads) == [f"{of_it} 6"]
    await bed.until("a status of six", lambda: bed.version()["replicasDesired"] == 6)
    await bed.until("healthy", lambda: bed.status()["state"] == "Healthy")
    assert (bed.version()["busy"], bed.version()["queued"]) == (2, 6)
    await bed.until("an event of it", lambda: "Healthy" in bed.told())
    assert "2 → 6" in bed.version()["lastScaling"]
    bed.loads = {}
    await asyncio.sleep(4)
    assert bed.replicas() == 6, "nothing goes while the figures are missing"
    bed.loads = {key: load(0)}
    await bed.until("down", lambda: bed.replicas() == 1)


@pytest.mark.parametrize("ready", ["True", "False"], ids=["its node is dead", "it begins"])
async def test_a_router_that_says_nothing_holds_nobody_up(
    bed: Bed, router: None, fake_nodes: list[str], ready: str
) -> None:
    bed.declare(autoscaleEnabled=False, numReplicas=1)
    bed.start(0)
    await bed.until("healthy", lambda: bed.status().get("state") == "Healthy")
    await asyncio.to_thread(bed.router_pod, "router-1", "127.0.0.10", ready)
    # Another one has heard nobody when it begins.
    bed.running["autoscaler-0"].process.kill()
    bed.start(1)
    await bed.until("another one leads", lambda: bed.leader() == "autoscaler-1", seconds=40)
    path = f"/apis/{API_VERSION}/namespaces/{bed.namespace}/scoringendpoints/{bed.name}"
    number = {"spec": {"description": "changed"}}
    assert bed.cluster.api.call("PATCH", path, number, MERGE).status == 200
    bed.unserved = {bed.name: "no queue can be had for it"}
    await bed.until("why not", lambda: "no queue" in bed.status()["message"])
    bed.generation = 2
    await bed.until("a change", lambda: bed.status().get("servedGeneration") == 2)


async def test_a_fixed_number_is_written(bed: Bed, router: None, fake_nodes: list[str]) -> None:
    bed.declare(autoscaleEnabled=False, numReplicas=3)
    bed.start(0)
    await bed.until("the declared number", lambda: bed.replicas() == 3)
    assert [line.rpartition(" ")[2] for line in await bed.wanted(0)] == ["3"], "the alert on missing ones knows it"
    bed.cluster.api.delete(f"/apis/{API_VERSION}/namespaces/{bed.namespace}/scoringendpoints/{bed.name}")
    deadline = time.monotonic() + 30
    while await bed.wanted(0):
        assert time.monotonic() < deadline, "what is gone is still wanted"
        await asyncio.sleep(0.05)
    bed.running["autoscaler-0"].process.terminate()
    assert await asyncio.to_thread(bed.running["autoscaler-0"].process.wait, 10) == 0
    assert not bed.leader(), "the lease is given back"


async def test_a_scale_is_written_on_the_number_that_it_was_decided_on(bed: Bed) -> None:
    """Also from 0, which the API server leaves out."""
    bed.declare()
    key = VersionKey(bed.name, "blue")
    async with connected(from_kubeconfig(bed.cluster.kubeconfig)) as api:
        scaler = ClusterScaler(RuntimeSettings(), lambda: True, time.monotonic)
        scaler._api = api
        for decided_on, wanted, there in [(1, 0, 0), (1, 4, 0), (0, 2, 2), (0, 5, 2), (2, 3, 3), (3, 0, 0)]:
            work = workload(await api.get(bed.deployment))
            assert work is not None
            scaler._set(key, replace(work, replicas=decided_on), wanted)
            await asyncio.gather(*scaler._tasks)
            assert bed.replicas() == there, (decided_on, wanted)
            scaler._pending.clear()


@pytest.mark.parametrize("scaling", [{}, {"autoscaleEnabled": False, "numReplicas": 3}], ids=["by need", "fixed"])
async def test_an_hpa_is_not_fought(bed: Bed, router: None, fake_nodes: list[str], scaling: dict[str, Any]) -> None:
    bed.loads = {VersionKey(bed.name, "blue"): load(5)}
    hpa = {
        "metadata": {"name": "other"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{bed.name}-blue"},
            "maxReplicas": 2,
        },
    }
    scalers = f"/apis/autoscaling/v2/namespaces/{bed.namespace}/horizontalpodautoscalers"
    bed.create(scalers, hpa)
    bed.declare(**scaling)
    bed.start(0)
    await bed.until(
        "it says so", lambda: "HorizontalPodAutoscaler other" in str(bed.status().get("versions")), seconds=20
    )
    assert bed.replicas() == 1
    bed.cluster.api.delete(f"{scalers}/other")
    await bed.until("scaled once it is gone", lambda: bed.replicas() > 1)
    await bed.until("which it says", lambda: "HorizontalPodAutoscaler" not in str(bed.status().get("versions")))


async def test_its_own_rights_are_enough(bed: Bed, router: None, fake_nodes: list[str], tmp_path: Path) -> None:
    bed.loads = {VersionKey(bed.name, "blue"): load(1)}
    bed.declare()
    bed.cluster = with_rights_of(AUTOSCALER_NAME, bed.cluster, bed.namespace, tmp_path)
    try:
        bed.start(0)
        await bed.until("a scale", lambda: bed.replicas() == 2)
        await bed.until("a status", lambda: bed.status().get("state") == "Healthy")
        await bed.until("an event of it", lambda: "Healthy" in bed.told())
        one = bed.running["autoscaler-0"]
        one.process.terminate()
        assert await asyncio.to_thread(one.process.wait, 10) == 0
        assert not bed.leader(), "the lease is given back"
        assert DENIED not in one.log.read_text(), one.tail()
    finally:
        take_back(bed.cluster, bed.namespace)


async def test_endpoints_say_the_address_of_the_load_balancer(
    bed: Bed, router: None, fake_nodes: list[str], tmp_path: Path
) -> None:
    """With the autoscaler's own rights; before it has one the name within the cluster."""
    bed.loads = {VersionKey(bed.name, "blue"): load(1)}
    bed.declare()
    everyone = bed.cluster
    bed.cluster = with_rights_of(AUTOSCALER_NAME, bed.cluster, bed.namespace, tmp_path)
    try:
        bed.start(0)
        inside = f"http://{ROUTER_NAME}.{bed.namespace}.svc/api/v1/service/{bed.name}/score"
        await bed.until("the name within", lambda: bed.status().get("scoringUri") == inside)
        path = f"/api/v1/namespaces/{bed.namespace}/services"
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
        for name, address in (("another", "203.0.113.1"), (ROUTER_NAME, "203.0.113.7")):
            assert everyone.api.create(path, {"metadata": {"name": name}, "spec": spec}).status == 201
            status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
            assert everyone.api.merge(f"{path}/{name}/status", status).status == 200
        outside = f"http://203.0.113.7/api/v1/service/{bed.name}/score"
        await bed.until("its address", lambda: bed.status()["scoringUri"] == outside)
        assert DENIED not in bed.running["autoscaler-0"].log.read_text()
    finally:
        take_back(bed.cluster, bed.namespace)


async def test_room_is_respected(bed: Bed, router: None) -> None:
    bed.loads = {VersionKey(bed.name, "blue"): load(5)}
    bed.declare()
    bed.start(0)
    await bed.until("it says so", lambda: "room is for 1" in str(bed.status().get("versions")), seconds=20)
    assert bed.replicas() == 1


async def test_the_last_replica_goes_once_it_was_ready(bed: Bed, router: None) -> None:
    """By what the Deployment's controller says of it."""
    bed.loads = {VersionKey(bed.name, "blue"): load(0)}
    bed.declare(autoscaleMinReplicas=0, autoscaleScaleDownDelaySeconds=1)
    bed.start(0)
    await bed.until("it stays", lambda: "stays until it was ready" in str(bed.status().get("versions")))
    assert bed.replicas() == 1
    assert bed.status()["state"] != "Healthy"
    pods = f"/api/v1/namespaces/{bed.namespace}/pods"
    (pod,) = bed.cluster.api.get(f"{pods}?labelSelector={ENDPOINT_LABEL}%3D{bed.name}").body["items"]
    name = pod["metadata"]["name"]
    bed.create(f"{pods}/{name}/binding", {"metadata": {"name": name}, "target": {"kind": "Node", "name": "nowhere"}})
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    assert bed.cluster.api.call("PATCH", f"{pods}/{name}/status", {"status": status}, MERGE).status == 200
    await bed.until("none is needed", lambda: bed.replicas() == 0)
    await bed.until("healthy without one", lambda: bed.status()["state"] == "Healthy")


async def test_why_a_pods_containers_are_not_made_is_told(bed: Bed, router: None, tmp_path: Path) -> None:
    """As a kubelet tells it whose pod wants a Secret that is not there; with the autoscaler's own rights."""
    bed.declare(autoscaleEnabled=False, numReplicas=1)
    everyone = bed.cluster
    bed.cluster = with_rights_of(AUTOSCALER_NAME, bed.cluster, bed.namespace, tmp_path)
    pods = f"/api/v1/namespaces/{bed.namespace}/pods"
    selected = f"{pods}?labelSelector={ENDPOINT_LABEL}%3D{bed.name}"
    words = 'MountVolume.SetUp failed for volume "settings" : secret "settings" not found'
    try:
        bed.start(0)
        await bed.until("a pod", lambda: everyone.api.get(selected).body["items"])
        (pod,) = everyone.api.get(selected).body["items"]
        name = pod["metadata"]["name"]
        bound = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "nowhere"}}
        bed.create(f"{pods}/{name}/binding", bound)
        waits = {"name": "scoring", "image": "none", "imageID": "", "ready": False, "restartCount": 0}
        status = {
            "phase": "Pending",
            "startTime": "2026-01-01T00:00:00Z",
            "containerStatuses": [{**waits, "state": {"waiting": {"reason": "ContainerCreating"}}}],
        }
        assert everyone.api.call("PATCH", f"{pods}/{name}/status", {"status": status}, MERGE).status == 200
        told = {
            "metadata": {"name": f"{name}.1"},
            "involvedObject": {"kind": "Pod", "namespace": bed.namespace, "name": name, "uid": pod["metadata"]["uid"]},
            "type": "Warning",
            "reason": "FailedMount",
            "message": words,
            "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:00:04Z",
            "source": {"component": "kubelet", "host": "nowhere"},
        }
        bed.create(f"/api/v1/namespaces/{bed.namespace}/events", told)
        await bed.until("a status", lambda: bed.status().get("observedGeneration") == 1)
        await bed.until("why", lambda: bed.version()["message"] == f"FailedMount: {words}", seconds=40)
        assert bed.status()["state"] == "Transitioning", "the Secret may still come"
        assert DENIED not in bed.running["autoscaler-0"].log.read_text()
    finally:
        take_back(bed.cluster, bed.namespace)
