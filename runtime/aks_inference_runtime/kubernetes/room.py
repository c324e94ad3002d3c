"""How many more replicas the nodes hold, counting those that an autoscaled pool may still add. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from types import MappingProxyType

from aks_inference_runtime.api.kubernetes import SPOT_KEY
from aks_inference_runtime.kubernetes.client import Object
from aks_inference_runtime.kubernetes.quantities import quantity

POOL_LABEL = "kubernetes.azure.com/agentpool"
GPU = "nvidia.com/gpu"
GPU_TAINTS = frozenset({("sku", "gpu")})
"""Of the pools with GPUs that AksInferenceCluster makes, and of AKS's documents; who asks for a GPU bears it."""
_TURNED_AWAY = ("Unschedulable", "SchedulingGated")
NAMES = ("cpu", "memory", GPU, "pods")

Amounts = Mapping[str, float]
"""Of `NAMES`; a missing one is 0."""


@dataclass(frozen=True)
class Node:
    """A node as far as room goes."""

    name: str
    pool: str
    allocatable: Amounts
    schedulable: bool
    gpu_only: bool = False
    """Its taints keep all pods away that ask for no GPU."""
    spot: bool = False
    """Its taint keeps all pods away that do not bear it."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodNeed:
    """A pod that takes room."""

    node: str
    """Empty: it waits for one."""
    requests: Amounts
    daemon: bool = False
    """Every node has one like it, a new one too."""


def node_of(found: Object) -> Node:
    """A node."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    hard = [taint for taint in spec.get("taints") or () if taint.get("effect") in ("NoSchedule", "NoExecute")]
    spot = any(taint.get("key") == SPOT_KEY for taint in hard)
    hard = [taint for taint in hard if taint.get("key") != SPOT_KEY]
    taints = [taint for taint in hard if not _of_gpu(taint)]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    allocatable, labels = status.get("allocatable") or {}, metadata.get("labels") or {}
    return Node(
        metadata["name"],
        labels.get(POOL_LABEL, ""),
        {name: quantity(allocatable[name]) for name in NAMES if name in allocatable},
        ready and not taints and not spec.get("unschedulable"),
        len(hard) > len(taints),
        spot,
        labels,
    )


def _of_gpu(taint: Object) -> bool:
    return (taint.get("key"), taint.get("value")) in GPU_TAINTS or taint.get("key") == GPU


def need_of(found: Object) -> PodNeed | None:
    """A pod; None for one that is over."""
    spec, status = found.get("spec") or {}, found.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    owners = found["metadata"].get("ownerReferences") or ()
    return PodNeed(
        intern(spec.get("nodeName") or ""),
        _shared(tuple(sorted(requests_of(spec).items()))),
        any(owner.get("kind") == "DaemonSet" for owner in owners),
    )


def turned_away(found: Object) -> bool:
    """Whether the scheduler has no node for a pod, or is told to wait: it may stay so for ever."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "PodScheduled" and c.get("reason") in _TURNED_AWAY for c in conditions)


@lru_cache(maxsize=1_024)
def _shared(amounts: tuple[tuple[str, float], ...]) -> Amounts:
    """The replicas of a version ask for the same: one object for all of them."""
    return MappingProxyType(dict(amounts))


def requests_of(spec: Object) -> Amounts:
    """What a pod asks for: its containers and sidecars, or the largest of its other initial containers if more."""
    total: dict[str, float] = {"pods": 1.0}
    first: dict[str, float] = {}
    for container in spec.get("containers") or ():
        _add(total, container)
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            _add(total, container)
        else:
            own: dict[str, float] = {}
            _add(own, container)
            first = {name: max(first.get(name, 0.0), own.get(name, 0.0)) for name in {*first, *own}}
    return {name: max(total.get(name, 0.0), first.get(name, 0.0)) for name in {*total, *first}}


def by_node(pods: Iterable[PodNeed]) -> list[PodNeed]:
    """What all pods take, one entry a node for what each has and one for the rest (and one for those that wait)."""
    total: dict[tuple[str, bool], dict[str, float]] = {}
    for pod in pods:
        taken = total.setdefault((pod.node, pod.daemon), {})
        for name, amount in pod.requests.items():
            taken[name] = taken.get(name, 0.0) + amount
    return [PodNeed(node, taken, daemon) for (node, daemon), taken in total.items()]


def bears_spot(spec: Object) -> bool:
    """Whether pods of this specification may run on spot nodes."""
    return any(one.get("key") == SPOT_KEY for one in spec.get("tolerations") or ())


def room(
    need: Amounts,
    nodes: Iterable[Node],
    pods: Iterable[PodNeed],
    limits: Mapping[str, int],
    *,
    spot: bool = False,
    selector: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Further replicas of this need that fit.

    Args:
        need: Required. Of one replica.
        nodes, pods: Required. All there are. Pods that wait for a node take room too: of others than replicas those
            alone that the scheduler has not turned away.
        limits: Required. Autoscaled pool → the most nodes that it may have.
        spot: Optional. Whether they may run on spot nodes. Default: false.
        selector: Optional. Labels without which a node runs none of them. Default: none.
    """
    pools: dict[str, list[Node]] = {pool: [] for pool in limits}
    places = 0
    taken = by_node(pods)
    daemons = {one.node: one.requests for one in taken if one.daemon}
    used = {one.node: one.requests for one in by_node(PodNeed(one.node, one.requests) for one in taken)}
    for node in nodes:
        if node.pool in pools:
            pools[node.pool].append(node)
        if node.schedulable and _may_run(need, node, selector, spot=spot):
            places += _fit(need, node.allocatable, used.get(node.name, {}))
    for pool, there in pools.items():
        if not there:
            # What a node of it holds nobody knows before the first one is there, which comes for a pod that waits.
            places += min(1, limits[pool])
            continue
        # By its largest node: one that has just come may not tell yet of all that it has.
        fit = (
            _fit(need, n.allocatable, daemons.get(n.name, {})) for n in there if _may_run(need, n, selector, spot=spot)
        )
        places += max(0, limits[pool] - len(there)) * max(fit, default=0)
    waiting = used.get("", {})
    shares = [waiting[name] / need[name] for name in need if need[name] > 0 and name in waiting]
    return max(0, places - int(max(shares, default=0.0) + 0.999))


def _may_run(need: Amounts, node: Node, selector: Mapping[str, str], *, spot: bool) -> bool:
    if any(node.labels.get(name) != value for name, value in selector.items()):
        return False
    return (not node.gpu_only or bool(need.get(GPU))) and (spot or not node.spot)


def _fit(need: Amounts, allocatable: Amounts, used: Amounts) -> int:
    free = {name: allocatable.get(name, 0.0) - used.get(name, 0.0) for name in need}
    # The tolerance keeps ten pods of 0.1 cores on one core.
    return max(0, min((int(free[name] / need[name] + 1e-6) for name in need if need[name] > 0), default=0))


def _add(total: dict[str, float], container: Object) -> None:
    resources = container.get("resources") or {}
    # What has only a limit asks for it.
    for name, text in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
        if name in NAMES:
            total[name] = total.get(name, 0.0) + quantity(text)
