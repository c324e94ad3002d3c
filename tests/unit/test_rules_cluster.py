"""AksInferenceCluster: purpose and vCPU, sizes, network, what is not there yet."""

import hashlib
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.spec import ClusterPlan, Plan, plan_cluster
from aks_inference.findings import Casing, Severity
from aks_inference.vm_sizes import find_size

TODAY = date(2026, 11, 21)
SIX = {
    "vnet_resourcegroup_name": "rg",
    "vnet_name": "vnet",
    "subnet_name": "nodes",
    "service_cidr": "10.0.0.0/16",
    "dns_service_ip": "10.0.0.10",
    "docker_bridge_cidr": "172.17.0.1/16",
}
SUBNET = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/nodes"
CLUSTER = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/prod"
RANGES = {"service_cidr": "10.0.0.0/16", "dns_service_ip": "10.0.0.10"}


def plan(name: str = "prod", **declared: Any) -> tuple[Plan | None, list[str], list[str]]:
    made, findings = plan_cluster(name, declared, TODAY)
    errors = [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]
    return made, errors, [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.WARNING]


def test_defaults() -> None:
    made, errors, warnings = plan()
    assert errors == []
    assert isinstance(made, ClusterPlan)
    (pool,) = made.pools
    assert (made.purpose, pool.pool.count, pool.pool.vm_size) == ("FastProd", 3, "Standard_D3_v2")
    assert (made.network.plugin, made.system.count) == ("kubenet", 3)
    vcpu, cost = made.checks
    assert vcpu == "vCPU check: @agent_count 3 × Standard_D3_v2 (4 vCPU) = 12 vCPU; FastProd needs at least 12: ok"
    assert cost.startswith("cost: USD 73.00 a month; unknown: pool system, pool inference (prices of ")
    assert sorted(w.split(":")[0] for w in warnings) == ['network.plugin = "kubenet"', 'vm_size = "Standard_D3_v2"']
    made, errors, warnings = plan(cluster_purpose="DevTest")
    assert errors == []
    assert isinstance(made, ClusterPlan)
    assert (made.pools[0].pool.count, made.system.count) == (1, 1)
    assert any("not for production" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (
            {"agent_count": 2},
            "agent_count: agent_count 2 × Standard_D3_v2 (4 vCPU) = 8 vCPU; FastProd needs at least 12: "
            "use agent_count ≥ 3, a larger vm_size, or cluster_purpose DevTest",
        ),
        (
            {"agent_count": 3, "vm_size": "Standard_D2s_v5"},
            "agent_count: agent_count 3 × Standard_D2s_v5 (2 vCPU) = 6 vCPU; FastProd needs at least 12: "
            "use agent_count ≥ 6, a larger vm_size, or cluster_purpose DevTest",
        ),
        ({"agent_count": 2, "cluster_purpose": "DenseProd"}, "agent_count: agent_count 2 × Standard_D3_v2 (4 vCPU)"),
        (
            {"agent_count": 1, "vm_size": "Standard_New_v9", "vcpus_per_node": 8},
            "agent_count: agent_count 1 × Standard_New_v9 (8 vCPU) = 8 vCPU; FastProd needs at least 12: use agent",
        ),
        ({"agent_count": 0}, "agent_count = 0: must be at least 1; use 1 to 1,000 nodes, or leave it out"),
        ({"agent_count": 2.5}, "agent_count = 2.5: must be a whole number"),
        ({"agent_count": 1_001}, "agent_count = 1001: must be at most 1000"),
        ({"cluster_purpose": "FAST_PROD"}, 'cluster_purpose = "FAST_PROD": is not a purpose; did you mean `FastProd`?'),
        ({"cluster_name": "1prod"}, 'cluster_name = "1prod": a name has 3 to 24 characters'),
        ({"cluster_name": "ab"}, 'cluster_name = "ab": a name has'),
        ({"cluster_name": "a" * 25}, "cluster_name = "),
        ({"cluster_name": "prod-"}, 'cluster_name = "prod-": a name has'),
        ({"cluster_name": "amlcompute"}, 'cluster_name = "amlcompute": is a reserved name'),
        ({"vcpus_per_node": 2}, "vcpus_per_node = 2: Standard_D3_v2 has 4 vCPU; leave it out"),
        ({"system_pool": {"vm_size": "Standard_A1_v2"}}, 'system_pool.vm_size = "Standard_A1_v2": has 1 vCPU'),
        ({"system_pool": {"count": 0}}, "system_pool.count = 0: must be at least 1"),
        ({"system_pool": {"size": "x"}}, "system_pool.size: is not known here"),
        ({"load_balancer_type": "Internal"}, 'load_balancer_type = "Internal": is not known; use one of PublicIp'),
        ({"load_balancer_type": "InternalLoadBalancer"}, 'load_balancer_type = "InternalLoadBalancer": is about the'),
        ({"load_balancer_subnet": "x"}, 'load_balancer_subnet = "x": goes only with load_balancer_type'),
        ({"ssl_cname": "x", "ssl_key_pem_file": "k"}, "ssl_cert_pem_file: is needed with ssl_cname and"),
        ({"leaf_domain_label": "x"}, 'leaf_domain_label = "x": is about the router'),
        (
            {"ssl_cname": "x", "ssl_cert_pem_file": "c", "ssl_key_pem_file": "k", "leaf_domain_label": "l"},
            'leaf_domain_label = "l": brings its own certificate',
        ),
        (
            {"ssl_cname": "x", "ssl_cert_pem_file": "c", "ssl_key_pem_file": "k"},
            'ssl_cname = "x": is about the router',
        ),
        ({"runtime": {}}, "runtime.image: is required"),
        ({"runtime": {"image": "r:1", "namespace": "default"}}, 'runtime.namespace = "default": is shared'),
        ({"runtime": {"image": "r:1", "router_replicas": 0}}, "runtime.router_replicas = 0: must be at least 1"),
        ({"runtime": {"image": "r:1", "imge": "x"}}, "runtime.imge: is not known here; did you mean `image`?"),
        ({"resource_id": "/x"}, 'resource_id = "/x": is not the resource id of an AKS cluster'),
        ({"resource_id": CLUSTER.replace("ContainerService", "Compute")}, "resource_id = "),
        ({"resource_group": "rg"}, "cluster_name: is needed with resource_group to attach a cluster"),
        ({"resource_id": CLUSTER, "resource_group": "rg"}, 'resource_group = "rg": is given beside resource_id'),
        ({"resource_id": CLUSTER, "cluster_name": "prod"}, 'cluster_name = "prod": is given beside resource_id'),
        ({"resource_id": CLUSTER, "agent_count": 3}, "agent_count = 3: is a setting of a new cluster"),
        ({"resource_id": CLUSTER, "load_balancer_type": "Internal"}, 'load_balancer_type = "Internal": is not known'),
        ({"vnet_name": "v"}, 'vnet_name = "v": vnet_resourcegroup_name and subnet_name missing'),
        ({**SIX, "network": {"vnet_name": "v"}}, 'vnet_name = "vnet": is also given as network.vnet_name'),
        ({"network": {"subnet_id": SUBNET, **RANGES, "vnet_name": "v"}}, "network.subnet_id: is given beside"),
        ({"network": {"subnet_id": "x", **RANGES}}, 'network.subnet_id = "x": is not the resource id of a'),
        ({"network": {"subnet_id": SUBNET, "dns_service_ip": "10.0.0.10"}}, "network.service_cidr: is required with a"),
        ({**SIX, "dns_service_ip": None}, "dns_service_ip: is required with a subnet"),
        ({"network": {"plugin": "cilium"}}, 'network.plugin = "cilium": is not known to AKS'),
        ({"network": {"plugin": "kubenet", "plugin_mode": "overlay"}}, 'network.plugin_mode = "overlay": goes only'),
        ({"network": {"plugin_mode": "bridge"}}, 'network.plugin_mode = "bridge": is not known to AKS'),
        ({"network": "azure"}, 'network = "azure": must be an object'),
        ({"network": {"plugn": "x"}}, "network.plugn: is not known here; did you mean `plugin`?"),
        ({**SIX, "service_cidr": "10.0.0.0"}, 'service_cidr = "10.0.0.0": is not an IPv4 range'),
        ({**SIX, "service_cidr": "10.0.0.1/16"}, 'service_cidr = "10.0.0.1/16": does not begin at'),
        ({**SIX, "dns_service_ip": "10.1.0.10"}, 'dns_service_ip = "10.1.0.10": lies outside service_cidr'),
        ({**SIX, "dns_service_ip": "10.0.0.1"}, 'dns_service_ip = "10.0.0.1": is the first address of service_cidr'),
        ({**SIX, "dns_service_ip": "10.0.0.300"}, 'dns_service_ip = "10.0.0.300": is not an IPv4 address'),
        (
            {**SIX, "service_cidr": "10.0.0.0/12"},
            'service_cidr = "10.0.0.0/12": is too large: a service range is smaller than /12',
        ),
        (
            {"service_cidr": "172.30.0.0/24", "dns_service_ip": "172.30.0.10"},
            'service_cidr = "172.30.0.0/24": overlaps 172.30.0.0/16, which AKS keeps for itself',
        ),
        (
            {"network": {"plugin": "kubenet", "pod_cidr": "10.0.1.0/24", **RANGES}},
            'network.pod_cidr = "10.0.1.0/24": overlaps service_cidr 10.0.0.0/16',
        ),
        ({"network": {"plugin": "azure", "pod_cidr": "10.244.0.0/16"}}, 'network.pod_cidr = "10.244.0.0/16": '),
        ({"agentcount": 3}, "agentcount: is not known here; did you mean `agent_count`?"),
    ],
)  # fmt: skip
def test_a_broken_rule(declared: dict[str, Any], expected: str) -> None:
    made, errors, _ = plan(**{k: v for k, v in declared.items() if v is not None})
    assert made is None
    assert len(errors) == 1, errors
    assert errors[0].startswith(expected)


