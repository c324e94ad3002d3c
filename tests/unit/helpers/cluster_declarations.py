"""A cluster that breaks no rule, and ways to change a part of it."""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from aks_inference.cluster_rules import (
    Access,
    Cluster,
    Network,
    Pool,
    Subnet,
)
from aks_inference.findings import Severity
from aks_inference.vm_sizes import VmSize

TODAY = date(2026, 11, 21)
VNET = "/subscriptions/0/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/main"
D4 = VmSize("Standard_D4s_v5", 4, 16, 0)
T4 = VmSize("Standard_NC4as_T4_v3", 4, 28, 1)
ERROR, WARNING = Severity.ERROR, Severity.WARNING

SYSTEM = Pool("system", D4.name, D4, mode="System", count=3, zones=("1", "2", "3"), path=("system_pool",))
INFERENCE = Pool("inference", D4.name, D4, count=3)
OVERLAY = Network(plugin="azure", plugin_mode="overlay", dataplane="cilium", policy="cilium")
BASE = Cluster(
    name="scoring",
    location="westeurope",
    pools=(SYSTEM, INFERENCE),
    network=OVERLAY,
    kubernetes_version="1.35",
    tier="Standard",
    upgrade_channel="patch",
    node_os_upgrade_channel="NodeImage",
    today=TODAY,
)


def subnet(name: str = "nodes", cidr: str | None = "10.1.0.0/20", **known: Any) -> Subnet:
    return Subnet(f"{VNET}/subnets/{name}", cidr, **known)


NODE_SUBNET = Network(plugin="azure", subnet=subnet(), service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10")


@dataclass(frozen=True)
class Case:
    """A declaration and the finding that it must bring."""

    number: str
    path: str
    """In snake_case."""
    says: str
    """Part of the text."""
    cluster: Cluster
    severity: Severity = ERROR


def naming(path: tuple[str | int, ...], kind: str, resource_id: str) -> Cluster:
    return replace(BASE, ids=((path, kind, resource_id),))


def having(**parts: Any) -> Cluster:
    return replace(BASE, **parts)


def pool(**parts: Any) -> Cluster:
    return replace(BASE, pools=(SYSTEM, replace(INFERENCE, **parts)))


def system(**parts: Any) -> Cluster:
    return replace(BASE, pools=(replace(SYSTEM, **parts), INFERENCE))


def network(**parts: Any) -> Cluster:
    return replace(BASE, network=replace(OVERLAY, **parts))


def in_subnet(**parts: Any) -> Cluster:
    return replace(BASE, network=replace(NODE_SUBNET, **parts))


def private(**parts: Any) -> Cluster:
    return having(access=Access(private_cluster=True, **parts))


def nodes(count: int, kind: Network = OVERLAY, **parts: Any) -> Cluster:
    return replace(BASE, network=kind, pools=(SYSTEM, replace(INFERENCE, count=count, **parts)))


LONG = "n" * 64
KUBENET = Network(plugin="kubenet")
ZONE = "/subscriptions/0/resourceGroups/dns/providers/Microsoft.Network/privateDnsZones/privatelink.{}.azmk8s.io"

AUTOSCALED = pool(autoscale=True, min_count=1, max_count=5)
