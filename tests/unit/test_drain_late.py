"""A pod that the scheduler puts on a node which is being emptied, since it has not heard of that yet."""

import itertools
from typing import Any

import pytest

from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources import drain_rules as rules
from aks_inference_provider.resources.pool_drain import MOST_MOVES, Drain
from aks_inference_runtime.api.kubernetes import PART_OF, PART_OF_LABEL

OWN = {PART_OF_LABEL: PART_OF}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


class Cluster:
    """Two nodes and a Deployment of one pod, whose successors come to the nodes named."""

    def __init__(self, *nodes: str) -> None:
        self._nodes = itertools.chain(nodes, itertools.repeat(nodes[-1]))
        self.moves = 0
        self.pod = self._made({})

    def _made(self, annotations: dict[str, str]) -> dict[str, Any]:
        owner = {"kind": "ReplicaSet", "name": "set", "controller": True}
        metadata = {"name": "pod", "namespace": "ns", "labels": OWN, "ownerReferences": [owner]}
        return {"metadata": metadata | {"annotations": annotations}, "spec": {"nodeName": next(self._nodes)}}

    async def list(self, path: str, labels: str = "") -> tuple[list[dict[str, Any]], str]:
        if path.endswith("/nodes"):
            pools = {"old": "cpu", "new": "next"}
            return [
                {"metadata": {"name": n, "labels": {rules.POOL_LABELS[0]: p}}, "status": READY}
                for n, p in pools.items()
            ], ""
        owner = {"kind": "Deployment", "name": "svc", "controller": True}
        return [{"metadata": {"name": "set", "namespace": "ns", "ownerReferences": [owner]}}], ""

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        here = query.get("fieldSelector") == f"spec.nodeName={self.pod['spec']['nodeName']}"
        return {"items": [self.pod] if here else []}

    async def patch(self, path: str, body: dict[str, Any]) -> None:
        if path.endswith("/deployments/svc"):
            self.moves += 1
            self.pod = self._made(body["spec"]["template"]["metadata"]["annotations"])


def drain(cluster: Any, longest_s: float, clock: Any) -> Drain:
    return Drain(cluster, "cpu", Progress(EngineLog(""), ""), longest_s, poll_s=0, now=lambda: next(clock))


async def test_what_came_back_is_moved_again() -> None:
    cluster = Cluster("old", "old", "new")
    await drain(cluster, 1_000, itertools.count()).run()
    assert (cluster.moves, cluster.pod["spec"]["nodeName"]) == (2, "new")


async def test_what_always_comes_back_is_not_moved_for_ever() -> None:
    cluster = Cluster("old")
    with pytest.raises(ResourceFailed, match="not empty after"):
        await drain(cluster, 100, itertools.count()).run()
    assert cluster.moves == MOST_MOVES
