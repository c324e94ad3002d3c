"""Whatever a preview accepts, Azure accepts; what it warns of as replacing is replaced, and nothing else (I7).

Without an engine: the inputs that the component would register, put to the stand-in in their order.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aks_inference.aks_cluster.inputs import cluster_inputs, pool_inputs, window_inputs
from aks_inference.aks_cluster.lifecycle import FIXED, REPLACE_ON_CHANGES, SYSTEM_FIXED, fixed_of, one_way_of, room_of
from aks_inference.aks_cluster.pools import POOL_FIXED
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference_provider.resources.aks_changes import crowded, refusals
from aks_inference_provider.resources.aks_guard import replacements

TODAY = date(2026, 11, 21)
CLUSTER = "azure-native:containerservice:ManagedCluster"
GOOD = [
    case
    for case in yaml.safe_load((Path(__file__).parents[1] / "corpus" / "good.yaml").read_text())["cases"]
    if "resource_id" not in case["args"] and "resource_group" not in case["args"]
]


def planned(declared: dict[str, Any]) -> ClusterPlan | None:
    plan, _ = plan_cluster("prod", declared, TODAY, "westeurope")
    return plan if isinstance(plan, ClusterPlan) else None


def inputs_of(plan: ClusterPlan) -> dict[str, Any]:
    names = plan.network.names
    network = "/providers/Microsoft.Network/virtualNetworks"
    named = f"/subscriptions/1/resourceGroups/{names[0]}{network}/{names[1]}/subnets/{names[2]}" if names else None
    identity = None if plan.identity.system_assigned else plan.identity.identity_id or IDENTITY
    found = cluster_inputs(plan, plan.spec.resource_group_name or "rg", named or plan.network.subnet_id, identity)
    found.setdefault("location", "westeurope")
    return found


IDENTITY = (
    "/subscriptions/1/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/of-somebody-else"
)


WORKSPACE = "/subscriptions/1/resourceGroups/rg/providers/Microsoft.OperationalInsights/workspaces/logs"


def puts(plan: ClusterPlan, azure: Any, tables: Any) -> None:
    """Raises what Azure refuses."""
    from standin_bodies import body_of, id_of

    group = plan.spec.resource_group_name or "rg"
    kind = tables.kind("azure-native:resources:ResourceGroup")
    azure.put(kind, id_of(kind, {"resourceGroupName": group}), {"location": "westeurope"})
    inputs = inputs_of(plan)
    made = [(CLUSTER, inputs)]
    subnet = inputs["agentPoolProfiles"][0].get("vnetSubnetID")
    for pool in plan.pools:
        made.append(("azure-native:containerservice:AgentPool", pool_inputs(plan, pool, group, plan.name, subnet)))
    for window in plan.windows:
        made.append(("azure-native:containerservice:MaintenanceConfiguration", window_inputs(window, group, plan.name)))
    for token, one in made:
        kind = tables.kind(token)
        azure.put(kind, id_of(kind, one), body_of(kind, one))


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["id"])
def test_what_is_good_is_taken(case: dict[str, Any], new_azure: Any, tables: Any) -> None:
    plan = planned(case["args"])
    assert plan is not None
    puts(plan, new_azure(), tables)


SIZES = [
    "Standard_D2s_v5",
    "Standard_D4s_v5",
    "Standard_D8s_v5",
    "Standard_NC4as_T4_v3",
    "Standard_B4ms",
    "Standard_A1",
]
CIDRS = ["10.0.0.0/16", "10.244.0.0/16", "10.244.0.0/20", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/24", "10.1.0.0"]
COUNTS = st.none() | st.integers(0, 60)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


POOL = st.fixed_dictionaries(
    {"name": of("cpu", "gpu", "a", "Bad"), "vm_size": st.sampled_from(SIZES)},
    optional={
        "count": COUNTS,
        "autoscale": st.booleans(),
        "min_count": COUNTS,
        "max_count": COUNTS,
        "max_pods": of(None, 9, 10, 30, 250),
        "spot": st.booleans(),
        "spot_max_price": of(-1, 0.5, 0.1234567),
        "eviction_policy": of("Delete", "Stop"),
        "zones": of(["1"], ["1", "1"], ["4"]),
        "max_surge": of("0", "1", "33%", "x"),
        "max_unavailable": of("0", "1"),
        "gpu_driver": of("Install", "None"),
        "node_public_ip": st.booleans(),
        "kubernetes_version": of("1.35", "1.36"),
        "taints": of([], ["a=b:NoSchedule"]),
    },
)
ARGUMENTS = some(
    cluster_purpose=of("FastProd", "DevTest"),
    network=some(
        plugin=of("azure", "kubenet", "none"),
        plugin_mode=of("overlay"),
        dataplane=of("cilium", "azure"),
        policy=of("cilium", "calico", "azure", "none"),
        service_cidr=st.sampled_from(CIDRS),
        dns_service_ip=of("10.0.0.10", "10.0.0.1", "192.168.0.10"),
        pod_cidr=st.sampled_from(CIDRS),
    ),
    egress=some(
        outbound_type=of("loadBalancer", "managedNATGateway", "userDefinedRouting", "none"),
        managed_outbound_ip_count=st.integers(0, 20),
        allocated_outbound_ports=of(0, 8, 7, 64_000),
        idle_timeout_minutes=of(3, 4, 120, 121),
    ),
    access=some(
        private_cluster=st.booleans(),
        private_dns_zone=of("system", "none", "corp"),
        public_fqdn=st.booleans(),
        authorized_ip_ranges=of([], ["203.0.113.0/24"], ["203.0.113.7/24"], ["x"]),
        entra_id=st.booleans(),
        azure_rbac=st.booleans(),
        local_accounts=st.booleans(),
        fqdn_subdomain=of("sub"),
    ),
    identity=some(system_assigned=st.booleans(), kubelet_identity_id=of(IDENTITY)),
    security=some(
        workload_identity=st.booleans(),
        oidc_issuer=st.booleans(),
        defender=st.booleans(),
        image_cleaner=st.booleans(),
        image_cleaner_interval_hours=of(1, 24, 5000),
        kms=st.booleans(),
        kms_key_id=of("https://v/keys/k"),
        kms_network_access=of("Public", "Private"),
        kms_vault_id=of("/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"),
        log_analytics_workspace_id=of(WORKSPACE, "/w"),
        container_insights=st.booleans(),
    ),
    system_pool=some(
        vm_size=st.sampled_from(SIZES), count=st.integers(1, 5), autoscale=st.booleans(), min_count=COUNTS,
        max_count=COUNTS, max_pods=of(9, 30, 250),
    ),
    pools=st.lists(POOL, max_size=3),
    tier=of("Free", "Standard", "Premium"),
    support_plan=of("KubernetesOfficial", "AKSLongTermSupport"),
    kubernetes_version=of("1.27", "1.33", "1.35", "1.36"),
    sku_name=of("Base", "Automatic"),
    location=of("westeurope", "usgoviowa", "northcentralus"),
    node_provisioning=of("Manual", "Auto"),
    dns_prefix=of("prod", "-"),
)  # fmt: skip


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Arguments together, groups key by key."""
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            inner = found.get(key)
            found[key] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


