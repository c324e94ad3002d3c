"""Addresses that nodes and pods need (aks-rules 2.9 – 2.13), at the autoscalers' maxima and while upgrading."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from aks_inference.cluster_rules.addresses import Range, parse_range, smallest_block, smallest_prefix, usable
from aks_inference.cluster_rules.kinds import NetworkKind, max_pods, network_kind, surge_nodes
from aks_inference.cluster_rules.model import Cluster, Pool, Subnet
from aks_inference.cluster_rules.ranges import DEFAULT_POD
from aks_inference.cluster_rules.rulebook import Rule, RuleFinding, error
from aks_inference.findings import Path

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
            )


def address_needs(cluster: Cluster) -> tuple[AddressNeed, ...]:
    """The budget of every range whose size is known: for the report as well as for the rule."""
    kind = network_kind(cluster.network)
    needs = [*_subnet_needs(cluster, kind)]
    if kind is NetworkKind.OVERLAY:
        needs += _overlay_pods(cluster)
    if kind is NetworkKind.POD_SUBNET:
        needs += _pod_subnet(cluster)
    return tuple(needs)


def _subnet_needs(cluster: Cluster, kind: NetworkKind) -> Iterator[AddressNeed]:
    network = cluster.network
    if network.subnet is None:
        return
    pools = _by_subnet(cluster, network.subnet)
    parsed = parse_range(network.subnet.cidr)
    if parsed is None or parsed.version != 4 or network.subnet.cidr is None or not pools:
        return
    each = [_nodes(pool) * ((max_pods(pool, kind) if kind is NetworkKind.NODE_SUBNET else 0) + 1) for pool in pools]
    yield _need(
        NODE_SUBNET if kind is NetworkKind.NODE_SUBNET else NODES,
        (*network.path, "subnet_id"),
        network.subnet,
        parsed,
        sum(each),
        pools,
    )


def _overlay_pods(cluster: Cluster) -> Iterator[AddressNeed]:
    text = cluster.network.pod_cidr or DEFAULT_POD
    parsed = parse_range(text)
    if parsed is None or parsed.version != 4 or not cluster.pools:
        return
    needed = sum(map(_nodes, cluster.pools)) * NODE_BLOCK
    yield AddressNeed(
        rule=OVERLAY_PODS,
        path=(*cluster.network.path, "pod_cidr"),
        range_text=text,
        needed=needed,
        available=parsed.num_addresses,
        nodes=sum(pool.most_nodes for pool in cluster.pools),
        surge=sum(map(surge_nodes, cluster.pools)),
        prefix=smallest_block(needed),
    )


def _pod_subnet(cluster: Cluster) -> Iterator[AddressNeed]:
    network = cluster.network
    subnet = network.pod_subnet
    parsed = parse_range(subnet.cidr) if subnet else None
    if subnet is None or parsed is None or parsed.version != 4:
        return
    pools = [
        pool for pool in cluster.pools if pool.pod_subnet_id is None or pool.pod_subnet_id.lower() == subnet.id.lower()
    ]
    static = network.pod_ip_allocation == "StaticBlock"
    needed = sum(
        _nodes(pool)
        * POD_BATCH
        * (math.ceil((max_pods(pool, NetworkKind.POD_SUBNET) + 1) / POD_BATCH) if static else 1)
        for pool in pools
    )
    if pools:
        yield _need(POD_SUBNET, (*network.path, "pod_subnet_id"), subnet, parsed, needed, pools)


def _need(rule: Rule, path: Path, subnet: Subnet, parsed: Range, needed: int, pools: list[Pool]) -> AddressNeed:
    return AddressNeed(
        rule=rule,
        path=path,
        range_text=str(subnet.cidr),
        needed=needed,
        available=max(0, usable(parsed) - subnet.used_addresses),
        nodes=sum(pool.most_nodes for pool in pools),
        surge=sum(map(surge_nodes, pools)),
        prefix=smallest_prefix(needed + subnet.used_addresses),
    )


def _by_subnet(cluster: Cluster, subnet: Subnet) -> list[Pool]:
    """The pools whose nodes are in the cluster's subnet (a pool may name its own)."""
    grouped: defaultdict[str, list[Pool]] = defaultdict(list)
    for pool in cluster.pools:
        grouped[(pool.subnet_id or subnet.id).lower()].append(pool)
    return grouped[subnet.id.lower()]


def _nodes(pool: Pool) -> int:
    return pool.most_nodes + surge_nodes(pool)


def _length(text: str) -> str:
    return f"/{text.rsplit('/', 1)[-1]}"