@pytest.mark.parametrize(
    ("declared", "plugin"),
    [
        (SIX, "azure"),
        ({k: v for k, v in SIX.items() if k != "docker_bridge_cidr"}, "azure"),
        ({"network": SIX}, "azure"),
        ({"network": {"subnet_id": SUBNET, **RANGES}}, "azure"),
        ({"network": {"plugin": "kubenet", "subnet_id": SUBNET, **RANGES}}, "kubenet"),
        ({"network": {"plugin": "kubenet", "pod_cidr": "10.244.0.0/16"}}, "kubenet"),
        ({"network": {"plugin_mode": "overlay", "pod_cidr": "10.244.0.0/16"}}, "azure"),
        ({"network": {"plugin": "azure", "plugin_mode": "overlay", "subnet_id": SUBNET, **RANGES}}, "azure"),
        ({"vm_size": "standard_d4s_V5"}, "kubenet"),
        ({"vm_size": "Standard_New_v9"}, "kubenet"),
        ({"agent_count": 2, "vm_size": "Standard_D8s_v5"}, "kubenet"),
        ({"agent_count": 3.0}, "kubenet"),
        ({"load_balancer_type": "PublicIp"}, "kubenet"),
    ],
)
def test_what_is_accepted(declared: dict[str, Any], plugin: str) -> None:
    made, errors, _ = plan(**declared)
    assert errors == []
    assert isinstance(made, ClusterPlan)
    assert made.network.plugin == plugin


