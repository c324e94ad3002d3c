"""What moves when a pool goes."""

from typing import Any

import pytest

from aks_inference_provider.resources import drain_rules as rules
from aks_inference_runtime.api.kubernetes import PART_OF, PART_OF_LABEL


def node(name: str, pool: str = "old", ready: str = "True", label: str = rules.POOL_LABELS[0], **spec: Any) -> Any:
    return {
        "metadata": {"name": name, "labels": {label: pool}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(name: str, node: str = "a", owner: str = "ReplicaSet", own: bool = True, **more: Any) -> Any:
    owners = [{"kind": owner, "name": f"{name}-set", "controller": True}] if owner else []
    labels = {PART_OF_LABEL: PART_OF} if own else {}
    metadata = {"name": name, "namespace": "ns", "labels": labels, "ownerReferences": owners, **more.pop("meta", {})}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Running", **more}}


def names(found: list[Any]) -> list[str]:
    return [rules.name_of(one) for one in found]


def test_nodes() -> None:
    nodes = [
        node("a"),
        node("b", label="agentpool"),
        node("c", "new"),
        node("d", "new", unschedulable=True),
        node("e", "new", ready="Unknown"),
        node("f", "gpu", taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]),
    ]
    assert names(rules.nodes_of(nodes, "old")) == ["a", "b"]
    assert rules.others_open(nodes, "old") == ["c", "f"], "who tolerates a taint is not known"
    assert rules.others_open(nodes[:2], "old") == []


def test_pods_that_have_to_go() -> None:
    pods = [
        pod("replica"),
        pod("elsewhere", node="z"),
        pod("daemon", owner="DaemonSet"),
        pod("static", owner="Node"),
        pod("over", phase="Succeeded"),
        pod("dns", own=False),
        pod("bare", owner="", own=False),
        pod("leaving", own=False, meta={"deletionTimestamp": "x"}),
    ]
    rest = rules.staying(pods, ["a"])
    assert names(rest) == ["replica", "dns", "bare", "leaving"]
    own, others = rules.ours(rest)
    assert names(own) == ["replica"]
    assert names(rules.to_evict(others)) == ["dns"], "nobody would make the bare one anew"
    assert rules.summary(own, others) == "1 of the runtime and its services and 3 others"
    assert rules.summary([], []) == "none"


@pytest.mark.parametrize(
    ("above", "found"),
    [("Deployment", {rules.Workload("ns", "churn")}), ("Rollout", set())],
)
def test_deployments(above: str, found: set[rules.Workload]) -> None:
    owners = [{"kind": above, "name": "churn", "controller": True}]
    sets = [{"metadata": {"name": "replica-set", "namespace": "ns", "ownerReferences": owners}}]
    assert rules.workloads([pod("replica")], sets) == found
    assert rules.workloads([pod("replica", meta={"deletionTimestamp": "x"})], sets) == set()
    assert rules.workloads([pod("replica", owner="StatefulSet")], sets) == set()


def test_why_a_pod_waits() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: insufficient cpu"}
    assert rules.waiting([pod("new", conditions=[condition]), pod("well")]) == [
        "new waits: 0/3 nodes: insufficient cpu"
    ]
