"""What still fits on the nodes, and on those that may come."""

from dataclasses import replace

import pytest

from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.kubernetes import ENDPOINT_LABEL, VERSION_LABEL, RuntimeSettings
from aks_inference_runtime.kubernetes import objects, workloads
from aks_inference_runtime.kubernetes.quantities import quantity
from aks_inference_runtime.kubernetes.room import Node, PodNeed, node_of, requests_of, room
from aks_inference_runtime.kubernetes.scaling import ClusterScaler

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", 0.25), ("2", 2), (3, 3), ("1.5Gi", 1.5 * 2**30), ("128974848", 128974848), ("2e3", 2000), ("1k", 1000)],
)
def test_quantities(text: str | int, number: float) -> None:
    assert quantity(text) == number


NODE = Node("n", "pool", {"cpu": 4.0, "memory": 8 * 2.0**30, "pods": 30.0}, schedulable=True)
NEED = {"cpu": 0.9, "memory": 2.0**30, "pods": 1.0}


@pytest.mark.parametrize(
    ("nodes", "pods", "limits", "places"),
    [
        ([NODE], [], {}, 4),
        ([NODE], [PodNeed("n", {"cpu": 1.0, "pods": 1.0})], {}, 3),
        ([NODE], [], {"pool": 3}, 12),
        ([NODE], [PodNeed("", NEED)], {}, 3),
        ([Node("n", "pool", NODE.allocatable, schedulable=False)], [], {}, 0),
        # An empty pool is room for one, with which its first node comes.
        ([], [], {"pool": 3}, 1),
        ([NODE], [], {"pool": 1, "other": 2}, 5),
        ([replace(NODE, gpu_only=True)], [], {"pool": 3}, 0),
        # What each node has of its own is on a new one, too; what else runs on one is not.
        ([NODE], [PodNeed("n", {"cpu": 0.5}, daemon=True), PodNeed("n", {"cpu": 1.0})], {"pool": 3}, 2 + 2 * 3),
        # A node that has just come tells of little.
        ([Node("new", "pool", {}, schedulable=False), NODE], [], {"pool": 4}, 4 + 2 * 4),
    ],
)
def test_room(nodes: list[Node], pods: list[PodNeed], limits: dict[str, int], places: int) -> None:
    assert room(NEED, nodes, pods, limits) == places


def test_a_gpu_is_needed_where_it_is_asked_for() -> None:
    assert room({**NEED, "nvidia.com/gpu": 1.0}, [NODE], [], {}) == 0


@pytest.mark.parametrize(
    ("reason", "version", "counts"),
    [
        ("Unschedulable", None, False),
        ("SchedulingGated", None, False),
        ("", None, True),
        ("Unschedulable", "blue", True),
    ],
)
def test_what_waits_for_ever_takes_no_room_from_others(reason: str, version: str | None, counts: bool) -> None:
    """One stuck pod of anybody's stopped all scaling."""
    labels = {} if version is None else {ENDPOINT_LABEL: "churn", VERSION_LABEL: version}
    found = {
        "metadata": {"namespace": "n", "name": "p", "labels": labels},
        "spec": {"containers": [{"resources": {"requests": {"cpu": "16"}}}]},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": reason}] if reason else [],
        },
    }
    pod = workloads.replica_pod(found)
    assert (pod is not None) is counts
    waiting = [pod.need] if pod else []
    assert room({"cpu": 0.125}, [NODE, replace(NODE, name="other")], waiting, {}) == (0 if counts else 64)


def test_pods_of_daemon_sets_are_known() -> None:
    metadata = {"namespace": "n", "name": "p", "ownerReferences": [{"kind": "DaemonSet", "name": "cni"}]}
    pod = workloads.replica_pod({"metadata": metadata, "spec": {"nodeName": "n", "containers": []}})
    assert pod is not None
    assert pod.need.daemon


def scaler_of(**versions: tuple[float, int, str]) -> ClusterScaler:
    """Endpoints by name: cores of each replica, how many are wanted and why no more are taken; each has one."""
    scaler = ClusterScaler(RuntimeSettings(), lambda: True, lambda: 0.0)
    scaler.nodes._items = {"n": NODE}
    spec = EndpointSpec.model_validate({"versions": [{"name": "blue", "isDefault": True, "code": CODE}]})
    for name, (cpu, replicas, refused) in versions.items():
        version = ("ns", name, "blue")
        scaler.endpoints._items[name] = objects.Declared("ns", name, f"uid-{name}", 1, "2026-01-01", spec)
        need = {"cpu": cpu}
        scaler.workloads._items[name] = workloads.Workload(
            "ns", name, version, replicas, 1, 1, 1, current=True, overdue=False, need=need, refused=refused
        )
        scaler.pods._items[name] = workloads.ReplicaPod("ns", name, PodNeed("n", need), version=version)
    return scaler


def test_missing_replicas_take_what_they_need() -> None:
    """Each as large as it is, not as large as those of whoever asks."""
    scaler = scaler_of(small=(0.1, 4, ""), large=(2.0, 1, ""))
    # 1.9 cores are free, and three small ones are still to come.
    assert scaler.room_for({"cpu": 0.1}, {}) == 16
    assert scaler.room_for({"cpu": 0.8}, {}) == 1