def test_warnings() -> None:
    _, _, warnings = plan(agent_count=2, vm_size="Standard_D8s_v5", **SIX)
    assert [w.split(":")[0] for w in warnings] == ["agent_count = 2", 'docker_bridge_cidr = "172.17.0.1/16"']
    _, _, warnings = plan(vm_size="Standard_D4s_v55")
    assert "is not in the table of 2026-11-21: its vCPU are not checked; did you mean `Standard_D4" in warnings[0]
    _, _, warnings = plan(vm_size="Standard_Unheard_Of", vcpus_per_node=4)
    assert "taken as 4 vCPU" in warnings[0]


def test_a_retired_size_is_refused() -> None:
    _, errors, _ = plan(vm_size="Standard_NC6s_v3", agent_count=3)
    assert errors == [
        'vm_size = "Standard_NC6s_v3": Azure retired this size on 2025-09-30; use a current one: Standard_NC4as_T4_v3'
    ]


def test_the_cost_where_the_region_is_known() -> None:
    made, _, _ = plan(location="westeurope", vm_size="Standard_D4s_v5")
    assert isinstance(made, ClusterPlan)
    assert "unknown" not in made.checks[1]
    assert made.checks[1].startswith("cost: USD 1,")


def test_an_attachment_counts_whichever_way_its_arguments_are_spelled() -> None:
    made, errors, _ = plan(resourceId=CLUSTER)
    assert (isinstance(made, AttachPlan), errors) == (True, [])
    made, errors, _ = plan(resourceGroup="rg", clusterName="prod", agentCount=3)
    assert made is None
    assert errors[0].startswith("agent_count = 3: is a setting of a new cluster")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"kubernetes_version": 1.3}, 'kubernetes_version = 1.3: must be a text; write it in quotes, such as "1.35"'),
        ({"zones": [1]}, 'pools[0].zones[0] = 1: must be a text; write it in quotes: "1"'),
        ({"max_surge": 1.0}, 'pools[0].max_surge = 1: must be a text; write it in quotes: "1"'),
        ({"zones": "1"}, 'pools[0].zones = "1": must be a list; write a list: ["1"]'),
        ({"spot": "yes"}, 'pools[0].spot = "yes": must be true or false; write true or false, or leave it out for the '
         "default false"),
        ({"count": "many"}, 'pools[0].count = "many": must be a whole number; write a whole number'),
        ({"labels": "a"}, 'pools[0].labels = "a": must be an object; write an object of names and values'),
        ({"network": 1}, "network = 1: must be an object; write an object of names and values"),
        ({"pools": [None]}, "pools[0] = null: is no pool; write an object with name and vm_size"),
        ({"vm_size": ""}, 'vm_size = "": must not be empty; give a size, such as Standard_D4s_v5'),
        ({"location": ""}, 'location = "": must not be empty; give it, or leave it out'),
        ({"maintenance_windows": [{"applies_to": "nodes", "day_of_week": "Monday", "start_time": "2:00"}]},
         'maintenance_windows[0].start_time = "2:00": is not in the form that is asked for; write hours and minutes'),
    ],
)  # fmt: skip
def test_what_to_write_instead(declared: dict[str, Any], expected: str) -> None:
    of_cluster = {"kubernetes_version", "network", "pools", "vm_size", "location", "maintenance_windows"}
    pool = {"name": "cpu", "vm_size": "Standard_D4s_v5", "count": 3, **declared}
    made, errors, warnings = plan(**(declared if of_cluster & declared.keys() else {"pools": [pool]}))
    assert made is None
    assert [error[: len(expected)] for error in errors] == [expected]
    # Nothing is said of the default that stands for what could not be read.
    assert not [text for text in warnings if text.startswith("network") and "network" in declared]


