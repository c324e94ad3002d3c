"""The inputs of the azure-native resources, from the plan. What is None is not sent."""

from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from aks_inference.aks_cluster.groups import MaintenanceWindowSpec
from aks_inference.aks_cluster.parts import WINDOW_NAMES
from aks_inference.aks_cluster.pools import PoolPlan
from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.cluster_rules.model import KEY_VAULT_ADDON, Pool

AUTOSCALER_FLAGS = frozenset(
    {
        "daemonset_eviction_for_empty_nodes",
        "daemonset_eviction_for_occupied_nodes",
        "ignore_daemonsets_utilization",
    }
)
"""Spec 2025-09-01: these are booleans, all others texts."""
NAT = frozenset({"managedNATGateway", "userAssignedNATGateway"})


def cluster_inputs(plan: ClusterPlan, resource_group: object, subnet_id: object, identity_id: object) -> dict[str, Any]:
    """Of the ManagedCluster. The pools for inference are not inline: AKS never changes inline pools afterwards."""
    spec = plan.spec
    identity: dict[str, Any] = {"type": "SystemAssigned"}
    if identity_id is not None:
        identity = {"type": "UserAssigned", "userAssignedIdentities": [identity_id]}
    kubelet = plan.identity.kubelet_identity_id
    subdomain = plan.access.fqdn_subdomain
    return given(
        {
            "resourceGroupName": resource_group,
            "resourceName": plan.name,
            "location": spec.location,
            "dnsPrefix": None if subdomain else spec.dns_prefix or plan.name.lower(),
            "fqdnSubdomain": subdomain,
            "nodeResourceGroup": spec.node_resource_group,
            "identity": identity,
            "identityProfile": {"kubeletidentity": {"resourceId": kubelet}} if kubelet is not None else None,
            "agentPoolProfiles": [_system(plan, subnet_id)],
            "networkProfile": network_profile(plan),
            "apiServerAccessProfile": _access(plan),
            "aadProfile": _entra(plan),
            "disableLocalAccounts": None if plan.access.local_accounts else True,
            "enableRBAC": True,
            "oidcIssuerProfile": _issuer(plan),
            "securityProfile": _security(plan),
            "addonProfiles": _addons(plan),
            "azureMonitorProfile": {"metrics": {"enabled": True}} if plan.security.managed_prometheus else None,
            "ingressProfile": {"webAppRouting": {"enabled": True}} if plan.security.app_routing else None,
            "bootstrapProfile": _bootstrap(plan),
            "kubernetesVersion": spec.kubernetes_version,
            "supportPlan": spec.support_plan if spec.support_plan != "KubernetesOfficial" else None,
            "autoUpgradeProfile": given(
                {"upgradeChannel": spec.upgrade_channel, "nodeOSUpgradeChannel": spec.node_os_upgrade_channel}
            )
            or None,
            "autoScalerProfile": _autoscaler(spec.autoscaler_profile),
            "nodeProvisioningProfile": {"mode": "Auto"} if spec.node_provisioning == "Auto" else None,
            "sku": {"name": spec.sku_name, "tier": plan.cluster.tier},
            "tags": dict(spec.tags) or None,
        }
    )


def network_profile(plan: ClusterPlan) -> dict[str, Any]:
    """Plugin, balancer and outbound type are always written: AKS's defaults move."""
    spec, egress = plan.network.spec, plan.egress
    outbound = egress.outbound_type or "loadBalancer"
    count, idle = egress.managed_outbound_ip_count, egress.idle_timeout_minutes
    balancer = given(
        {
            "managedOutboundIPs": {"count": count} if count is not None else None,
            "outboundIPs": {"publicIPs": [{"id": one} for one in egress.outbound_ip_ids]}
            if egress.outbound_ip_ids
            else None,
            "allocatedOutboundPorts": egress.allocated_outbound_ports,
            "idleTimeoutInMinutes": idle,
        }
    )
    gateway = given(
        {
            "managedOutboundIPProfile": {"count": count} if count is not None else None,
            "idleTimeoutInMinutes": idle,
        }
    )
    return given(
        {
            "networkPlugin": plan.network.plugin,
            "networkPluginMode": spec.plugin_mode,
            "networkDataplane": spec.dataplane,
            "networkPolicy": spec.policy,
            "loadBalancerSku": "standard",
            "outboundType": outbound,
            "loadBalancerProfile": (balancer or None) if outbound == "loadBalancer" else None,
            "natGatewayProfile": (gateway or None) if outbound in NAT else None,
            "serviceCidr": spec.service_cidr,
            "dnsServiceIP": spec.dns_service_ip,
            "podCidr": spec.pod_cidr,
        }
    )


