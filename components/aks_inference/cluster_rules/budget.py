"""Addresses that nodes and pods need (aks-rules 2.9 – 2.13), at the autoscalers' maxima and while upgrading."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aks_inference.cluster_rules.addresses import parse_range, smallest_block, smallest_prefix, usable
from aks_inference.cluster_rules.kinds import NetworkKind, max_pods, network_kind, surge_nodes
from aks_inference.cluster_rules.model import Cluster, Pool, Subnet
from aks_inference.cluster_rules.ranges import DEFAULT_POD
from aks_inference.cluster_rules.rulebook import Rule, RuleFinding, error
from aks_inference.findings import Path, Severity

_PLAN = "Doc concepts-network-ip-address-planning.md 2026-04-16"
OVERLAY_PODS = error(
    "2.9",
    "overlay: the pod range holds a /24 for every node",
    "github.com/Azure/AKS-Construction issue 701, github.com/Azure/AKS issue 4467",
)
NODE_SUBNET = error("2.10", "node subnet: room for nodes and pods", f"{_PLAN}; github.com/Azure/AKS issue 456")
NODES = error(
    "2.11",
    "node subnet: room for nodes",
    "SupportArticles insufficientsubnetsize-error-advanced-networking.md 2025-02-20",
)
POD_SUBNET = error("2.12", "pod subnet: room for pods", "Doc concepts-network-azure-cni-pod-subnet.md")

NODE_BLOCK = 256
"""Overlay: the /24 of each node."""
POD_BATCH = 16
"""Pod subnet: addresses are given to a node by sixteen."""


@dataclass(frozen=True)
class AddressNeed:
    """What a range must hold."""

    rule: Rule
    path: Path
    range_text: str
    needed: int
    available: int
    nodes: int
    surge: int
    prefix: int
    """Of the smallest range that suffices."""
    surely: int
    """Needed with the smaller of the two surges that are said to be the default."""
    by_pool: Mapping[str, int]
    """The same, by the pool's name."""

    @property
    def enough(self) -> bool:
        """Whether it fits."""
        return self.needed <= self.available


def check_budget(cluster: Cluster) -> Iterator[RuleFinding]:
    """A finding for every range that is too small."""
    for need in address_needs(cluster):
        if not need.enough:
            more = " (the autoscalers' maxima count)" if any(pool.autoscale for pool in cluster.pools) else ""
            yield need.rule.broken(
                need.path,
                need.range_text,
                f"{need.nodes} nodes and {need.surge} more while upgrading{more} need {need.needed:,} addresses, "
                f"{_length(need.range_text)} has {need.available:,}",
                f"use /{need.prefix}" if need.prefix >= 8 else "use fewer nodes or @max_pods",
                Severity.ERROR if need.surely > need.available else Severity.WARNING,
            )


def address_needs(cluster: Cluster) -> tuple[AddressNeed, ...]:
    """The budget of every range whose size is known: for the report as well as for the rule."""
    kind = network_kind(cluster.network)
    needs = [_nodes_range(cluster, kind)]
    if kind is NetworkKind.OVERLAY:
        needs.append(_overlay_pods(cluster))
    if kind is NetworkKind.POD_SUBNET:
        needs.append(_pod_subnet(cluster))
    return tuple(need for need in needs if need is not None)


def _nodes_range(cluster: Cluster, kind: NetworkKind) -> AddressNeed | None:
    subnet = cluster.network.subnet
    if subnet is None:
        return None
    pools = [pool for pool in cluster.pools if (pool.subnet_id or subnet.id).lower() == subnet.id.lower()]
    with_pods = kind is NetworkKind.NODE_SUBNET
    return _need(
        NODE_SUBNET if with_pods else NODES,
        (*cluster.network.path, "subnet_id"),
        subnet,
        [(pool, (max_pods(pool, kind) if with_pods else 0) + 1) for pool in pools],
    )


def _overlay_pods(cluster: Cluster) -> AddressNeed | None:
    path, text = (*cluster.network.path, "pod_cidr"), cluster.network.pod_cidr or DEFAULT_POD
    return _need(OVERLAY_PODS, path, text, [(pool, NODE_BLOCK) for pool in cluster.pools])


def _pod_subnet(cluster: Cluster) -> AddressNeed | None:
    network, subnet = cluster.network, cluster.network.pod_subnet
    if subnet is None:
        return None
    static = network.pod_ip_allocation == "StaticBlock"
    pools = [pool for pool in cluster.pools if (pool.pod_subnet_id or subnet.id).lower() == subnet.id.lower()]
    batches = [math.ceil((max_pods(pool, NetworkKind.POD_SUBNET) + 1) / POD_BATCH) if static else 1 for pool in pools]
    each = [(pool, POD_BATCH * count) for pool, count in zip(pools, batches, strict=True)]
    return _need(POD_SUBNET, (*network.path, "pod_subnet_id"), subnet, each)


def _need(rule: Rule, path: Path, place: Subnet | str, per_node: list[tuple[Pool, int]]) -> AddressNeed | None:
    """Addresses per node of each pool against a subnet or a plain range; None where nothing can be said."""
    text = place if isinstance(place, str) else place.cidr
    parsed = parse_range(text)
    if text is None or parsed is None or parsed.version != 4 or not per_node:
        return None
    needed = sum((pool.most_nodes + surge_nodes(pool)) * each for pool, each in per_node)
    used = 0 if isinstance(place, str) else place.used_addresses
    surely = {pool.name: (pool.most_nodes + surge_nodes(pool, 0)) * each for pool, each in per_node}
    return AddressNeed(
        rule=rule,
        path=path,
        range_text=text,
        needed=needed,
        available=parsed.num_addresses if isinstance(place, str) else max(0, usable(parsed) - used),
        nodes=sum(pool.most_nodes for pool, _ in per_node),
        surge=sum(surge_nodes(pool) for pool, _ in per_node),
        prefix=smallest_block(needed) if isinstance(place, str) else smallest_prefix(needed + used),
        surely=sum(surely.values()),
        by_pool=surely,
    )


def _length(text: str) -> str:
    return f"/{text.rsplit('/', 1)[-1]}"
