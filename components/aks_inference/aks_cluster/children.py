"""The children of a cluster: its identity and roles before it, the cluster, its pools and windows after it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pulumi

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.azure import AZURE_NATIVE_VERSION, AzureResource, role_definition, subnet_of
from aks_inference.aks_cluster.inputs import cluster_inputs, pool_inputs, window_inputs
from aks_inference.aks_cluster.lifecycle import (
    REPLACE_ON_CHANGES,
    attached_facts,
    fixed_of,
    network_facts,
    one_way_of,
    related_facts,
    room_of,
)
from aks_inference.aks_cluster.monitoring import register_monitoring
from aks_inference.aks_cluster.pools import POOL_FIXED
from aks_inference.aks_cluster.resources import AttachedCluster, ClusterGuard, PoolDrain
from aks_inference.aks_cluster.rights import rights
from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.aks_cluster.watching import Work, follow, state_of
from aks_inference.facts import role_id

CLUSTER_MINUTES = 10
"""Source document 004; AKS itself says "a few"."""
POOL_MINUTES = 4
"""Of a few nodes; no document gives a figure."""

Child = Callable[..., pulumi.ResourceOptions]
"""Makes the options of a child."""
merge = pulumi.ResourceOptions.merge


@dataclass(frozen=True)
class Created:
    """What the component's outputs are made of."""

    group: Any
    cluster: AzureResource
    guard: ClusterGuard
    pools: tuple[AzureResource, ...]


def register_created(name: str, plan: ClusterPlan, child: Child) -> Created:
    """Registers everything of a new cluster."""
    spec = plan.spec
    group: Any = spec.resource_group_name
    if group is None:
        inputs = {"location": spec.location, "tags": dict(spec.tags) or None}
        group = AzureResource("resources:ResourceGroup", name, inputs, child()).azure_name
    subnet, identity, roles = _identity(name, plan, group, child)
    inputs = cluster_inputs(plan, group, subnet, identity)
    cost = {
        "lowest": round(plan.cost.lowest, 2),
        "highest": round(plan.cost.highest, 2),
        "complete": not plan.cost.unknown,
    }
    guarded = {
        "fixed": fixed_of(inputs),
        "oneWay": one_way_of(inputs),
        "room": room_of(plan),
        "cost": cost,
        "network": network_facts(plan, inputs) if subnet is not None else None,
        "related": related_facts(plan),
        "allowReplacement": spec.allow_replacement,
    }
    guard = ClusterGuard(name, guarded, child())
    slow = merge(_timeouts(spec), child())
    scaled = ["agentPoolProfiles[0].count"] if plan.system.autoscale else None
    options = merge(
        slow,
        pulumi.ResourceOptions(
            depends_on=[guard, *roles],
            # Its name is the user's: there cannot be two of them.
            delete_before_replace=True,
            replace_on_changes=REPLACE_ON_CHANGES,
            ignore_changes=scaled,
        ),
    )
    outputs = ("fqdn", "privateFQDN", "identityProfile", "oidcIssuerProfile")
    cluster = AzureResource("containerservice:ManagedCluster", name, inputs, options, outputs)
    if plan.identity.system_assigned and rights(plan, subnet):
        # Such an identity is there only with its cluster.
        held = _roles(name, plan, subnet, _own_principal(cluster), child)
        slow = merge(slow, pulumi.ResourceOptions(depends_on=held))
    pools = _pools(name, plan, group, cluster, subnet, slow)
    for window in plan.windows:
        inputs = window_inputs(window, group, cluster.azure_name)
        AzureResource(
            "containerservice:MaintenanceConfiguration", f"{name}-{window.applies_to}-window", inputs, child()
        )
    for index, registry in enumerate(spec.registry_ids):
        _pull_role(f"{name}-pull-{index}", registry, cluster, child)
    register_monitoring(name, plan, group, cluster, child())
    return Created(group, cluster, guard, tuple(pools))


def follow_created(component: pulumi.Resource, plan: ClusterPlan, made: Created) -> None:
    """Tells how the cluster and its pools come along."""
    longest = plan.spec.create_timeout_minutes
    place = {"resourceGroupName": made.group, "resourceName": plan.name}
    work = Work(f"AKS cluster {plan.name}", CLUSTER_MINUTES, longest)
    follow(component, work, made.guard.id, made.cluster, state_of("ManagedCluster", place))
    for pool, one in zip(plan.pools, made.pools, strict=True):
        work = Work(f"node pool {pool.azure_name}", POOL_MINUTES, longest)
        inputs = {**place, "agentPoolName": pool.azure_name}
        follow(component, work, made.cluster.id, one, state_of("AgentPool", inputs))