def pool_inputs(
    plan: ClusterPlan, pool: PoolPlan, resource_group: object, cluster: object, subnet_id: object
) -> dict[str, Any]:
    """Of an AgentPool for inference."""
    rule, spec = pool.pool, pool.spec
    price = spec.spot_max_price if spec.spot_max_price is not None else -1.0
    pods = spec.pod_subnet_id if spec.pod_subnet_id is not None else plan.network.spec.pod_subnet_id
    upgrade = given(
        {
            "maxSurge": rule.max_surge,
            "maxUnavailable": rule.max_unavailable,
            "drainTimeoutInMinutes": rule.drain_timeout_minutes,
            "nodeSoakDurationInMinutes": rule.node_soak_minutes,
        }
    )
    return given(
        {
            "resourceGroupName": resource_group,
            "resourceName": cluster,
            "agentPoolName": pool.azure_name,
            "mode": "User",
            **_scale(rule),
            "vmSize": rule.vm_size,
            "osType": "Linux",
            "osSKU": rule.os_sku,
            "osDiskSizeGB": rule.os_disk_size_gb,
            "type": "VirtualMachineScaleSets",
            "maxPods": rule.max_pods,
            "availabilityZones": list(rule.zones) or None,
            "nodeLabels": dict(rule.labels),
            "nodeTaints": list(rule.taints) or None,
            "scaleSetPriority": "Spot" if rule.spot else None,
            "scaleSetEvictionPolicy": (rule.eviction_policy or "Delete") if rule.spot else None,
            "spotMaxPrice": price if rule.spot else None,
            "gpuProfile": {"driver": rule.gpu_driver} if rule.gpu_driver is not None else None,
            "gpuInstanceProfile": rule.gpu_instance_profile,
            "enableNodePublicIP": True if rule.node_public_ip else None,
            "nodePublicIPPrefixID": spec.node_public_ip_prefix_id,
            "vnetSubnetID": spec.subnet_id if spec.subnet_id is not None else subnet_id,
            "podSubnetID": pods,
            "podIPAllocationMode": plan.network.spec.pod_ip_allocation if pods is not None else None,
            "orchestratorVersion": rule.kubernetes_version or plan.spec.kubernetes_version,
            "upgradeSettings": upgrade or None,
            "tags": dict(plan.spec.tags) or None,
        }
    )


