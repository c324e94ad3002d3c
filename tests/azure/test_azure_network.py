"""The virtual network is looked up at preview where credentials allow: what the arguments did not say."""

from typing import Any

import pytest

from aks_inference_provider.resources.aks_network import network_failures, network_id

GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net"
NETWORK = f"{GROUP}/providers/Microsoft.Network/virtualNetworks/main"
GIVEN = {
    "subnetId": f"{NETWORK}/subnets/nodes",
    "location": "West Europe",
    "serviceCidr": "10.0.0.0/16",
    "podCidr": "10.244.0.0/16",
    "outboundType": "loadBalancer",
    "neededAddresses": 200.0,
}


def body(**nodes: Any) -> dict[str, Any]:
    subnets = [
        {"name": "Nodes", "properties": {"addressPrefix": "10.1.0.0/24", **nodes}},
        {"name": "other", "properties": {"addressPrefixes": ["10.1.1.0/24"]}},
    ]
    return {"location": "westeurope", "properties": {"subnets": subnets}}


@pytest.mark.parametrize(
    ("network", "given", "says"),
    [
        (None, {}, "does not exist, or you have no right to see it"),
        ({"location": "westeurope", "properties": {"subnets": []}}, {}, "does not exist; the network's subnets: none"),
        ({**body(), "location": "northeurope"}, {}, "is in northeurope, the cluster in westeurope"),
        (body(delegations=[{"properties": {"serviceName": "Microsoft.Web/s"}}]), {}, "delegated to Microsoft.Web"),
        (body(), {"outboundType": "userDefinedRouting"}, "has no route table"),
        (body(), {"outboundType": "userAssignedNATGateway"}, "has no NAT gateway"),
        (body(routeTable={"id": "/s/routeTables/t"}), {"ownRoutes": False}, "role at the subnet's route table, /s/rou"),
        (body(), {"serviceCidr": "10.1.0.0/16"}, "overlaps the subnet nodes, 10.1.0.0/24"),
        (body(), {"podCidr": "10.1.1.0/25"}, "overlaps the subnet other"),
        (body(), {"neededAddresses": 1581.0}, "needs 1,581 addresses, the subnet has 251 free; use /21"),
        (body(ipConfigurations=[{}] * 100), {}, "needs 200 addresses, the subnet has 151 free; use /23"),
    ],
)  # fmt: skip
def test_what_is_wrong(network: Any, given: dict[str, Any], says: str) -> None:
    found = [failure.reason for failure in network_failures(network, {**GIVEN, **given})]
    assert found
    assert any(says in reason for reason in found), found


def test_peered_ranges_and_what_is_right() -> None:
    assert list(network_failures(body(), GIVEN)) == []
    routed = body(routeTable={"id": "/s/routeTables/t"})
    for known in ({}, {"ownRoutes": True}):
        assert list(network_failures(routed, {**GIVEN, **known})) == []
    peered = body()
    remote = {"remoteAddressSpace": {"addressPrefixes": ["10.244.8.0/24"]}}
    peered["properties"]["virtualNetworkPeerings"] = [{"properties": remote}]
    (failure,) = network_failures(peered, GIVEN)
    assert "overlaps the peered network, 10.244.8.0/24" in failure.reason
    assert network_id(GIVEN) == NETWORK
    assert network_id({"subnetId": "nodes"}) is None


def test_at_preview(stack: Any, azure: Any, tables: Any) -> None:
    from standin_http import ArmServer

    ranges = 'service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10"'
    stack.program(f'network=dict(plugin="azure", subnet_id="{NETWORK}/subnets/nodes", {ranges})', "agent_count=50")
    with ArmServer(azure) as server:
        stack.environment |= server.environment
        assert "does not exist, or you have no right to see it" in stack.preview(code=1)
        made = {"location": "westeurope", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]},
                "subnets": [{"name": "nodes", "properties": {"addressPrefix": "10.1.0.0/24"}}]}}  # fmt: skip
        azure.put(tables.kind("azure-native:network:VirtualNetwork"), NETWORK, made)
        assert "the subnet has 251 free; use /21" in stack.preview(code=1)
        made["properties"]["subnets"][0]["properties"]["addressPrefix"] = "10.1.0.0/20"  # type: ignore[index]
        azure.put(tables.kind("azure-native:network:VirtualNetwork"), NETWORK, made)
        stack.preview()
