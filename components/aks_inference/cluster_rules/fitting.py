"""The declared services on the declared pools, at their minimum and at their maximum."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aks_inference.cluster_rules.capacity import (
    NEW_RESERVATION,
    NO_DAEMONS,
    VM_OVERHEAD,
    Resources,
    daemon_requests,
    for_workloads,
)
from aks_inference.cluster_rules.kinds import network_kind
from aks_inference.cluster_rules.model import Cluster, Pool
from aks_inference.cluster_rules.packing import NodeGroup, Packing, Pending, Verdict, Workload, pack
from aks_inference_runtime.api.kubernetes import SPOT_KEY

SPOT_TAINT = f"{SPOT_KEY}=spot:NoSchedule"
"""AKS puts it on every spot pool."""
POOL_LABEL = "kubernetes.azure.com/agentpool"


@dataclass(frozen=True)
class Service:
    """Replicas between two bounds. `most` = `least`: not scaled."""

    workload: Workload
    least: int
    most: int


@dataclass(frozen=True)
class Fit:
    """The answer for one number of replicas."""

    verdict: Verdict
    pending: tuple[Pending, ...]
    nodes_needed: tuple[tuple[str, int], ...]
    """By pool."""


@dataclass(frozen=True)
class FitReport:
    """At the services' minima and at their maxima, on as many nodes as the pools may have."""

    at_least: Fit
    at_most: Fit
    unknown_pools: tuple[str, ...]
    """Pools left out, whose size is not known."""

    def lines(self) -> tuple[str, ...]:
        """For people."""
        shown = []
        for when, fit in (("minimum", self.at_least), ("maximum", self.at_most)):
            nodes = ", ".join(f"{name} {count}" for name, count in fit.nodes_needed) or "none"
            shown.append(f"at the services' {when}: {fit.verdict}; nodes in use: {nodes}")
            shown += [f"  {pending.text()}" for pending in fit.pending]
        if self.unknown_pools:
            shown.append(f"not counted, size unknown: {', '.join(self.unknown_pools)}")
        return tuple(shown)


def fit_services(
    cluster: Cluster,
    services: Iterable[Service],
    version: tuple[int, int] = NEW_RESERVATION,
    daemons: Resources | None = None,
) -> FitReport:
    """Place the services on the cluster's pools at the autoscalers' maxima.

    `daemons` None: AKS's own and those of the add-ons that are on. "fits" holds with all of them and the safe bound
    of a node's memory, "cannot fit" without both.
    """
    # The figures of AKS's DaemonSets are reports, not a promise: they may warn, but rule nothing out.
    cautious, certain = daemons or daemon_requests(cluster), daemons or NO_DAEMONS
    known = [pool for pool in cluster.pools if pool.size is not None]
    safe = [group for pool in known if (group := node_group(cluster, pool, version, cautious, VM_OVERHEAD))]
    hopeful = [group for pool in known if (group := node_group(cluster, pool, version, certain, 0.0))]
    declared = list(services)
    unknown = tuple(pool.name for pool in cluster.pools if pool.size is None)
    return FitReport(
        at_least=_fit(safe, hopeful, [replace(one.workload, replicas=one.least) for one in declared], bool(unknown)),
        at_most=_fit(safe, hopeful, [replace(one.workload, replicas=one.most) for one in declared], bool(unknown)),
        unknown_pools=unknown,
    )


def node_group(
    cluster: Cluster, pool: Pool, version: tuple[int, int], daemons: Resources, vm_overhead: float
) -> NodeGroup | None:
    """The pool's nodes at its maximum; None for a size that is not known."""
    each = for_workloads(pool, network_kind(cluster.network), version, daemons, vm_overhead)
    if each is None:
        return None
    return NodeGroup(
        name=pool.name,
        nodes=pool.most_nodes,
        each=each,
        labels={POOL_LABEL: pool.name, **dict(pool.labels)},
        taints=(*pool.taints, *((SPOT_TAINT,) if pool.spot else ())),
    )


def _fit(safe: list[NodeGroup], hopeful: list[NodeGroup], workloads: list[Workload], unknown: bool) -> Fit:
    packing = pack(safe, workloads)
    verdict = packing.verdict
    if verdict is Verdict.CANNOT_FIT and (unknown or pack(hopeful, workloads).verdict is not Verdict.CANNOT_FIT):
        # A pool whose size is not known may hold the rest.
        verdict = Verdict.MAY_NOT_FIT
    return Fit(verdict, packing.pending, _needed(packing))


def _needed(packing: Packing) -> tuple[tuple[str, int], ...]:
    return tuple(packing.nodes_used.items())
