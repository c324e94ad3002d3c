"""The component AksInferenceCluster."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Unpack, overload

import pulumi

from aks_inference.aks_cluster.args import AksInferenceClusterArgs
from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.capacity import fit, fit_findings
from aks_inference.aks_cluster.children import (
    CLUSTER_MINUTES,
    Created,
    follow_created,
    register_attached,
    register_created,
    register_drains,
)
from aks_inference.aks_cluster.hosts import NO_NAMES, attached_hosts, host_line, host_map, hosts_of, service_names
from aks_inference.aks_cluster.kubeconfig import kubeconfig_of, subscription_provider
from aks_inference.aks_cluster.resources import AttachedCluster
from aks_inference.aks_cluster.scoring_address import leaf_host, leaf_label
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.aks_cluster.vault import VaultAccess, vault_access, vault_line
from aks_inference.cluster_rules.hosts import StackNames
from aks_inference.cluster_rules.model import Pool
from aks_inference.component import NO_ARGS, Cluster, Component, known, merged, unknown
from aks_inference.findings import Finding, Severity
from aks_inference.inference_runtime.component import InferenceRuntime, unplanned
from aks_inference.kubernetes import KubernetesProvider
from aks_inference.program import ComponentFindings, peers
from aks_inference_runtime.api.target import KubernetesTarget, format_target

if TYPE_CHECKING:
    from aks_inference.service.endpoint import EndpointPlan

RBAC_ADMIN = "Azure Kubernetes Service RBAC Cluster Admin"


class AksInferenceCluster(Cluster):
    """An AKS cluster for inference, created or attached: pools, network, egress, access, identity, monitoring.

    With `runtime`, the inference runtime is put on it, and services name it as their target.
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
    """`host:port` that must resolve and be reachable → when, from where, and what fails without it."""

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
        self._held = plan.key if isinstance(plan, AttachPlan) else None
        self._made = not isinstance(plan, AttachPlan)
        findings += self._held_twice(name)
        self._local = False
        # Where the arguments are wrong, services on it are not told about it again.
        self._kubernetes = unplanned(name, declared.get("runtime"))
        self._provider: KubernetesProvider | None = None
        self._kubeconfig: Any = None
        self._planned = plan if isinstance(plan, ClusterPlan) and plan.runtime is not None else None
        super().__init__(name, declared, findings, opts)
        if self._refused:
            plan = None
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
        kubeconfig = None if plan.runtime is None else kubeconfig_of(made.cluster.id, os.environ)
        drains = register_drains(name, plan, made, kubeconfig, self._child)
        leaf = _leaf_domain(plan.spec.leaf_domain_label, made.cluster.id, plan.cluster.location)
        vault = self._vault(name, plan.spec.ssl_key_vault_secret_id, plan.spec.ssl_key_vault_id, made.cluster.id)
        self._serve(name, plan, kubeconfig, made.cluster, {**leaf, **vault.arguments}, [*drains, *vault.after])
        self.cluster_name, self.cluster_id = made.cluster.azure_name, made.cluster.id
        self.resource_group_name = pulumi.Output.from_input(made.group)
        registries = list(plan.spec.registry_ids)
        private = "privateFQDN" if plan.access.private_cluster else "fqdn"
        self.required_hosts = pulumi.Output.all(made.cluster.output(private), self._named(), *registries).apply(
            lambda found: host_map(hosts_of(plan, found[2:], found[0], found[1]))
        )
        self._info(*describe(plan))
        follow_created(self, plan, made)
        if self._program is not None and plan.runtime is not None:
            self._program.at_end(lambda: self._fit(plan))
        self._outputs()

    def _attach(self, name: str, plan: AttachPlan) -> None:
        attached = register_attached(name, plan, self._child)
        kubeconfig, provider = None, None
        if plan.runtime is not None:
            provider = subscription_provider(name, plan.subscription, os.environ, self._child())
            kubeconfig = kubeconfig_of(attached.cluster_id, os.environ, provider)
        leaf = _leaf_domain(plan.leaf_domain_label, attached.cluster_id, attached.location)
        vault = self._vault(name, plan.ssl_key_vault_secret_id, plan.ssl_key_vault_id, attached.cluster_id, provider)
        self._serve(name, plan, kubeconfig, attached, {**leaf, **vault.arguments}, vault.after)
        self.cluster_name, self.cluster_id, self.resource_group_name = (
            attached.name,
            attached.cluster_id,
            attached.group,
        )
        self.required_hosts = pulumi.Output.all(attached.location, attached.api_server, self._named()).apply(
            lambda found: host_map(attached_hosts(plan, *found))
        )
        self._info(
            f"AKS cluster {plan.name}, purpose {plan.purpose.value}: attached, not created",
            *vault_line(plan.ssl_key_vault_secret_id, plan.ssl_key_vault_id),
        )
        self._outputs()

    def _vault(
        self,
        name: str,
        secret_id: str | None,
        vault_id: object,
        cluster_id: pulumi.Output[str],
        provider: pulumi.ProviderResource | None = None,
    ) -> VaultAccess:
        """Who fetches the certificate from a Key Vault."""
        if secret_id is None:
            return VaultAccess({})
        return vault_access(name, secret_id, vault_id, cluster_id, self._child(), provider)

    def _held_twice(self, name: str) -> list[Finding]:
        """Another component of the program that attaches the same cluster; other stacks are seen by its tag."""
        others = (one for one in peers((AksInferenceCluster, name)) if isinstance(one, AksInferenceCluster))
        return [
            Finding(
                ("resource_id",) if self._held and self._held[0] else ("cluster_name",),
                f"is attached by AksInferenceCluster {other._resource_name!r} already",
                "name that one as the target",
            )
            for other in others
            if self._held is not None and other._held == self._held
        ]

    def _serve(
        self,
        name: str,
        plan: ClusterPlan | AttachPlan,
        kubeconfig: pulumi.Output[str] | None,
        made: pulumi.Resource,
        leaf: Mapping[str, Any],
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        """The inference runtime on the cluster, and what services name."""
        gpu = plan.gpu if isinstance(plan, ClusterPlan) else True
        location = plan.cluster.location if isinstance(plan, ClusterPlan) else None
        bare = KubernetesTarget(name=name, cluster_purpose=plan.purpose.value, gpu=gpu)
        if plan.runtime is None:
            self._kubernetes = bare
            self.target = self._target = known(format_target(bare), made)
            return
        growing: Any = plan.growing if isinstance(plan, ClusterPlan) else None
        if isinstance(made, AttachedCluster):
            growing = made.autoscaled_pools
        arguments: Any = {**plan.runtime, **leaf, "kubeconfig": kubeconfig, "autoscaled_pools": growing}
        # On the way down the services go before what they run on. What the cluster depends on may be for its runtime.
        options = pulumi.ResourceOptions(depends_on=self._given_options.depends_on)
        options = pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=list(after)))
        options = pulumi.ResourceOptions.merge(self._child(), options)
        runtime = InferenceRuntime(name, arguments, options)
        self.target = self._target = runtime.target
        self._url = runtime._url
        self._kubernetes = runtime._kubernetes.model_copy(update={"gpu": gpu, "location": location})
        self._provider, self._kubeconfig = runtime._provider, runtime._kubeconfig
        self._registry = runtime._registry

    def _served(self) -> "dict[Component, EndpointPlan]":
        """The program's services on this cluster; all of them once its body is over."""
        from aks_inference.service.serving import Serving

        return {
            component: component._plan
            for component in (self._program.components if self._program else ())
            if isinstance(component, Serving) and component._plan and component._plan.target.cluster is self
        }

    def _named(self) -> "asyncio.Future[StackNames]":
        """What its services name: known when the program's body is over. In a plugin they come too late."""
        found: asyncio.Future[StackNames] = asyncio.get_running_loop().create_future()

        def end() -> Iterator[ComponentFindings]:
            found.set_result(service_names(self._served().values()))
            return iter(())

        if self._program is None:
            found.set_result(NO_NAMES)
        else:
            self._program.at_end(end)
        return found

    def _misfits(self, plans: Mapping[Component, Any]) -> Iterator[tuple[Component, Finding]]:
        return iter(()) if self._planned is None else fit_findings(self._planned, plans)

    def _fit(self, plan: ClusterPlan) -> Iterator[ComponentFindings]:
        """Whether the program's services fit on the pools; once all of them are declared."""
        on_it = self._served()
        if not on_it:
            return
        self._info("services on the nodes:", *fit(plan, on_it).lines())
        for component, finding in self._misfits(on_it):
            if finding.severity is Severity.ERROR:
                yield ComponentFindings(component._kind, component._resource_name, (finding,))
            else:
                component._say(pulumi.log.warn, component._text(finding))

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


