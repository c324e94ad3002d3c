"""The roles that a cluster's own identity needs: at everything of the user's that the cluster uses, each once."""

from datetime import date
from typing import Any

import pulumi
import pytest

from aks_inference.aks_cluster.rights import rights
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster

NET = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net/providers/Microsoft.Network"
MAIN = f"{NET}/virtualNetworks/main"
NODES, PODS, OTHER = (f"{MAIN}/subnets/{name}" for name in ("nodes", "pods", "other"))
ZONE = f"{NET}/privateDnsZones/privatelink.westeurope.azmk8s.io"
IN_SUBNET = {"plugin": "azure", "subnet_id": NODES, "service_cidr": "10.0.0.0/16", "dns_service_ip": "10.0.0.10"}
CPU = {"name": "cpu", "vm_size": "Standard_D4s_v5", "count": 3}


def held(subnet: object = NODES, **declared: Any) -> dict[str, tuple[Any, str]]:
    plan, findings = plan_cluster("prod", {"location": "westeurope", **declared}, date(2026, 11, 21))
    assert isinstance(plan, ClusterPlan), findings
    found = rights(plan, subnet)
    named = {one.suffix: (one.scope, one.role) for one in found}
    assert len(named) == len(found)
    return named


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        ({"network": IN_SUBNET}, {"subnet": NODES}),
        ({"network": {**IN_SUBNET, "pod_subnet_id": PODS}}, {"subnet": NODES, "pod-subnet": PODS}),
        ({"network": IN_SUBNET, "pools": [{**CPU, "subnet_id": OTHER}]}, {"subnet": NODES, "cpu-subnet": OTHER}),
        # The same subnet in other letters is the same scope, and Azure refuses an assignment twice.
        ({"network": IN_SUBNET, "pools": [{**CPU, "subnet_id": NODES.replace("nodes", "Nodes")}]}, {"subnet": NODES}),
        (
            {"network": {**IN_SUBNET, "pod_subnet_id": PODS}, "pools": [{**CPU, "pod_subnet_id": OTHER}]},
            {"subnet": NODES, "pod-subnet": PODS, "cpu-pod-subnet": OTHER},
        ),
        (
            {"network": {**IN_SUBNET, "plugin": "kubenet", "route_table_id": f"{NET}/routeTables/t"}},
            {"subnet": NODES, "routes": f"{NET}/routeTables/t"},
        ),
        (
            {"network": IN_SUBNET, "egress": {"outbound_ip_ids": [f"{NET}/publicIPAddresses/a"]}},
            {"subnet": NODES, "address-0": f"{NET}/publicIPAddresses/a"},
        ),
        (
            {
                "network": IN_SUBNET,
                "pools": [{**CPU, "node_public_ip": True, "node_public_ip_prefix_id": f"{NET}/publicIPPrefixes/p"}],
            },
            {"subnet": NODES, "cpu-addresses": f"{NET}/publicIPPrefixes/p"},
        ),
    ],
)
def test_a_contributor_of_what_the_network_uses(declared: dict[str, Any], wanted: dict[str, str]) -> None:
    assert held(**declared) == {suffix: (scope, "Network Contributor") for suffix, scope in wanted.items()}


async def test_an_id_that_is_known_later_is_one_scope() -> None:
    later: pulumi.Output[str] = pulumi.Output.from_input(OTHER)
    pools = [{**CPU, "subnet_id": later}, {**CPU, "name": "more", "subnet_id": later}]
    assert set(held(network=IN_SUBNET, pools=pools)) == {"subnet", "cpu-subnet"}


async def test_beside_an_own_zone_the_whole_network() -> None:
    private = {"private_cluster": True, "private_dns_zone": ZONE}
    found = held(network=IN_SUBNET, access=private)
    assert set(found) == {"subnet", "network", "zone"}
    assert found["zone"] == (ZONE, "Private DNS Zone Contributor")
    assert found["network"][1] == "Network Contributor"
    # AKS's own network is in a group where the identity may do everything.
    assert set(held(None, access=private)) == {"zone"}