def register_drains(
    name: str, plan: ClusterPlan, made: Created, kubeconfig: pulumi.Output[str] | None, child: Child
) -> list[PoolDrain]:
    """Moves what runs on a pool before it goes. Also without a runtime, whose services it is for: one that is taken
    away later must not empty the pools that stay."""
    slow = merge(_timeouts(plan.spec), child())
    return [
        PoolDrain(f"{name}-{pool.azure_name}", {"poolId": one.id, "kubeconfig": kubeconfig}, slow)
        for pool, one in zip(plan.pools, made.pools, strict=True)
    ]


def register_attached(name: str, plan: AttachPlan, child: Child) -> AttachedCluster:
    """Registers the hold on a cluster that exists."""
    return AttachedCluster(
        name,
        {
            "resourceId": plan.resource_id,
            "resourceGroup": plan.resource_group,
            "clusterName": plan.cluster_name,
            "subscriptionId": plan.subscription_id,
            "purpose": plan.purpose.value,
            "vcpusPerNode": plan.vcpus_per_node,
            "keyVaultAddon": True if plan.ssl_key_vault_secret_id is not None else None,
            "related": attached_facts(plan),
        },
        merge(_timeouts(plan), child()),
    )


def _timeouts(spec: Any) -> pulumi.ResourceOptions:  # noqa: ANN401 - the arguments, or an AttachPlan
    minutes = (spec.create_timeout_minutes, spec.update_timeout_minutes, spec.delete_timeout_minutes)
    create, update, delete = (f"{each}m" for each in minutes)
    return pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create=create, update=update, delete=delete))


def _identity(name: str, plan: ClusterPlan, group: object, child: Child) -> tuple[Any, Any, list[pulumi.Resource]]:
    """Subnet, identity and its roles: it needs its rights before the cluster is there."""
    subnet: Any = plan.network.subnet_id
    names = plan.network.names
    if plan.identity.identity_id is not None or plan.identity.system_assigned:
        if names is not None:
            subnet = _looked_up_subnet(
                {"resourceGroupName": names[0], "virtualNetworkName": names[1], "subnetName": names[2]}
            )
        return subnet, plan.identity.identity_id, []
    inputs = {"resourceGroupName": group, "location": plan.spec.location, "tags": dict(plan.spec.tags) or None}
    identity = AzureResource("managedidentity:UserAssignedIdentity", name, inputs, child(), ("principalId",))
    if names is not None:
        subnet = identity.id.apply(lambda text: subnet_of(names, text))
    return subnet, identity.id, _roles(name, plan, subnet, identity.output("principalId"), child)


def _roles(name: str, plan: ClusterPlan, subnet: object, principal: object, child: Child) -> list[pulumi.Resource]:
    return [_role(f"{name}-{one.suffix}", one.scope, principal, one.role, child) for one in rights(plan, subnet)]


def _own_principal(cluster: AzureResource) -> pulumi.Output[str]:
    """Of the identity that AKS made for the cluster, once it is there."""
    versioned = pulumi.InvokeOptions(version=AZURE_NATIVE_VERSION)
    place = {
        "resourceGroupName": cluster.id.apply(lambda text: text.split("/")[4]),
        "resourceName": cluster.id.apply(lambda text: text.split("/")[8]),
    }
    found = pulumi.runtime.invoke_output("azure-native:containerservice:getManagedCluster", place, versioned)
    return found.apply(lambda body: str(body["identity"]["principalId"]))


def _looked_up_subnet(inputs: dict[str, str]) -> pulumi.Output[str]:
    """The id of a subnet where nothing else tells the subscription."""
    versioned = pulumi.InvokeOptions(version=AZURE_NATIVE_VERSION)
    found = pulumi.runtime.invoke_output("azure-native:network:getSubnet", inputs, versioned)
    return found.apply(lambda subnet: str(subnet["id"]))


def _role(name: str, scope: object, principal: object, role: str, child: Child) -> pulumi.Resource:
    inputs = {
        "scope": scope,
        "principalId": principal,
        "principalType": "ServicePrincipal",
        "roleDefinitionId": role_definition(role_id(role)),
    }
    return AzureResource("authorization:RoleAssignment", name, inputs, child())


def _pull_role(name: str, registry: object, cluster: AzureResource, child: Child) -> None:
    kubelet = cluster.output("identityProfile").apply(lambda found: found["kubeletidentity"]["objectId"])
    _role(name, registry, kubelet, "AcrPull", child)


def _pools(
    name: str, plan: ClusterPlan, group: object, cluster: AzureResource, subnet: object, slow: pulumi.ResourceOptions
) -> list[AzureResource]:
    pools = []
    for pool in plan.pools:
        options = pulumi.ResourceOptions(
            delete_before_replace=pool.keeps_name,
            replace_on_changes=list(POOL_FIXED),
            ignore_changes=["count"] if pool.pool.autoscale else None,
        )
        inputs = pool_inputs(plan, pool, group, cluster.azure_name, subnet)
        made = AzureResource("containerservice:AgentPool", f"{name}-{pool.azure_name}", inputs, merge(slow, options))
        pools.append(made)
    return pools