def _leaf_domain(
    label: str | None, cluster_id: pulumi.Output[str], location: pulumi.Input[str] | None
) -> Mapping[str, Any]:
    """Arguments of the runtime: the whole name, which the cluster's id makes its own."""
    if label is None:
        return {}
    whole = cluster_id.apply(lambda text: leaf_label(label, text))
    host = pulumi.Output.all(whole, location).apply(lambda found: leaf_host(*found))
    return {"ssl_cname": host, "azure_dns_label": whole}


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
        *rights_lines(plan),
        *vault_line(plan.spec.ssl_key_vault_secret_id, plan.spec.ssl_key_vault_id),
        f"time: about {CLUSTER_MINUTES} minutes until a new cluster is there, a few for each pool; given up after "
        f"{plan.spec.create_timeout_minutes}",
    ]


def rights_lines(plan: ClusterPlan) -> list[str]:
    """What who applies must be allowed to, where that is not known before the cluster is there."""
    access = plan.access
    if plan.runtime is None or not access.entra_id:
        return []
    group = "be a member of one of @admin_group_ids" if access.admin_group_ids else "be a member of a group of admins"
    role = f"have the role {RBAC_ADMIN}, at the resource group or the cluster, or " if access.azure_rbac else ""
    told = f"rights: who applies this must {role}{group}; without it the cluster is made and refuses the runtime"
    if not access.azure_rbac and not access.admin_group_ids:
        told += ". There are neither @azure_rbac nor @admin_group_ids: nobody is allowed to, give one of them"
    return [f"{told} (whether it is so cannot be known before)"]


def _nodes(pool: Pool) -> str:
    return f"{pool.min_count}–{pool.max_count}" if pool.autoscale else f"{pool.count}"
