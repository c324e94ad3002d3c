"""The roles that a cluster's own identity needs, and where: on what is the user's in the network, at zone and vault.

aks-rules 1.5, 1.12, 2.15, 3, 4, 12, 13; Doc configure-load-balancer-standard.md for addresses, private-clusters.md for
the whole network beside an own zone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pulumi

from aks_inference.aks_cluster.spec import ClusterPlan

NETWORK = "Network Contributor"


@dataclass(frozen=True)
class Right:
    """A role at a scope."""

    suffix: str
    """Of the assignment's name."""
    scope: Any
    """A resource id, maybe known only later."""
    role: str


def rights(plan: ClusterPlan, subnet: object) -> list[Right]:
    """All of them, each scope once: Azure refuses the same assignment twice. `subnet`: the nodes'."""
    found: list[Right] = []
    for right in (*_network(plan, subnet), *_others(plan)):
        if not any(_same(right.scope, one.scope) and right.role == one.role for one in found):
            found.append(right)
    return found


def _network(plan: ClusterPlan, subnet: object) -> Iterator[Right]:
    network, access = plan.network.spec, plan.access
    scopes = [
        ("subnet", subnet),
        ("pod-subnet", network.pod_subnet_id),
        ("api-subnet", access.api_server_subnet_id),
        ("routes", network.route_table_id),
    ]
    for pool in plan.pools:
        name, spec = pool.spec.name, pool.spec
        scopes += [
            (f"{name}-subnet", spec.subnet_id),
            (f"{name}-pod-subnet", spec.pod_subnet_id),
            (f"{name}-addresses", spec.node_public_ip_prefix_id),
        ]
    scopes += [(f"address-{index}", one) for index, one in enumerate(plan.egress.outbound_ip_ids)]
    if own_zone(plan) and subnet is not None:
        # It is linked to the network.
        known: pulumi.Output[Any] = pulumi.Output.from_input(subnet)
        scopes.append(("network", known.apply(lambda text: text.rsplit("/subnets/", 1)[0])))
    yield from (Right(suffix, scope, NETWORK) for suffix, scope in scopes if scope is not None)


def _others(plan: ClusterPlan) -> Iterator[Right]:
    security, kubelet = plan.security, plan.identity.kubelet_identity_id
    if own_zone(plan):
        yield Right("zone", plan.access.private_dns_zone, "Private DNS Zone Contributor")
    if kubelet is not None:
        yield Right("kubelet", kubelet, "Managed Identity Operator")
    if security.kms and security.kms_vault_id is not None:
        # The key is used as the cluster comes up.
        yield Right("kms-key", security.kms_vault_id, "Key Vault Crypto User")
        if security.kms_network_access == "Private":
            yield Right("kms-vault", security.kms_vault_id, "Key Vault Contributor")


def own_zone(plan: ClusterPlan) -> bool:
    """Whether the private DNS zone is the user's."""
    zone = plan.access.private_dns_zone
    return zone is not None and zone not in ("system", "none")


def _same(one: object, other: object) -> bool:
    return one is other or (isinstance(one, str) and isinstance(other, str) and one.lower() == other.lower())
