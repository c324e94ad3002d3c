"""What a cluster keeps for life: a change of it replaces the cluster, and loses what is on it.

A component sees no old state. The resource ClusterGuard of this package's plugin does: it is given what this module
picks out of the inputs, compares it with that of the last time in Check, and refuses there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic.alias_generators import to_camel

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.hosts import runtime_names
from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.cluster_rules.budget import address_needs
from aks_inference.cluster_rules.model import Cluster

FIXED: Mapping[str, tuple[str, ...]] = {
    "resourceGroupName": ("resourceGroupName",),
    "clusterName": ("resourceName",),
    "location": ("location",),
    "dnsPrefix": ("dnsPrefix",),
    "nodeResourceGroup": ("nodeResourceGroup",),
    "access.fqdnSubdomain": ("fqdnSubdomain",),
    "network.plugin": ("networkProfile", "networkPlugin"),
    "network.pluginMode": ("networkProfile", "networkPluginMode"),
    "network.dataplane": ("networkProfile", "networkDataplane"),
    "network.policy": ("networkProfile", "networkPolicy"),
    "network.serviceCidr": ("networkProfile", "serviceCidr"),
    "network.dnsServiceIp": ("networkProfile", "dnsServiceIP"),
    "network.podCidr": ("networkProfile", "podCidr"),
    "egress.outboundType": ("networkProfile", "outboundType"),
}
"""Argument → where it stands in the inputs of the ManagedCluster. Source: pulumi-azure-native 3.29.0, replacement.go
(July 2026), and the path parameters."""
SYSTEM_FIXED: Mapping[str, str] = {
    "systemPool.vmSize": "vmSize",
    "systemPool.maxPods": "maxPods",
    "systemPool.zones": "availabilityZones",
    "systemPool.osDiskSizeGb": "osDiskSizeGB",
    "network.subnetId": "vnetSubnetID",
    "network.podSubnetId": "podSubnetID",
}
"""Argument → property of the inline system pool. azure-native plans an update for these, and AKS refuses it."""
REPLACE_ON_CHANGES = [f"agentPoolProfiles[0].{name}" for name in SYSTEM_FIXED.values()]
"""So that a change of the system pool is planned as what it is."""


def one_way_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Argument → value of what AKS changes in one direction or on a condition, of the inputs of a ManagedCluster."""
    access: Mapping[str, Any] = inputs.get("apiServerAccessProfile") or {}
    issuer: Mapping[str, Any] = inputs.get("oidcIssuerProfile") or {}
    found = {
        "access.privateCluster": bool(access.get("enablePrivateCluster")),
        "access.vnetIntegration": bool(access.get("enableVnetIntegration")),
        "access.entraId": bool(inputs.get("aadProfile")),
        "security.oidcIssuer": issuer.get("enabled"),
        "kubernetesVersion": inputs.get("kubernetesVersion"),
    }
    return {argument: value for argument, value in found.items() if value is not None}


def room_of(plan: ClusterPlan) -> dict[str, Any]:
    """Argument → `range`, `available` and what each pool takes of it, by its name in Azure. A pool that makes room for
    another is there until the other one is."""
    names = {pool.pool.name: pool.azure_name for pool in plan.pools}
    found: dict[str, Any] = {}
    for need in address_needs(plan.cluster):
        argument = ".".join(to_camel(str(part)) for part in need.path)
        pools = {names.get(name, name): count for name, count in need.by_pool.items()}
        found[argument] = {"range": need.range_text, "available": need.available, "pools": pools}
    return found


def network_facts(plan: ClusterPlan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The subnet, and what has to fit into its network: for a look at what Azure has there."""
    profile: Mapping[str, Any] = inputs["networkProfile"]
    facts = {
        "subnetId": inputs["agentPoolProfiles"][0].get("vnetSubnetID"),
        "location": plan.cluster.location,
        "serviceCidr": profile.get("serviceCidr"),
        "podCidr": profile.get("podCidr"),
        "outboundType": profile.get("outboundType"),
        # Only kubenet's identity needs a role there; an identity of the user's has it.
        "ownRoutes": plan.cluster.network.own_route_table
        if profile.get("networkPlugin") == "kubenet" and plan.cluster.identity.made
        else None,
        "neededAddresses": _needed(plan.cluster),
    }
    return {name: value for name, value in facts.items() if value is not None}


def related_facts(plan: ClusterPlan) -> dict[str, Any] | None:
    """Registries, storage accounts and vaults, for a look at what Azure has there. What is known later may stand in
    it."""
    names = runtime_names(plan.runtime)
    facts: dict[str, Any] = {
        "registryIds": list(plan.spec.registry_ids),
        "storageAccounts": list(names.storage_accounts),
        "vaults": list(_vaults(plan)),
    }
    there = {name: values for name, values in facts.items() if values}
    return {**there, "location": plan.cluster.location} if there and plan.cluster.location else None


def _vaults(plan: ClusterPlan) -> Iterator[dict[str, Any]]:
    security = plan.security
    if security.kms and security.kms_vault_id is not None:
        yield {"id": security.kms_vault_id, "use": "kms", "private": security.kms_network_access == "Private"}
    if plan.spec.ssl_key_vault_id is not None:
        yield _certificate_vault(plan.spec.ssl_key_vault_id)


def _certificate_vault(vault_id: object) -> dict[str, Any]:
    return {"id": vault_id, "use": "certificate"}


def attached_facts(plan: AttachPlan) -> dict[str, Any] | None:
    """The same of a cluster that exists: the vault of its certificate. All else is the cluster's own."""
    if plan.ssl_key_vault_id is None:
        return None
    return {"vaults": [_certificate_vault(plan.ssl_key_vault_id)]}


def _needed(cluster: Cluster) -> int | None:
    """Addresses of the nodes' subnet, whatever its range."""
    subnet = cluster.network.subnet
    if subnet is None:
        return None
    # Any large range brings the need out; what others take is looked up.
    roomy = replace(cluster.network, subnet=replace(subnet, cidr="10.0.0.0/8", used_addresses=0))
    needs = address_needs(replace(cluster, network=roomy))
    return next((need.surely for need in needs if need.path[-1] == "subnet_id"), None)


def fixed_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Argument → value, of the inputs of a ManagedCluster; values may be outputs."""
    found: dict[str, Any] = {}
    for argument, path in FIXED.items():
        value: Any = inputs
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        found[argument] = value
    (system,) = inputs["agentPoolProfiles"]
    found |= {argument: system.get(name) for argument, name in SYSTEM_FIXED.items()}
    return {argument: value for argument, value in found.items() if value is not None}