# Good ones put together, and with one part drawn at random: most are accepted, and in ways that nobody wrote down.
TOGETHER = st.builds(
    joined,
    st.tuples(
        st.sampled_from(GOOD).map(lambda case: case["args"]),
        st.sampled_from(GOOD).map(lambda case: case["args"]),
        ARGUMENTS.map(lambda drawn: dict(list(drawn.items())[:1])),
    ).map(list),
)


@given(declared=ARGUMENTS | TOGETHER)
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_preview_accepts_azure_accepts(declared: dict[str, Any], new_azure: Any, tables: Any) -> None:
    plan = planned(declared)
    if plan is not None:
        puts(plan, new_azure(), tables)


def replaced(tables: Any, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """What provider and engine do with a change of the cluster's inputs."""
    from standin_provider import differences

    paths = [path for path, _ in differences(old, new)]
    return any(tables.replaces(CLUSTER, path) for path in paths) or any(
        path == fixed or path.startswith((f"{fixed}[", f"{fixed}.")) for path in paths for fixed in REPLACE_ON_CHANGES
    )


@given(before=st.sampled_from(GOOD), after=st.sampled_from(GOOD))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_warned_of_is_replaced_and_nothing_else(before: Any, after: Any, tables: Any) -> None:
    one, other = planned(before["args"]), planned(after["args"])
    assert one is not None
    assert other is not None
    old, new = inputs_of(one), inputs_of(other)
    warned = replacements({"fixed": fixed_of(old)}, {"fixed": fixed_of(new)})
    assert bool(warned) == replaced(tables, old, new), (warned, before["id"], after["id"])


def apply_change(before: ClusterPlan, after: ClusterPlan, azure: Any, tables: Any) -> None:
    """What provider and engine do with another declaration of a cluster that stays. Raises what Azure refuses."""
    from standin_bodies import body_of, id_of
    from standin_provider import differences

    def pools(plan: ClusterPlan) -> dict[str, dict[str, Any]]:
        subnet = inputs_of(plan)["agentPoolProfiles"][0].get("vnetSubnetID")
        made = (pool_inputs(plan, pool, group, plan.name, subnet) for pool in plan.pools)
        return {one["agentPoolName"]: one for one in made}

    def put(token: str, inputs: dict[str, Any]) -> None:
        azure.put(tables.kind(token), id_of(tables.kind(token), inputs), body_of(tables.kind(token), inputs))

    token, group = "azure-native:containerservice:AgentPool", after.spec.resource_group_name or "rg"
    put(CLUSTER, inputs_of(after))
    old, new = pools(before), pools(after)
    for name, inputs in new.items():
        paths = [path for path, _ in differences(old.get(name, {}), inputs)]
        tops = {path.partition("[")[0].partition(".")[0] for path in paths}
        if name in old and (tops & set(POOL_FIXED) or any(tables.replaces(token, path) for path in paths)):
            azure.delete(id_of(tables.kind(token), inputs))
        put(token, inputs)
    for name in old.keys() - new.keys():
        azure.delete(id_of(tables.kind(token), old[name]))


# What a cluster and a pool may be on one day and another: each part is accepted by itself.
OF_A_POOL: list[dict[str, Any]] = [
    {"count": 5}, {"count": 130}, {"autoscale": True, "min_count": 3, "max_count": 9}, {"labels": {"team": "a"}},
    {"max_surge": "1"}, {"taints": ["a=b:NoSchedule"]}, {"os_sku": "AzureLinux3"}, {"max_pods": 60}, {"max_pods": 110},
    {"zones": ["1"]},
    {"zones": ["1", "2"]}, {"os_disk_size_gb": 128}, {"node_public_ip": True}, {"vm_size": "Standard_D8s_v5"},
    {"spot": True, "max_surge": None}, {"spot": True, "spot_max_price": 0.5, "max_surge": None},
    {"spot": True, "eviction_policy": "Deallocate", "max_surge": None}, {"vm_size": "Standard_NC24ads_A100_v4"},
    {"vm_size": "Standard_NC24ads_A100_v4", "gpu_driver": "None"},
    {"vm_size": "Standard_NC24ads_A100_v4", "gpu_instance_profile": "MIG1g"},
]  # fmt: skip
OF_A_CLUSTER: list[dict[str, Any]] = [
    {"access": {"private_cluster": True}}, {"access": {"vnet_integration": True}},
    {"access": {"private_cluster": True, "vnet_integration": True}}, {"access": {"entra_id": True, "azure_rbac": True}},
    {"access": {"authorized_ip_ranges": ["203.0.113.0/24"]}}, {"security": {"workload_identity": True}},
    {"security": {"oidc_issuer": True}}, {"security": {"oidc_issuer": False}}, {"security": {"azure_policy": True}},
    {"kubernetes_version": "1.35"}, {"kubernetes_version": "1.35.2"}, {"kubernetes_version": "1.36"},
    {"tier": "Free"}, {"egress": {"managed_outbound_ip_count": 2}}, {"system_pool": {"count": 5}},
    {"system_pool": {"vm_size": "Standard_D8s_v5"}}, {"network": {"pod_cidr": "10.245.0.0/16"}}, {"tags": {"a": "b"}},
    {"upgrade_channel": "patch"}, {"autoscaler_profile": {"scan_interval": "20s"}},
]  # fmt: skip
DECLARED = st.builds(
    lambda exact, pool, parts: joined([
        {"network": {"plugin": "azure", "plugin_mode": "overlay"}, "location": "westeurope"},
        {"pools": [{"name": "more", "vm_size": "Standard_D4s_v5", "count": 3},
                   {"name": "cpu", "exact_name": exact, "vm_size": "Standard_D4s_v5", "count": 3, **joined(pool)}]},
        *parts,
    ]),
    st.just(True) | st.booleans(),
    st.lists(st.sampled_from(OF_A_POOL), max_size=2),
    st.lists(st.sampled_from(OF_A_CLUSTER), max_size=2),
)  # fmt: skip


@given(before=DECLARED, after=DECLARED)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_change_a_preview_accepts_azure_accepts(before: Any, after: Any, new_azure: Any, tables: Any) -> None:
    one, other = planned(before), planned(after)
    if one is None or other is None:
        return
    old, new = ({"fixed": fixed_of(inputs_of(plan)), "oneWay": one_way_of(inputs_of(plan))} for plan in (one, other))
    if replacements(old, new) or [*refusals(old["oneWay"], new["oneWay"])] or [*crowded(room_of(one), room_of(other))]:
        return
    azure = new_azure()
    puts(one, azure, tables)
    apply_change(one, other, azure, tables)


def listed(tables: Any) -> Iterator[str]:
    import json

    yield from json.loads((tables.folder / "pulumi_replace.json").read_text())[CLUSTER]


def test_every_replacing_input_is_known_or_never_written(tables: Any) -> None:
    known = {".".join(path) for path in FIXED.values()}
    never = {
        "diskEncryptionSetID", "linuxProfile", "windowsProfile", "networkProfile.serviceCidrs",
        "networkProfile.networkMode", "agentPoolProfiles[].networkProfile.nodePublicIPTags",
    }  # fmt: skip
    assert set(listed(tables)) == (known - {"resourceGroupName", "resourceName"}) | never
    written = set().union(*(flat(inputs_of(plan)) for case in GOOD if (plan := planned(case["args"]))))
    assert not written & never
    assert set(SYSTEM_FIXED.values()) <= {path.rpartition(".")[2] for path in written}


def flat(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {path, *(each for key, one in value.items() for each in flat(one, f"{path}.{key}" if path else key))}
    return {path, *(each for one in value for each in flat(one, f"{path}[]"))} if isinstance(value, list) else {path}
