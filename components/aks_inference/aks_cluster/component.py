"""The component AksInferenceCluster."""

from datetime import UTC, datetime
from typing import Any, Unpack, overload

import pulumi

from aks_inference.aks_cluster.args import AksInferenceClusterArgs
from aks_inference.aks_cluster.azure import (
    NETWORK_CONTRIBUTOR,
    AzureResource,
    cluster_inputs,
    pool_inputs,
    pool_name,
    subnet_of,
)
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.component import NO_ARGS, Cluster, known, merged, unknown
from aks_inference_runtime.api.target import KubernetesTarget, format_target

CREATE = pulumi.CustomTimeouts(create="60m", update="60m", delete="60m")
"""Clusters take about ten minutes, sometimes much longer."""


class AksInferenceCluster(Cluster):
    """An AKS cluster for inference: a system pool, a pool for inference, its network and identity.

    The inference runtime on it is not part of this version: services name a LocalInferenceCluster.
    """

    target: pulumi.Output[str]
    """What services name as their target."""
    cluster_name: pulumi.Output[str]
    """Name of the AKS cluster."""
    cluster_id: pulumi.Output[str]
    """Resource id of the AKS cluster."""
    resource_group_name: pulumi.Output[str]
    """Resource group of the cluster."""

    @overload
    def __init__(
        self, name: str, args: AksInferenceClusterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None: ...

    @overload
    def __init__(
        self, name: str, *, opts: pulumi.ResourceOptions | None = None, **settings: Unpack[AksInferenceClusterArgs]
    ) -> None: ...

    def __init__(
        self,
        name: str,
        args: AksInferenceClusterArgs = NO_ARGS,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Any,
    ) -> None:
        """Arguments as a dict, or as keywords."""
        declared = merged(args, settings)
        plan, findings = plan_cluster(name, declared, datetime.now(UTC).date())
        self._local = False
        super().__init__(name, declared, findings, opts)
        self._register(name, plan)

    def _register(self, name: str, plan: ClusterPlan | None) -> None:
        if plan is None:
            self.target = self._target = unknown(str)
            self.cluster_name, self.cluster_id, self.resource_group_name = unknown(str), unknown(str), unknown(str)
            return
        group: Any = plan.resource_group_name
        if group is None:
            inputs = {"location": plan.location, "tags": dict(plan.tags) or None}
            group = AzureResource("resources:ResourceGroup", name, inputs, self._child()).azure_name
        subnet, identity, waits = self._subnet(name, plan, group)
        slow = pulumi.ResourceOptions(custom_timeouts=CREATE)
        options = pulumi.ResourceOptions.merge(slow, self._child())
        options = pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=waits))
        inputs = cluster_inputs(plan, group, subnet, identity)
        cluster = AzureResource("containerservice:ManagedCluster", name, inputs, options)
        pool_options = pulumi.ResourceOptions.merge(slow, self._child(delete_before_replace=False))
        pool = f"{name}-{pool_name(plan)}"
        AzureResource(
            "containerservice:AgentPool", pool, pool_inputs(plan, group, cluster.azure_name, subnet), pool_options
        )
        text = format_target(KubernetesTarget(name=name, cluster_purpose=plan.purpose.value, gpu=plan.gpu))
        self.target = self._target = known(text, cluster)
        self.cluster_name, self.cluster_id = cluster.azure_name, cluster.id
        self.resource_group_name = pulumi.Output.from_input(group)
        self._info(*describe(plan))
        self.register_outputs(
            {
                "target": self.target,
                "clusterName": self.cluster_name,
                "clusterId": self.cluster_id,
                "resourceGroupName": self.resource_group_name,
            }
        )

    def _subnet(self, name: str, plan: ClusterPlan, group: object) -> tuple[Any, Any, list[pulumi.Resource]]:
        """Subnet and identity of a cluster in the user's network: its identity needs rights there before it exists."""
        if not plan.network.in_subnet:
            return None, None, []
        inputs = {"resourceGroupName": group, "location": plan.location, "tags": dict(plan.tags) or None}
        identity = AzureResource("managedidentity:UserAssignedIdentity", name, inputs, self._child(), ("principalId",))
        subnet = plan.network.subnet_id
        if plan.network.names is not None:
            names = plan.network.names
            subnet = identity.id.apply(lambda text: subnet_of(names, text))
        role = AzureResource(
            "authorization:RoleAssignment",
            f"{name}-subnet",
            {
                "scope": subnet,
                "principalId": identity.output("principalId"),
                "principalType": "ServicePrincipal",
                "roleDefinitionId": f"/providers/Microsoft.Authorization/roleDefinitions/{NETWORK_CONTRIBUTOR}",
            },
            self._child(),
        )
        return subnet, identity.id, [role]


def describe(plan: ClusterPlan) -> list[str]:
    """The checks with their figures, for the preview."""
    network = "kubenet" if plan.network.plugin == "kubenet" else "Azure CNI"
    where = " in an existing subnet" if plan.network.in_subnet else ""
    return [
        f"AKS cluster {plan.name}, purpose {plan.purpose.value}: {network}{where}",
        *plan.checks,
        f"node pools: system {plan.system_count} × {plan.system_vm_size}, "
        f"{pool_name(plan)} {plan.agent_count} × {plan.vm_size} for inference",
    ]
