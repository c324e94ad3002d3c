"""A cluster's life on the stand-in of Azure: made, unchanged, changed in place, pools replaced, refused, removed."""

from collections.abc import Callable
from typing import Any

import pytest

OVERLAY = 'network=dict(plugin="azure", plugin_mode="overlay", pod_cidr="10.244.0.0/16")'
SIZE = 'vm_size="Standard_D4s_v5"'


def pools(azure: Any) -> list[str]:
    return [line for line in azure.log() if "agentPools" in line]


def clusters(azure: Any) -> list[str]:
    return [line for line in azure.log() if line.split()[1].endswith("/managedClusters")]


def test_twice_the_same_then_changed_then_gone(stack: Any, azure: Any) -> None:
    stack.program(OVERLAY, SIZE)
    shown = stack.preview()
    assert "FastProd needs at least 12: ok" in shown
    assert "USD" in shown
    assert "required hosts: " in shown
    stack.up()
    assert clusters(azure) == ["PUT Microsoft.ContainerService/managedClusters prod"]
    before = azure.log()
    assert set(stack.steps()) == {"same"}
    stack.up()
    assert azure.log() == before

    # One node more is a change in place, and says what it costs.
    stack.program(OVERLAY, SIZE, "agent_count=4")
    assert "cost of this change: USD +" in stack.preview()
    stack.up()
    assert len(pools(azure)) == 2
    assert pools(azure)[0] == pools(azure)[1]

    # Another size is another pool: the new one first, then the old one goes.
    stack.program(OVERLAY, 'vm_size="Standard_D8s_v5"', "agent_count=4")
    stack.up()
    made, gone = pools(azure)[2:]
    assert (made.split()[0], gone.split()[0]) == ("PUT", "DELETE")
    assert made.split()[2] != gone.split()[2]
    assert len(clusters(azure)) == 1

    # A lock keeps it, and what was under way goes on when the lock is gone.
    (cluster,) = (one["id"] for one in azure.resources().values() if one["type"].endswith("/managedClusters"))
    azure.configure(locks=[cluster])
    assert "ScopeLocked" in stack.destroy(code=1)
    azure.configure(locks=[])
    stack.destroy()
    assert azure.resources() == {}


def test_a_replacement_is_refused_unless_it_is_meant(stack: Any, azure: Any) -> None:
    stack.program(OVERLAY, SIZE)
    stack.up()
    before = azure.log()
    moved = OVERLAY.replace("10.244", "10.245")
    stack.program(moved, SIZE)
    for text in (stack.preview(code=1), stack.up(code=1)):
        assert 'network.podCidr changes from "10.244.0.0/16" to "10.245.0.0/16"' in text
        assert "the cluster is deleted and made anew" in text
        assert "allow_replacement" in text
    assert azure.log() == before
    stack.program(moved, SIZE, "allow_replacement=True")
    shown = stack.preview()
    assert "agreed to by allowReplacement" in shown
    assert "replace" in shown
    stack.up()
    assert [line.split()[0] for line in clusters(azure)] == ["PUT", "DELETE", "PUT"]


@pytest.mark.long
def test_the_system_pool_takes_the_cluster_with_it(stack: Any, azure: Any) -> None:
    stack.program(OVERLAY, SIZE)
    stack.up()
    change = 'system_pool=dict(vm_size="Standard_D8s_v5")'
    stack.program(OVERLAY, SIZE, change)
    assert "systemPool.vmSize changes from" in stack.preview(code=1)
    stack.program(OVERLAY, SIZE, change, "allow_replacement=True")
    stack.up()
    assert [line.split()[0] for line in clusters(azure)] == ["PUT", "DELETE", "PUT"]


@pytest.mark.long
def test_an_autoscaled_pool_keeps_the_autoscalers_count(stack: Any, azure: Any) -> None:
    pool = 'pools=[dict(name="cpu", vm_size="Standard_D4s_v5", autoscale=True, min_count=3, max_count=9, count={})]'
    stack.program(OVERLAY, pool.format(3))
    stack.up()
    stack.program(OVERLAY, pool.format(5))
    assert set(stack.steps()) <= {"same", "update"}
    before = pools(azure)
    stack.up()
    assert pools(azure) == before


