"""A pool that goes is emptied first, and no service misses a replica meanwhile: a real control plane, kwok's nodes."""

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources import drain_rules as rules
from aks_inference_provider.resources.base import Operation, State, Urn
from aks_inference_provider.resources.pool_drain import Drain, PoolDrain
from aks_inference_runtime.api.kubernetes import PART_OF, PART_OF_LABEL
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.connection import from_kubeconfig
from testbed.control_plane import fake_node

URN = Urn.parse("urn:pulumi:dev::t::aks-inference:index:PoolDrain::cpu")


class Told(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(EngineLog(""), "")
        self.lines: list[str] = []

    def status(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def pools(kept_nodes, cluster) -> Iterator[str]:
    """Two pools of one node each, of this test alone: their pods ask for it by a label."""
    mark = uuid.uuid4().hex[:6]
    for pool in ("old", "new"):
        body = fake_node(f"{pool}-{mark}", cpu="4")
        labels = body["metadata"]["labels"]
        labels |= {rules.POOL_LABELS[0]: f"{pool}{mark}", "mark": mark}
        assert cluster.api.create("/api/v1/nodes", body).status == 201
    yield mark
    for pool in ("old", "new"):
        cluster.api.delete(f"/api/v1/nodes/{pool}-{mark}")


def deployment(name: str, mark: str, replicas: int = 1, own: bool = True, cpu: str = "1") -> dict[str, Any]:
    labels = {"app": name} | ({PART_OF_LABEL: PART_OF} if own else {})
    container = {"name": "c", "image": "none", "resources": {"requests": {"cpu": cpu}}}
    pod = {"nodeSelector": {"mark": mark}, "containers": [container], "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


class Watched(threading.Thread):
    """The fewest replicas that were available."""

    def __init__(self, api: Any, path: str) -> None:
        super().__init__(daemon=True)
        self.api, self.path, self.over, self.fewest = api, path, threading.Event(), 1_000

    def run(self) -> None:
        while not self.over.is_set():
            status = self.api.get(self.path).body["status"]
            self.fewest = min(self.fewest, status.get("availableReplicas", 0))


@contextlib.contextmanager
def watched(api: Any, path: str) -> Iterator[Watched]:
    one = Watched(api, path)
    one.start()
    try:
        yield one
    finally:
        one.over.set()
        one.join()


async def drained(cluster: Any, pool: str, told: Progress, longest_s: float) -> None:
    async with connected(from_kubeconfig(cluster.kubeconfig)) as api:
        await Drain(api, pool, told, longest_s, poll_s=0.1).run()


def placed(cluster: Any, namespace: str, until: Any, node: str, *workloads: dict[str, Any]) -> None:
    """Workloads that run on one node: the other takes no pods until they do."""
    other = node.replace("old", "new")
    cluster.api.merge(f"/api/v1/nodes/{other}", {"spec": {"unschedulable": True}})
    for body in workloads:
        answer = cluster.api.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", body)
        assert answer.status == 201, answer.message
    wanted = {body["metadata"]["name"]: body["spec"]["replicas"] for body in workloads}
    until(lambda: len(running(cluster, namespace, node)) == sum(wanted.values()))

    # A Deployment counts its pods a moment after they are ready.
    def available() -> dict[str, int]:
        found = cluster.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments").body["items"]
        return {one["metadata"]["name"]: one["status"].get("availableReplicas", 0) for one in found}

    until(lambda: available() == wanted)
    cluster.api.merge(f"/api/v1/nodes/{other}", {"spec": {"unschedulable": None}})


def running(cluster: Any, namespace: str, node: str) -> list[str]:
    pods = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods", fieldSelector=f"spec.nodeName={node}").body["items"]
    ready = [p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"]["conditions"])]
    return [p["metadata"]["name"] for p in ready if "deletionTimestamp" not in p["metadata"]]


async def test_services_move_before_their_nodes_go(cluster, namespace, pools, until):
    """Also the one with a single replica, and also what is not ours."""
    mark = pools
    placed(
        cluster, namespace, until, f"old-{mark}",
        deployment("one", mark), deployment("two", mark, replicas=2, cpu="500m"),
        deployment("theirs", mark, own=False, cpu="100m"),
    )  # fmt: skip
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    with watched(cluster.api, f"{path}/one") as one, watched(cluster.api, f"{path}/two") as two:
        resource, told = PoolDrain(), Told()
        inputs = {"poolId": f"/subscriptions/1/agentPools/old{mark}", "kubeconfig": cluster.kubeconfig.read_text()}
        await resource.delete(Operation(URN, told, 60), State("x", inputs))
    assert (one.fewest, two.fewest) == (1, 2)
    assert running(cluster, namespace, f"old-{mark}") == []
    until(lambda: len(running(cluster, namespace, f"new-{mark}")) == 4)
    assert cluster.api.get(f"/api/v1/nodes/old-{mark}").body["spec"]["unschedulable"] is True
    # What moved it stays out of the way of what is declared.
    template = cluster.api.get(f"{path}/one").body["spec"]["template"]["metadata"]
    assert rules.MOVED_ANNOTATION in template["annotations"]
    assert "kubeconfig" not in json.dumps(told.lines)


async def test_without_room_the_pool_stays(cluster, namespace, pools, until):
    mark = pools
    placed(cluster, namespace, until, f"old-{mark}", deployment("large", mark, cpu="3"))
    assert (
        cluster.api.create(
            f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment("filler", mark, cpu="3")
        ).status
        == 201
    )
    until(lambda: running(cluster, namespace, f"new-{mark}") != [])
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/large"
    with watched(cluster.api, path) as large, pytest.raises(ResourceFailed, match=r"not empty after 2 s.*waits: "):
        await drained(cluster, f"old{mark}", Told(), 2)
    assert large.fewest == 1
    node = cluster.api.get(f"/api/v1/nodes/old-{mark}").body
    assert "unschedulable" not in node["spec"]
    assert rules.HELD_ANNOTATION not in node["metadata"]["annotations"]


async def test_where_there_is_no_other_node_nothing_is_held(cluster, namespace, pools, until):
    """A cluster that goes as a whole."""
    mark = pools
    others = [n["metadata"]["name"] for n in cluster.api.get("/api/v1/nodes").body["items"]]
    closed = [name for name in others if name != f"old-{mark}"]
    for name in closed:
        cluster.api.merge(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    try:
        told = Told()
        await asyncio.wait_for(drained(cluster, f"old{mark}", told, 30), 20)
    finally:
        for name in closed:
            cluster.api.merge(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": None}})
    assert any("no other node takes pods" in line for line in told.lines)
    assert "unschedulable" not in cluster.api.get(f"/api/v1/nodes/old-{mark}").body["spec"]


async def test_no_answer_is_told_with_the_way_out(tmp_path):
    lost = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    inputs = {"poolId": "cpu", "kubeconfig": json.dumps(lost)}
    with pytest.raises(ResourceFailed, match="pulumi state delete"):
        await PoolDrain().delete(Operation(URN, Told(), 60), State("x", inputs))
    await PoolDrain().delete(Operation(URN, Told(), 60), State("x", {"poolId": "cpu"}))
