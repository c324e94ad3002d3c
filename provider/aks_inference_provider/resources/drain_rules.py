"""What moves when the nodes of a pool are to go. Pure: decided on the API server's objects.

Deployments of this package are rolled out anew while the nodes take no pods: a new replica is ready elsewhere before an
old one ends (their strategy allows none to be missing), also where there is only one. Evicting it would leave a gap.
What is not ours is evicted, as `kubectl drain` does, with its disruption budgets.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aks_inference_runtime.api.endpoint import GROUP
from aks_inference_runtime.api.kubernetes import PART_OF, PART_OF_LABEL

POOL_LABELS = ("kubernetes.azure.com/agentpool", "agentpool")
"""AKS puts both on each node: the pool's name."""
MOVED_ANNOTATION = f"{GROUP}/moved"
"""On a Deployment's pod template: when it was last moved. Nobody declares it, so that no later `up` takes it away."""
HELD_ANNOTATION = f"{GROUP}/cordoned"
"""On a node: it is this package that cordoned it."""
_ENDED = {"Succeeded", "Failed"}

Object = Mapping[str, Any]


class Workload(NamedTuple):
    """A Deployment."""

    namespace: str
    name: str

    @property
    def path(self) -> str:
        """At the API server."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}"


def name_of(found: Object) -> str:
    """An object's name."""
    return str(found["metadata"]["name"])


def nodes_of(nodes: Iterable[Object], pool: str) -> list[Object]:
    """The nodes of a pool."""
    return [node for node in nodes if any(_labels(node).get(label) == pool for label in POOL_LABELS)]


def others_open(nodes: Iterable[Object], pool: str) -> list[str]:
    """Nodes of other pools that pods may still be put on. Taints do not matter: who tolerates them is not known."""
    nodes = list(nodes)
    mine = {name_of(node) for node in nodes_of(nodes, pool)}
    return [name_of(node) for node in nodes if name_of(node) not in mine and _takes_pods(node)]


def staying(pods: Iterable[Object], nodes: Iterable[str]) -> list[Object]:
    """Pods on these nodes that have to go elsewhere: not those of the nodes themselves, nor those that have ended."""
    names = set(nodes)
    return [
        pod
        for pod in pods
        if pod.get("spec", {}).get("nodeName") in names
        and pod.get("status", {}).get("phase") not in _ENDED
        and _owner(pod)[0] not in {"DaemonSet", "Node"}
    ]


def ours(pods: Iterable[Object]) -> tuple[list[Object], list[Object]]:
    """Pods of this package, and the others."""
    pods = list(pods)
    own = [pod for pod in pods if _labels(pod).get(PART_OF_LABEL) == PART_OF]
    return own, [pod for pod in pods if pod not in own]


def to_evict(pods: Iterable[Object]) -> list[Object]:
    """Those that somebody makes anew elsewhere, and that are not on their way out."""
    return [pod for pod in pods if _owner(pod)[0] and "deletionTimestamp" not in pod["metadata"]]


def workloads(pods: Iterable[Object], replica_sets: Iterable[Object]) -> set[Workload]:
    """The Deployments of pods that are not on their way out."""
    owners = {(rs["metadata"]["namespace"], name_of(rs)): _owner(rs) for rs in replica_sets}
    found = set()
    for pod in pods:
        kind, name = _owner(pod)
        space = str(pod["metadata"]["namespace"])
        above, deployment = owners.get((space, name), ("", "")) if kind == "ReplicaSet" else ("", "")
        if above == "Deployment" and "deletionTimestamp" not in pod["metadata"]:
            found.add(Workload(space, deployment))
    return found


def marked(mark: str) -> dict[str, Any]:
    """What moves a Deployment: its pods are made anew, and bear the mark."""
    return {"spec": {"template": {"metadata": {"annotations": {MOVED_ANNOTATION: mark}}}}}


def mark_of(pod: Object) -> str:
    """Of the move that it was made by; empty: none."""
    return str((pod["metadata"].get("annotations") or {}).get(MOVED_ANNOTATION, ""))


def waiting(pods: Iterable[Object]) -> list[str]:
    """Pods that find no node, with the scheduler's reason."""
    found = []
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                found.append(f"{name_of(pod)} waits: {condition.get('message')}")
    return found


def summary(own: Sequence[Object], others: Sequence[Object]) -> str:
    """What is still there."""
    parts = [f"{len(own)} of the runtime and its services" if own else "", f"{len(others)} others" if others else ""]
    return " and ".join(part for part in parts if part) or "none"


def _takes_pods(node: Object) -> bool:
    spec, conditions = node.get("spec") or {}, (node.get("status") or {}).get("conditions") or ()
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    return ready and not spec.get("unschedulable") and "deletionTimestamp" not in node["metadata"]


def _owner(found: Object) -> tuple[str, str]:
    owners = found["metadata"].get("ownerReferences") or ()
    return next(((str(one["kind"]), str(one["name"])) for one in owners if one.get("controller")), ("", ""))


def _labels(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("labels") or {}