@pytest.mark.long
def test_a_pool_with_its_own_name_goes_first(stack: Any, azure: Any) -> None:
    """What a pool keeps for life is planned as the replacement that it is, also where Pulumi knows nothing of it."""
    pools_ = 'pools=[dict(name="cpu", exact_name=True, vm_size="Standard_D4s_v5", count=3, max_pods={})]'
    stack.program(OVERLAY, pools_.format(60))
    stack.up()
    stack.program(OVERLAY, pools_.format(80))
    assert stack.steps().get("replace") == 2  # the pool, and the record of what is to be moved before it goes
    said = stack.up()
    assert [line.split()[0] for line in pools(azure)] == ["PUT", "DELETE", "PUT"]
    # What runs on it is moved before.
    assert said.index("PoolDrain prod-cpu deleting") < said.index("AgentPool prod-cpu deleting")
    assert set(stack.steps()) == {"same"}


@pytest.mark.long
def test_what_aks_does_not_change_back_is_refused(stack: Any, azure: Any) -> None:
    stack.program(OVERLAY, SIZE, 'kubernetes_version="1.36"')
    stack.up()
    before = azure.log()
    stack.program(OVERLAY, SIZE, 'kubernetes_version="1.35"', "access=dict(private_cluster=True)")
    for said in (stack.preview(code=1), stack.up(code=1)):
        assert "kubernetesVersion: goes back from 1.36 to 1.35" in said
        assert "access.privateCluster: changes from false to true" in said
    assert azure.log() == before


def test_azure_that_is_slow_busy_and_throttled(stack: Any, azure: Any) -> None:
    azure.configure(seconds=1, throttle=5)
    window = 'maintenance_windows=[dict(applies_to="nodes", day_of_week="Sunday", start_time="02:00")]'
    often = "from aks_inference.aks_cluster import watching\nwatching.STATUS_S = watching.LINE_S = 0.1\n"
    stack.program(OVERLAY, SIZE, window, head=often)
    said = stack.up()
    # How it goes meanwhile, in Azure's own words.
    assert "AKS cluster prod: Creating, since" in said
    assert "AKS cluster prod: done after" in said
    assert "node pool infer" in said
    assert {one["state"] for one in azure.resources().values()} == {"Succeeded"}


def test_what_only_azure_knows(stack: Any, azure: Any) -> None:
    azure.configure(clusters=0)
    stack.program(OVERLAY, SIZE)
    assert "ManagedClusterCountExceedsQuotaLimit" in stack.up(code=1)
    azure.configure(clusters=10, deny_public_ips=True)
    assert "RequestDisallowedByPolicy" in stack.up(code=1)
    azure.configure(deny_public_ips=False)
    stack.up()
    assert len(clusters(azure)) == 1


GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net"
SUBNET = f"{GROUP}/providers/Microsoft.Network/virtualNetworks/main/subnets/nodes"


def test_roles_come_first_and_hosts_carry_the_stacks_own_names(
    stack: Any, azure: Any, as_outputs: Callable[[Any], dict[str, Any]]
) -> None:
    azure.configure(subnets={SUBNET: {"addressPrefix": "10.1.0.0/20"}})
    registry = "/subscriptions/1/resourceGroups/rg/providers/Microsoft.ContainerRegistry/registries/Models"
    ranges = 'service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10"'
    network = f'network=dict(plugin="azure", subnet_id="{SUBNET}", {ranges})'
    stack.program(network, SIZE, f'registry_ids=["{registry}"]')
    stack.up()
    kinds = [line.split()[1].rsplit("/", 1)[-1] for line in azure.log()]
    # The identity's role on the subnet before the cluster; the nodes' right to pull after it.
    assert [kind for kind in kinds if kind in {"roleAssignments", "managedClusters"}] == [
        "roleAssignments", "managedClusters", "roleAssignments",
    ]  # fmt: skip
    hosts = as_outputs(stack)["hosts"]
    (api,) = (one["made"]["fqdn"] for one in azure.resources().values() if one["type"].endswith("/managedClusters"))
    assert {f"{api}:443", "models.azurecr.io:443", "mcr.microsoft.com:443"} <= set(hosts)
    assert "without it: " in hosts[f"{api}:443"]