def test_replicas_that_a_quota_refuses_take_no_room_from_others() -> None:
    scaler = scaler_of(small=(0.1, 1, ""), large=(1.0, 9, 'exceeded quota: "pods", requested: 1'))
    assert scaler.room_for({"cpu": 0.1}, {}) == 29


@pytest.mark.parametrize(
    ("taints", "plain", "with_gpu"),
    [
        ([], 4, 2),
        ([{"key": "sku", "value": "gpu", "effect": "NoSchedule"}], 0, 2),
        ([{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}], 0, 2),
        ([{"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}], 0, 0),
        ([{"key": "sku", "value": "gpu", "effect": "PreferNoSchedule"}], 4, 2),
    ],
)
def test_nodes_that_are_kept_for_gpus(taints: list[dict[str, str]], plain: int, with_gpu: int) -> None:
    found = {
        "metadata": {"name": "n", "labels": {"kubernetes.azure.com/agentpool": "gpu"}},
        "spec": {"taints": taints},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "30", "nvidia.com/gpu": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    assert room(NEED, [node_of(found)], [], {}) == plain
    assert room({**NEED, "nvidia.com/gpu": 1.0}, [node_of(found)], [], {}) == with_gpu


@pytest.mark.parametrize("gpu", [False, True])
def test_spot_nodes_are_room_for_those_who_may_run_there(gpu: bool) -> None:
    taints = [{"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}]
    taints += [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}] * gpu
    found = {
        "metadata": {"name": "n", "labels": {"kubernetes.azure.com/agentpool": "spare"}},
        "spec": {"taints": taints},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "30", "nvidia.com/gpu": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    nodes, limits = [node_of(found)], {"spare": 3}
    assert room(NEED, nodes, [], limits) == 0
    assert room(NEED, nodes, [], limits, spot=True) == (0 if gpu else 12)
    assert room({**NEED, "nvidia.com/gpu": 1.0}, nodes, [], limits, spot=True) == 6


def node(name: str, **labels: str) -> Node:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    found = {"metadata": {"name": name, "labels": {f"kubernetes.io/{key}": text for key, text in labels.items()}}}
    return node_of(found | {"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "30"}, **ready}})


@pytest.mark.parametrize(
    ("selector", "places"),
    [
        ({"kubernetes.io/os": "linux"}, 8),
        ({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}, 4),
        ({"kubernetes.io/os": "windows"}, 4),
        ({"pool": "other"}, 0),
        ({}, 16),
    ],
)
def test_only_nodes_that_pods_may_run_on_are_room_for_them(selector: dict[str, str], places: int) -> None:
    """Those of Windows have no taint; which architecture an image runs on is for its pods to say."""
    scaler = ClusterScaler(RuntimeSettings(), lambda: True, lambda: 0.0)
    found = (
        node("one", os="linux", arch="amd64"),
        node("arm", os="linux", arch="arm64"),
        node("win", os="windows", arch="amd64"),
        node("unlabelled"),
    )
    scaler.nodes._items = {one.name: one for one in found}
    assert scaler.room_for(NEED, selector) == places
    pods = {"spec": {"nodeSelector": selector, "containers": []}}
    metadata = {"namespace": "n", "name": "d", "labels": {ENDPOINT_LABEL: "churn", VERSION_LABEL: "one"}}
    work = workloads.workload({"metadata": metadata, "spec": {"template": pods}})
    assert work is not None
    assert scaler._room(replace(work, need=NEED)) == places


def test_a_new_node_of_a_pool_is_as_those_that_are_there() -> None:
    nodes = [replace(node("win", os="windows"), pool="win"), replace(node("one", os="linux"), pool="usual")]
    limits = {"win": 9, "usual": 3}
    assert room(NEED, nodes, [], limits, selector={"kubernetes.io/os": "linux"}) == 12


@pytest.mark.parametrize("spot", [False, True])
def test_whether_a_version_may_run_on_spot_nodes_stands_in_its_pods(spot: bool) -> None:
    tolerations = [{"key": "kubernetes.azure.com/scalesetpriority", "operator": "Exists"}] if spot else None
    spec = {"containers": [{"name": "scoring"}], "tolerations": tolerations}
    labels = {ENDPOINT_LABEL: "churn", VERSION_LABEL: "one"}
    found = workloads.workload(
        {"metadata": {"namespace": "n", "name": "d", "labels": labels}, "spec": {"template": {"spec": spec}}}
    )
    assert found is not None
    assert found.spot is spot


def test_what_a_pod_asks_for() -> None:
    spec = {
        "containers": [{"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "2", "memory": "1Gi"}}}],
        "initContainers": [
            {"restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
            {"resources": {"requests": {"memory": "3Gi"}}},
        ],
    }
    assert requests_of(spec) == {"cpu": pytest.approx(0.15), "memory": 3 * 2.0**30, "pods": 1.0}
