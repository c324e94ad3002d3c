"""The component AksInferenceCluster."""

from datetime import UTC, datetime
from typing import Any, Unpack, overload

import pulumi

from aks_inference.aks_cluster.args import AksInferenceClusterArgs
from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.children import Created, register_attached, register_created
from aks_inference.aks_cluster.hosts import host_line, host_map, hosts_of
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.cluster_rules.model import Pool
from aks_inference.component import NO_ARGS, Cluster, known, merged, unknown
from aks_inference_runtime.api.target import KubernetesTarget, format_target


class AksInferenceCluster(Cluster):
    """An AKS cluster for inference, created or attached: pools, network, egress, access, identity, monitoring.

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
    required_hosts: pulumi.Output[dict[str, str]]
    """`host:port` that must resolve and be reachable → when, from where, and what fails without it; empty for an
    attached cluster."""

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
        plan, findings = plan_cluster(name, declared, datetime.now(UTC).date(), _configured_location())
        self._local = False
        super().__init__(name, declared, findings, opts)
        if isinstance(plan, AttachPlan):
            self._attach(name, plan)
        else:
            self._create(name, plan)

    def _create(self, name: str, plan: ClusterPlan | None) -> None:
        if plan is None:
            self.target = self._target = unknown(str)
            self.cluster_name, self.cluster_id, self.resource_group_name = unknown(str), unknown(str), unknown(str)
            self.required_hosts = unknown(dict[str, str])
            return
        made: Created = register_created(name, plan, self._child)
        text = format_target(KubernetesTarget(name=name, cluster_purpose=plan.purpose.value, gpu=plan.gpu))
        self.target = self._target = known(text, made.cluster)
        self.cluster_name, self.cluster_id = made.cluster.azure_name, made.cluster.id
        self.resource_group_name = pulumi.Output.from_input(made.group)
        registries = list(plan.spec.registry_ids)
        private = "privateFQDN" if plan.access.private_cluster else "fqdn"
        self.required_hosts = pulumi.Output.all(made.cluster.output(private), *registries).apply(
            lambda found: host_map(hosts_of(plan, found[1:], found[0]))
        )
        self._info(*describe(plan))
        self._outputs()

    def _attach(self, name: str, plan: AttachPlan) -> None:
        attached = register_attached(name, plan, self._child)
        text = format_target(KubernetesTarget(name=name, cluster_purpose=plan.purpose.value))
        self.target = self._target = known(text, attached)
        self.cluster_name, self.cluster_id, self.resource_group_name = (
            attached.name,
            attached.cluster_id,
            attached.group,
        )
        self.required_hosts = pulumi.Output.from_input({})
        self._info(f"AKS cluster {plan.name}, purpose {plan.purpose.value}: attached, not created")
        self._outputs()

    def _outputs(self) -> None:
        self.register_outputs(
            {
                "target": self.target,
                "clusterName": self.cluster_name,
                "clusterId": self.cluster_id,
                "resourceGroupName": self.resource_group_name,
                "requiredHosts": self.required_hosts,
            }
        )


def _configured_location() -> str | None:
    """Where azure-native puts what has no region of its own."""
    return pulumi.Config("azure-native").get("location")


def describe(plan: ClusterPlan) -> list[str]:
    """The checks with their figures, for the preview."""
    network = "kubenet" if plan.network.plugin == "kubenet" else "Azure CNI"
    network += f" {plan.network.spec.plugin_mode}" if plan.network.spec.plugin_mode else ""
    where = " in an existing subnet" if plan.network.in_subnet else ""
    pools = ", ".join(f"{one.azure_name} {_nodes(one.pool)} × {one.pool.vm_size}" for one in plan.pools)
    return [
        f"AKS cluster {plan.name}, purpose {plan.purpose.value}: {network}{where}",
        *plan.checks,
        f"node pools: system {_nodes(plan.system)} × {plan.system.vm_size}, {pools} for inference",
        host_line(plan),
    ]


def _nodes(pool: Pool) -> str:
    return f"{pool.min_count}–{pool.max_count}" if pool.autoscale else f"{pool.count}"
