"""Rights of a cluster's identity: at every subnet of its pools before they are made, whoever made the identity."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from standin_identities import NETWORK_CONTRIBUTOR, judge_identity, judge_pool_identity
from standin_world import Refused, World

NET = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net/providers/Microsoft.Network"
NODES, OTHER = (f"{NET}/virtualNetworks/main/subnets/{name}" for name in ("nodes", "other"))
ADDRESS = f"{NET}/publicIPAddresses/out"
RANGES = 'service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10"'
BODY = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {"me": {}}}}


def world(*scopes: str) -> World:
    """Where the identity is a Network Contributor."""
    holds = lambda who, role, scope: role == NETWORK_CONTRIBUTOR and scope in scopes  # noqa: E731
    return World(date(2026, 11, 21), Path(), lambda _: None, holds, lambda *_: True)


def test_what_azure_refuses_without_the_role() -> None:
    for name in ("vnetSubnetID", "podSubnetID", "nodePublicIPPrefixID"):
        with pytest.raises(Refused, match="LinkedAuthorizationFailed"):
            judge_pool_identity({name: OTHER}, BODY, world(NODES))
        judge_pool_identity({name: OTHER}, BODY, world(OTHER))
    balanced = {"networkProfile": {"loadBalancerProfile": {"outboundIPs": {"publicIPs": [{"id": ADDRESS}]}}}}
    with pytest.raises(Refused, match="LinkedAuthorizationFailed"):
        judge_identity(BODY, balanced, world())
    judge_identity(BODY, balanced, world(ADDRESS))


@pytest.mark.long
@pytest.mark.parametrize("identity", ["", "identity=dict(system_assigned=True)"])
def test_a_pool_in_a_subnet_of_its_own(stack: Any, azure: Any, identity: str) -> None:
    network = f'network=dict(plugin="azure", subnet_id="{NODES}", {RANGES})'
    pool = 'pools=[dict(name="cpu", vm_size="Standard_D4s_v5", count=3, subnet_id="%s")]'
    stack.program(network, pool % OTHER, *([identity] if identity else []))
    stack.up()
    roles = {one["id"].partition("/providers/Microsoft.Authorization")[0] for one in azure.resources().values()
             if one["type"] == "Microsoft.Authorization/roleAssignments"}  # fmt: skip
    assert roles == {NODES, OTHER}
    kinds = [line.split()[1].rsplit("/", 1)[-1] for line in azure.log()]
    kinds = [kind for kind in kinds if kind in {"roleAssignments", "managedClusters", "agentPools"}]
    first = ["managedClusters", "roleAssignments", "roleAssignments"]
    assert kinds == [*(first if identity else first[1:] + first[:1]), "agentPools"]
    assert set(stack.steps()) == {"same"}
