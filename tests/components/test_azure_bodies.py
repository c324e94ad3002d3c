"""The azure-native inputs of AksInferenceCluster against Azure's own request schemas of the same API versions."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from standin_bodies import Tables, body_of, form_errors

_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data" / "arm"
ARM = Path(os.environ.get("AKS_INFERENCE_ARM_SCHEMAS", _DEFAULT))
pytestmark = pytest.mark.skipif(not ARM.is_dir(), reason="no ARM schemas; AKS_INFERENCE_ARM_SCHEMAS names their folder")

SIX = (
    'vnet_resourcegroup_name="net-rg", vnet_name="vnet", subnet_name="nodes", service_cidr="10.0.0.0/16", '
    'dns_service_ip="10.0.0.10", docker_bridge_cidr="172.17.0.1/16"'
)
SUBNET = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/nodes"
ZONE = (
    "/subscriptions/s/resourceGroups/dns/providers/Microsoft.Network/privateDnsZones/privatelink.westeurope.azmk8s.io"
)
VAULT = "/subscriptions/s/resourceGroups/keys/providers/Microsoft.KeyVault/vaults/v"
PROVIDERS = "/subscriptions/s/resourceGroups/rg/providers"
REGISTRY = f"{PROVIDERS}/Microsoft.ContainerRegistry/registries/models"
LOGS, METRICS = f"{PROVIDERS}/Microsoft.OperationalInsights/workspaces/l", f"{PROVIDERS}/Microsoft.Monitor/accounts/m"
IDENTITY = "/subscriptions/sub-1/resourceGroups/rg/providers/Microsoft.X/managedidentity:UserAssignedIdentity/prod"
FORMS = {
    "default": "",
    "dev-test": 'cluster_purpose="DevTest", tags={"team": "a"}',
    "flat": SIX,
    "grouped": f'network=dict(plugin="azure", subnet_id="{SUBNET}", service_cidr="10.0.0.0/16", '
    'dns_service_ip="10.0.0.10")',
    "kubenet": f'network=dict(plugin="kubenet", subnet_id="{SUBNET}", service_cidr="10.0.0.0/16", '
    'dns_service_ip="10.0.0.10", pod_cidr="10.244.0.0/16")',
    "overlay": 'network={"plugin_mode": "overlay"}',
    "sizes": 'vm_size="Standard_NC4as_T4_v3", agent_count=4, system_pool={"vm_size": "Standard_D8s_v5", "count": 3}',
    "own-group": 'resource_group_name="mine"',
    "cilium": 'network=dict(plugin="azure", plugin_mode="overlay", dataplane="cilium", policy="cilium")',
    "pod-subnet": f'network=dict(plugin="azure", subnet_id="{SUBNET}", pod_subnet_id="{SUBNET[:-5]}pods", '
    'pod_ip_allocation="StaticBlock", service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10")',
    "own-cni": 'network=dict(plugin="none"), identity=dict(system_assigned=True)',
    "balancer": f'egress=dict(outbound_ip_ids=["{PROVIDERS}/Microsoft.Network/publicIPAddresses/a"], '
    "allocated_outbound_ports=1024, idle_timeout_minutes=10)",
    "managed-nat": 'egress=dict(outbound_type="managedNATGateway", managed_outbound_ip_count=2, '
    "idle_timeout_minutes=10)",
    "isolated": f'egress=dict(outbound_type="none", bootstrap_cache_registry_id="{REGISTRY}"), '
    "access=dict(private_cluster=True)",
    "private": f'access=dict(private_cluster=True, private_dns_zone="{ZONE}", fqdn_subdomain="scoring")',
    "integrated": f'access=dict(vnet_integration=True, api_server_subnet_id="{SUBNET[:-5]}api"), '
    f'network=dict(subnet_id="{SUBNET}", service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10")',
    "entra": 'access=dict(entra_id=True, azure_rbac=True, local_accounts=False, admin_group_ids=["g"], '
    'tenant_id="72f988bf-86f1-41af-91ab-2d7cd011db47", authorized_ip_ranges=["203.0.113.0/24"])',
    "security": f'security=dict(workload_identity=True, defender=True, log_analytics_workspace_id="{LOGS}", '
    'azure_policy=True, image_cleaner=True, image_cleaner_interval_hours=168, kms=True, kms_key_id="https://v/keys/k", '
    f'kms_vault_id="{VAULT}", '
    "key_vault_secrets=True, container_insights=True, managed_prometheus=True, app_routing=True, "
    f'azure_monitor_workspace_id="{METRICS}"), registry_ids=["{REGISTRY}"]',
    "pools": 'pools=[dict(name="gpu", vm_size="Standard_NC24ads_A100_v4", autoscale=True, min_count=0, max_count=4, '
    'gpu_driver="Install", gpu_instance_profile="MIG1g"), dict(name="spot", vm_size="Standard_D4s_v5", spot=True, '
    'spot_max_price=0.12345, eviction_policy="Delete", count=2, taints=["a=b:NoSchedule"]), dict(name="cpu", '
    'exact_name=True, vm_size="Standard_D4s_v5", count=3, zones=["1", "2", "3"], max_pods=60, max_surge="33%", '
    'max_unavailable="0", labels={"team": "a"}, os_sku="AzureLinux", os_disk_size_gb=128, drain_timeout_minutes=45, '
    'node_soak_minutes=5, node_public_ip=True)], autoscaler_profile={"scan_interval": "10s", '
    '"ignore_daemonsets_utilization": "true", "skip_nodes_with_system_pods": "false"}',
    "system": 'system_pool=dict(autoscale=True, min_count=3, max_count=5, max_pods=50, zones=["1"], max_surge="1", '
    "os_disk_size_gb=64)",
    "versions": 'kubernetes_version="1.35", tier="Premium", support_plan="AKSLongTermSupport", '
    'upgrade_channel="patch", node_os_upgrade_channel="SecurityPatch", dns_prefix="scoring", '
    'node_resource_group="nodes", maintenance_windows=[dict(applies_to="cluster", day_of_week="Sunday", '
    'start_time="02:00", utc_offset="+01:00"), dict(applies_to="nodes", day_of_week="Monday", start_time="22:00", '
    "duration_hours=6, interval_weeks=2)]",
    "automatic": 'sku_name="Automatic", tier="Standard", node_provisioning="Auto", '
    'network=dict(plugin="azure", plugin_mode="overlay", dataplane="cilium")',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_request_is_one_that_azure_knows(run_program: Callable[..., Any], form: str) -> None:
    program = "from aks_inference import AksInferenceCluster\n"
    program += f'AksInferenceCluster("prod", location="westeurope"{", " if FORMS[form] else ""}{FORMS[form]})\n'
    outcome = run_program(program, preview=False)
    assert outcome.code == 0, outcome.error + outcome.stderr
    tables = Tables(ARM)
    azure = [r for r in outcome.engine.registered if r.type.startswith("azure-native:")]
    assert len(outcome.engine.of("ManagedCluster")) == 1
    assert len(outcome.engine.of("AgentPool")) == (3 if form == "pools" else 1)
    for registration in azure:
        kind = tables.kind(registration.type)
        assert form_errors(kind, body_of(kind, registration.inputs)) == [], registration.type
        assert registration.request.version == "3.29.0"


def cluster_of(run_program: Callable[..., Any], form: str) -> Any:
    arguments = f", {FORMS[form]}" if FORMS[form] else ""
    program = f'from aks_inference import AksInferenceCluster\nAksInferenceCluster("prod"{arguments})\n'
    outcome = run_program(program, preview=False)
    assert outcome.code == 0, outcome.error
    return outcome.engine


def test_azure_cni_in_a_subnet(run_program: Callable[..., Any]) -> None:
    engine = cluster_of(run_program, "flat")
    (cluster,), (pool,), (role,) = engine.of("ManagedCluster"), engine.of("AgentPool"), engine.of("RoleAssignment")
    subnet = "/subscriptions/sub-1/resourceGroups/net-rg/providers/Microsoft.Network/virtualNetworks/vnet/subnets/nodes"
    assert cluster.inputs["networkProfile"] == {
        "networkPlugin": "azure", "loadBalancerSku": "standard", "outboundType": "loadBalancer",
        "serviceCidr": "10.0.0.0/16", "dnsServiceIP": "10.0.0.10",
    }  # fmt: skip
    assert cluster.inputs["agentPoolProfiles"][0]["vnetSubnetID"] == subnet
    assert pool.inputs["vnetSubnetID"] == subnet
    assert cluster.inputs["identity"] == {"type": "UserAssigned", "userAssignedIdentities": [IDENTITY]}
    assert (role.inputs["scope"], role.inputs["principalId"]) == (subnet, "principal-1")
    assert any(urn.endswith("RoleAssignment::prod-subnet") for urn in cluster.request.dependencies)


@pytest.mark.parametrize("access", ["Public", "Private"])
def test_the_key_of_kms(run_program: Callable[..., Any], access: str) -> None:
    """The identity that is made here may use the key before the cluster does."""
    security = f'dict(kms=True, kms_key_id="https://v.vault.azure.net/keys/k/1", kms_network_access="{access}", '
    program = "from aks_inference import AksInferenceCluster\n"
    program += (
        f'AksInferenceCluster("prod", access=dict(vnet_integration=True), security={security}kms_vault_id="{VAULT}"))'
    )
    outcome = run_program(program, preview=False)
    assert outcome.code == 0, outcome.error + outcome.stderr
    (cluster,), roles = outcome.engine.of("ManagedCluster"), outcome.engine.of("RoleAssignment")
    crypto_user, contributor = "12338af0-0e69-4776-bea7-57ae8d297424", "f25e0fa2-a7c8-4377-a976-54943a77a395"
    wanted = [crypto_user, contributor] if access == "Private" else [crypto_user]
    assert sorted(role.inputs["roleDefinitionId"].rpartition("/")[2] for role in roles) == sorted(wanted)
    assert {(role.inputs["scope"], role.inputs["principalId"]) for role in roles} == {(VAULT, "principal-1")}
    before = [urn for urn in cluster.request.dependencies if "RoleAssignment" in urn]
    assert len(before) == len(wanted)
    kms = cluster.inputs["securityProfile"]["azureKeyVaultKms"]
    assert kms.get("keyVaultResourceId") == (VAULT if access == "Private" else None)


def test_kubenet_without_a_subnet(run_program: Callable[..., Any]) -> None:
    engine = cluster_of(run_program, "default")
    (cluster,), (pool,), (group,) = engine.of("ManagedCluster"), engine.of("AgentPool"), engine.of("ResourceGroup")
    assert cluster.inputs["networkProfile"]["networkPlugin"] == "kubenet"
    assert cluster.inputs["identity"] == {"type": "UserAssigned", "userAssignedIdentities": [IDENTITY]}
    assert [p["name"] for p in cluster.inputs["agentPoolProfiles"]] == ["system"]
    assert (pool.inputs["count"], pool.inputs["vmSize"], pool.inputs["mode"]) == (3, "Standard_D3_v2", "User")
    assert (pool.inputs["resourceGroupName"], cluster.inputs["resourceGroupName"]) == ("group1", "group1")
    assert cluster.parent.endswith("AksInferenceCluster::prod")
    assert group.parent == pool.parent == cluster.parent
    assert not engine.of("RoleAssignment")
    assert cluster.request.customTimeouts.create == "60m"
    assert "FastProd needs at least 12: ok" in engine.said()
    assert "retires this size on 2028-05-01" in engine.said("WARNING")
    assert engine.outputs["prod"]["target"].startswith("aks-inference+kubernetes:")


def test_timeouts_reach_what_takes_its_time(run_program: Callable[..., Any]) -> None:
    cluster = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/shared"
    minutes = "create_timeout_minutes=90, update_timeout_minutes=45, delete_timeout_minutes=30"
    program = f'''
from aks_inference import AksInferenceCluster
AksInferenceCluster("prod", {minutes})
AksInferenceCluster("shared", resource_id="{cluster}", {minutes})
'''
    outcome = run_program(program, preview=False)
    assert outcome.code == 0, outcome.error
    for kind in ("ManagedCluster", "AgentPool", "PoolDrain", "AttachedCluster"):
        (one,) = outcome.engine.of(kind)
        limits = one.request.customTimeouts
        assert (limits.create, limits.update, limits.delete) == ("90m", "45m", "30m"), kind


def test_an_existing_resource_group(run_program: Callable[..., Any]) -> None:
    engine = cluster_of(run_program, "own-group")
    assert not engine.of("ResourceGroup")
    assert engine.of("ManagedCluster")[0].inputs["resourceGroupName"] == "mine"