def window_inputs(window: MaintenanceWindowSpec, resource_group: object, cluster: object) -> dict[str, Any]:
    """Of a MaintenanceConfiguration."""
    weekly = {"dayOfWeek": window.day_of_week, "intervalWeeks": window.interval_weeks}
    return {
        "resourceGroupName": resource_group,
        "resourceName": cluster,
        "configName": WINDOW_NAMES[window.applies_to or "cluster"],
        "maintenanceWindow": given(
            {
                "schedule": {"weekly": weekly},
                "startTime": window.start_time,
                "durationHours": window.duration_hours,
                "utcOffset": window.utc_offset,
            }
        ),
    }


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None."""
    return {key: value for key, value in values.items() if value is not None}


def _system(plan: ClusterPlan, subnet_id: object) -> dict[str, Any]:
    pool = plan.system
    return given(
        {
            "name": "system",
            "mode": "System",
            **_scale(pool),
            "vmSize": pool.vm_size,
            "osType": "Linux",
            "type": "VirtualMachineScaleSets",
            "maxPods": pool.max_pods,
            "availabilityZones": list(pool.zones) or None,
            "osDiskSizeGB": pool.os_disk_size_gb,
            "upgradeSettings": {"maxSurge": pool.max_surge} if pool.max_surge is not None else None,
            "vnetSubnetID": subnet_id,
            "podSubnetID": plan.network.spec.pod_subnet_id,
            "podIPAllocationMode": plan.network.spec.pod_ip_allocation,
        }
    )


def _scale(pool: Pool) -> dict[str, Any]:
    if not pool.autoscale:
        return {"count": pool.count}
    bounds = {"minCount": pool.min_count, "maxCount": pool.max_count}
    return {"count": pool.count, "enableAutoScaling": True, **bounds}


def _access(plan: ClusterPlan) -> dict[str, Any] | None:
    access = plan.access
    return (
        given(
            {
                "enablePrivateCluster": True if access.private_cluster else None,
                "privateDNSZone": access.private_dns_zone,
                "enablePrivateClusterPublicFQDN": access.public_fqdn,
                "authorizedIPRanges": list(access.authorized_ip_ranges) or None,
                "enableVnetIntegration": True if access.vnet_integration else None,
                "subnetId": access.api_server_subnet_id,
            }
        )
        or None
    )


def _entra(plan: ClusterPlan) -> dict[str, Any] | None:
    access = plan.access
    if not access.entra_id:
        return None
    return given(
        {
            "managed": True,
            "enableAzureRBAC": access.azure_rbac,
            "adminGroupObjectIDs": list(access.admin_group_ids) or None,
            "tenantID": access.tenant_id,
        }
    )


def _issuer(plan: ClusterPlan) -> dict[str, Any] | None:
    issuer = plan.security.oidc_issuer
    if issuer is None and not plan.security.workload_identity:
        return None
    return {"enabled": issuer is not False}


def _security(plan: ClusterPlan) -> dict[str, Any] | None:
    security = plan.security
    profile: dict[str, Any] = {}
    if security.workload_identity:
        profile["workloadIdentity"] = {"enabled": True}
    if security.defender:
        profile["defender"] = {
            "securityMonitoring": {"enabled": True},
            "logAnalyticsWorkspaceResourceId": security.log_analytics_workspace_id,
        }
    if security.image_cleaner:
        profile["imageCleaner"] = {"enabled": True, "intervalHours": security.image_cleaner_interval_hours}
    if security.kms:
        profile["azureKeyVaultKms"] = given(
            {
                "enabled": True,
                "keyId": security.kms_key_id,
                "keyVaultNetworkAccess": security.kms_network_access or "Public",
                "keyVaultResourceId": security.kms_vault_id if security.kms_network_access == "Private" else None,
            }
        )
    return profile or None


def _addons(plan: ClusterPlan) -> dict[str, Any] | None:
    security = plan.security
    mounts_secrets = plan.cluster.security.key_vault_secrets
    addons: dict[str, Any] = {}
    if security.container_insights:
        workspace = {"logAnalyticsWorkspaceResourceID": security.log_analytics_workspace_id, "useAADAuth": "true"}
        addons["omsagent"] = {"enabled": True, "config": workspace}
    if security.azure_policy:
        addons["azurepolicy"] = {"enabled": True}
    if mounts_secrets:
        addons[KEY_VAULT_ADDON] = {"enabled": True, "config": {"enableSecretRotation": "true"}}
    return addons or None


def _bootstrap(plan: ClusterPlan) -> dict[str, Any] | None:
    registry = plan.egress.bootstrap_cache_registry_id
    return {"artifactSource": "Cache", "containerRegistryId": registry} if registry is not None else None


def _autoscaler(settings: Mapping[str, str]) -> dict[str, Any] | None:
    found = {to_camel(name): value == "true" if name in AUTOSCALER_FLAGS else value for name, value in settings.items()}
    return found or None