def test_what_is_right_of_an_object_is_judged_beside_what_is_wrong() -> None:
    pool = {"name": "cpu", "vm_size": "Standard_D4s_v5", "count": 3, "labels": {"team": 7, "a b": "v"}}
    _, errors, _ = plan(pools=[pool])
    assert [error.split(" = ")[0] for error in errors] == ["pools[0].labels.team", "pools[0].labels.a b"]


def test_nothing_is_asked_of_an_address_that_is_not_there() -> None:
    subnet = {"plugin_mode": "overlay", "subnet_id": SUBNET, "subnet_default_route": "VirtualAppliance", **RANGES}
    egress = {"outbound_type": "userDefinedRouting", "public_ips_denied": True}
    made, errors, _ = plan(network=subnet, egress=egress)
    assert (isinstance(made, ClusterPlan), errors) == (True, [])
    _, errors, _ = plan(network=subnet, egress=egress, runtime={"image": "registry.example/runtime:1"})
    assert [error.split(" = ")[0] for error in errors] == ["load_balancer_type"]


def test_the_price_of_what_aks_provisions_is_unknown() -> None:
    network = {"plugin": "azure", "plugin_mode": "overlay", "dataplane": "cilium"}
    made, errors, _ = plan(location="westeurope", network=network, node_provisioning="Auto")
    assert errors == []
    assert isinstance(made, ClusterPlan)
    assert made.cost.unknown == ("nodes that AKS provisions",)
    made, errors, _ = plan(location="westeurope", network=network, sku_name="Automatic")
    assert errors == []
    assert isinstance(made, ClusterPlan)
    assert made.cost.unknown == ("tier Automatic", "nodes that AKS provisions")


