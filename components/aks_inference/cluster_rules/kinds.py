"""What follows from the network model: its name, the default of pods per node, nodes while upgrading, ids."""

import re
from dataclasses import dataclass
from enum import StrEnum

from aks_inference.cluster_rules.model import Network, Pool


class NetworkKind(StrEnum):
    """The network models of AKS."""

    OVERLAY = "Azure CNI Overlay"
    NODE_SUBNET = "Azure CNI node subnet"
    POD_SUBNET = "Azure CNI pod subnet"
    KUBENET = "kubenet"
    NONE = "bring your own CNI"


DEFAULT_MAX_PODS = {
    NetworkKind.OVERLAY: 250,
    NetworkKind.POD_SUBNET: 110,
    NetworkKind.NODE_SUBNET: 30,
    NetworkKind.KUBENET: 110,
    NetworkKind.NONE: 250,
}
"""Doc concepts-network-ip-address-planning.md 2026-04-16."""


def network_kind(network: Network) -> NetworkKind:
    """The model that AKS takes for these arguments (without any: overlay, azure-cni-overlay.md 2026-07-31)."""
    if network.plugin == "kubenet":
        return NetworkKind.KUBENET
    if network.plugin == "none":
        return NetworkKind.NONE
    if network.plugin_mode == "overlay" or network.plugin is None:
        return NetworkKind.OVERLAY
    return NetworkKind.POD_SUBNET if network.pod_subnet is not None else NetworkKind.NODE_SUBNET


def max_pods(pool: Pool, kind: NetworkKind) -> int:
    """Pods per node of the pool."""
    return pool.max_pods if pool.max_pods is not None else DEFAULT_MAX_PODS[kind]


_AMOUNT = re.compile(r"([0-9]+)(%?)")


def parse_amount(text: str | None, nodes: int) -> int | None:
    """`3` or `33%` of the nodes, rounded up; None when it is neither."""
    match = _AMOUNT.fullmatch(text) if text is not None else None
    if match is None:
        return None
    return -(-nodes * int(match[1]) // 100) if match[2] else int(match[1])


def surge_nodes(pool: Pool, default_percent: int = 10) -> int:
    """Nodes that an upgrade adds to the pool at its largest; never more than it has.

    Default: documents say one node, the API's text says 10 %; the larger of both covers them (aks-rules 2.13).
    `default_percent` 0: the documents' one node.
    """
    nodes = pool.most_nodes
    if pool.max_surge is None:
        unavailable = parse_amount(pool.max_unavailable, nodes) or 0
        surge = 0 if unavailable else max(1, -(-nodes * default_percent // 100))
    else:
        surge = parse_amount(pool.max_surge, nodes) or 0
    return min(surge, nodes)


@dataclass(frozen=True)
class ResourceId:
    """The parts of an Azure resource id."""

    subscription: str
    group: str
    provider: str
    names: tuple[tuple[str, str], ...]
    """(type, name) pairs: ("virtualNetworks", "v"), ("subnets", "s")."""

    @property
    def name(self) -> str:
        """Of the last part."""
        return self.names[-1][1]


_ID = re.compile(r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/([^/]+)((?:/[^/]+/[^/]+)+)/?", re.IGNORECASE)


def parse_id(text: str | None) -> ResourceId | None:
    """The parts; None when it is no resource id."""
    match = _ID.fullmatch(text) if text is not None else None
    if match is None:
        return None
    parts = match[4].strip("/").split("/")
    return ResourceId(match[1], match[2], match[3], tuple(zip(parts[::2], parts[1::2], strict=True)))


def parse_subnet_id(text: str | None) -> ResourceId | None:
    """The parts of a subnet's id; None when it is none."""
    parsed = parse_id(text)
    if parsed is None or parsed.provider.lower() != "microsoft.network":
        return None
    kinds = [kind.lower() for kind, _ in parsed.names]
    return parsed if kinds == ["virtualnetworks", "subnets"] else None
