"""The azure-native resources of a cluster, by token and inputs.

The azure-native SDK for Python is 356 MB installed; a token, the inputs of version 3.29.0 and the plugin's version say
the same. A test validates the inputs against the request bodies of the API versions that 3.29.0 uses.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import pulumi

from aks_inference.aks_cluster.spec import ClusterPlan

AZURE_NATIVE_VERSION = "3.29.0"
"""ContainerService API 2025-09-01, ManagedIdentity 2023-01-31, Authorization 2022-04-01, Resources 2024-03-01."""
NETWORK_CONTRIBUTOR = "4d97b98b-1d4f-4787-a291-c67834d212e7"
"""Built-in role: the cluster's identity joins nodes to a subnet of the user's."""
POOL_LABEL = "aks-inference.dev/pool"
"""Stable label for selectors: pools change their names when a fixed property changes."""


class AzureResource(pulumi.CustomResource):
    """A resource of azure-native by its token."""

    def __init__(
        self,
        token: str,
        name: str,
        inputs: Mapping[str, Any],
        opts: pulumi.ResourceOptions,
        outputs: tuple[str, ...] = (),
    ) -> None:
        """What is None is left out."""
        given = {key: value for key, value in inputs.items() if value is not None}
        pinned = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version=AZURE_NATIVE_VERSION), opts)
        # Outputs must be named to be resolved.
        named = dict.fromkeys(("name", *outputs))
        super().__init__(f"azure-native:{token}", name, {**named, **given}, pinned)

    def output(self, name: str) -> pulumi.Output[str]:
        """An output by its name on the wire."""
        value: pulumi.Output[str] = pulumi.get(self, name)
        return value

    @property
    def azure_name(self) -> pulumi.Output[str]:
        """The name in Azure."""
        return self.output("name")


def pool_name(plan: ClusterPlan) -> str:
    """A pool name that changes with the properties that a pool keeps for life, so that a new one can be made first."""
    fixed = f"{plan.vm_size.lower()}|{plan.network.names}|{plan.network.subnet_id if _text(plan) else ''}"
    return f"infer{hashlib.sha256(fixed.encode()).hexdigest()[:4]}"


def _text(plan: ClusterPlan) -> bool:
    return isinstance(plan.network.subnet_id, str)


def cluster_inputs(
    plan: ClusterPlan,
    resource_group: object,
    subnet_id: object,
    identity_id: object,
) -> dict[str, Any]:
    """Inputs of the ManagedCluster. The inference pool is not inline: AKS never changes inline pools afterwards."""
    identity: dict[str, Any] = {"type": "SystemAssigned"}
    if identity_id is not None:
        identity = {"type": "UserAssigned", "userAssignedIdentities": [identity_id]}
    system: dict[str, Any] = {
        "name": "system",
        "mode": "System",
        "count": plan.system_count,
        "vmSize": plan.system_vm_size,
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
    }
    if subnet_id is not None:
        system["vnetSubnetID"] = subnet_id
    return {
        "resourceGroupName": resource_group,
        "resourceName": plan.name,
        "location": plan.location,
        "dnsPrefix": plan.name.lower(),
        "identity": identity,
        "agentPoolProfiles": [system],
        "networkProfile": plan.network.profile(),
        "enableRBAC": True,
        "sku": {"name": "Base", "tier": plan.tier},
        "tags": dict(plan.tags) or None,
    }


def pool_inputs(plan: ClusterPlan, resource_group: object, cluster: object, subnet_id: object) -> dict[str, Any]:
    """Inputs of the AgentPool for inference."""
    return {
        "resourceGroupName": resource_group,
        "resourceName": cluster,
        "agentPoolName": pool_name(plan),
        "mode": "User",
        "count": plan.agent_count,
        "vmSize": plan.vm_size,
        "osType": "Linux",
        "type": "VirtualMachineScaleSets",
        "nodeLabels": {POOL_LABEL: "inference"},
        "vnetSubnetID": subnet_id,
        "tags": dict(plan.tags) or None,
    }


def subnet_of(names: tuple[str, str, str], any_id: str) -> str:
    """The id of a subnet in the subscription of another resource's id."""
    group, network, subnet = names
    subscription = any_id.split("/")[2]
    provider = "providers/Microsoft.Network/virtualNetworks"
    return f"/subscriptions/{subscription}/resourceGroups/{group}/{provider}/{network}/subnets/{subnet}"