def test_the_mend_for_nodes_that_do_not_count() -> None:
    spot = {"name": "spot", "vm_size": "Standard_D8s_v5", "spot": True, "count": 4}
    scaled = {"name": "cpu", "vm_size": "Standard_D8s_v5", "autoscale": True, "min_count": 0, "max_count": 9}
    assert "use 3 more nodes that are not spot, " in plan(pools=[spot])[1][0]
    assert "use 2 more nodes (an autoscaled pool counts with its min_count), " in plan(pools=[scaled])[1][0]


def test_both_mistakes_at_once() -> None:
    _, errors, _ = plan(agent_count=2, **{**SIX, "dns_service_ip": "10.9.0.1"}, cluster_name="x")
    assert len(errors) == 3


def test_a_pool_is_named_by_what_it_keeps_for_life() -> None:
    def name(**declared: Any) -> str:
        made, errors, _ = plan(**declared)
        assert isinstance(made, ClusterPlan), errors
        return made.pools[0].azure_name

    # The first version's names: another formula would replace every pool that exists.
    assert name() == f"infer{hashlib.sha256(b'standard_d3_v2|None|').hexdigest()[:4]}"
    assert name() == name(agent_count=5)
    assert len({name(), name(vm_size="Standard_D4s_v5"), name(**SIX)}) == 3
    assert all(len(pool) <= 12 and pool.isalnum() for pool in (name(), name(**SIX)))


def test_sizes() -> None:
    assert any("did you mean `Standard_D4s_v5`?" in warning for warning in plan(vm_size="D4s_v5")[2])
    size = find_size("Standard_D3_v2")
    assert size is not None
    assert (size.vcpus, size.memory_gib, size.gpus) == (4, 14.0, 0)


@given(
    st.integers(1, 40), st.sampled_from(["Standard_D2s_v5", "Standard_D4s_v5", "Standard_D8s_v5", "Standard_D16s_v5"])
)
def test_the_mend_is_enough(nodes: int, size: str) -> None:
    _, errors, _ = plan(agent_count=nodes, vm_size=size)
    if errors:
        enough = int(errors[0].split("≥ ")[1].split(",")[0])
        assert nodes < enough
        assert plan(agent_count=enough, vm_size=size)[1] == []
        assert plan(agent_count=enough - 1, vm_size=size)[1] if enough > 1 else True
