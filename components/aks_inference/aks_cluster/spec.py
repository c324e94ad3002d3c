"""The rules of a cluster: its arguments, converted, checked and brought together into a plan.

Reference: azureml-v1.md 1, aks-rules.md; contradictions are decided in docs/decisions.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Any

from pydantic import Field

from aks_inference.aks_cluster.attach import AttachPlan, attach_rules, attaches
from aks_inference.aks_cluster.groups import (
    DEFAULT_MINUTES,
    AccessSpec,
    EgressSpec,
    IdentitySpec,
    MaintenanceWindowSpec,
    Minutes,
    Nodes,
    SecuritySpec,
    Vcpus,
)
from aks_inference.aks_cluster.network import FLAT, Network, plan_network, rule_network
from aks_inference.aks_cluster.parts import (
    access_part,
    egress_part,
    identity_part,
    identity_rules,
    named_ids,
    security_part,
    windows,
)
from aks_inference.aks_cluster.pools import PoolPlan, flat_pool, group_pools, system_pool
from aks_inference.aks_cluster.purpose import PRODUCTION_NODES, Purpose, size_findings, vcpu_check
from aks_inference.aks_cluster.scoring_address import address_findings, runtime_arguments, tls_of
from aks_inference.cluster_rules.cost import Cost
from aks_inference.cluster_rules.model import Cluster, Pool
from aks_inference.findings import NOTHING, Finding, Path, Severity, did_you_mean, under
from aks_inference.names import COMPUTE, RESERVED_COMPUTE
from aks_inference.values import Anys, Flag, Labels, Leaf, Leaves, Object, Read, Spec, Text, named, read
from aks_inference.vm_sizes import VmSize

DEFAULT_VM_SIZE = "Standard_D3_v2"
_GROUPS: dict[str, type[Spec]] = {
    "egress": EgressSpec,
    "access": AccessSpec,
    "identity": IdentitySpec,
    "security": SecuritySpec,
}


class AksInferenceClusterSpec(Spec):
    """The arguments, converted."""

    cluster_purpose: Text = Purpose.FAST_PROD.value
    agent_count: Nodes | None = Field(None, description="use 1 to 1,000 nodes, or leave it out")
    vm_size: Text = DEFAULT_VM_SIZE
    location: Text | None = None
    vnet_resourcegroup_name: Text | None = None
    vnet_name: Text | None = None
    subnet_name: Text | None = None
    service_cidr: Text | None = None
    dns_service_ip: Text | None = None
    docker_bridge_cidr: Text | None = None
    load_balancer_type: Text = "PublicIp"
    load_balancer_subnet: Text | None = None
    ssl_cname: Text | None = None
    ssl_cert_pem_file: Text | None = None
    ssl_key_pem_file: Text | None = None
    leaf_domain_label: Text | None = None
    overwrite_existing_domain: Flag | None = None
    network: Object | None = None
    vcpus_per_node: Vcpus | None = None
    system_pool: Object | None = None
    resource_group_name: Leaf | None = None
    cluster_name: Text | None = None
    resource_id: Text | None = None
    resource_group: Text | None = None
    tags: Leaves
    egress: Object | None = None
    access: Object | None = None
    identity: Object | None = None
    pools: Anys | None = None
    security: Object | None = None
    runtime: Object | None = None
    registry_ids: Annotated[tuple[Leaf, ...], *Anys.__metadata__] = ()
    related_locations: Labels
    kubernetes_version: Text | None = Field(
        None, description='write it in quotes, such as "1.35": without them YAML takes 1.30 for 1.3'
    )
    tier: Text | None = None
    sku_name: Text = "Base"
    support_plan: Text = "KubernetesOfficial"
    upgrade_channel: Text | None = None
    node_os_upgrade_channel: Text | None = None
    maintenance_windows: Anys = ()
    node_provisioning: Text = "Manual"
    autoscaler_profile: Labels
    dns_prefix: Text | None = None
    node_resource_group: Text | None = None
    subscription_id: Text | None = None
    minimum_tls_version: Text | None = None
    ssl_key_vault_secret_id: Text | None = None
    ssl_key_vault_id: Leaf | None = None
    allow_replacement: Flag = False
    create_timeout_minutes: Minutes = DEFAULT_MINUTES
    update_timeout_minutes: Minutes = DEFAULT_MINUTES
    delete_timeout_minutes: Minutes = DEFAULT_MINUTES


@dataclass(frozen=True)
class ClusterPlan:
    """The cluster that will be created."""

    name: str
    purpose: Purpose
    spec: AksInferenceClusterSpec
    cluster: Cluster
    """In the words of the rules."""
    network: Network
    egress: EgressSpec
    access: AccessSpec
    identity: IdentitySpec
    security: SecuritySpec
    system: Pool
    pools: tuple[PoolPlan, ...]
    windows: tuple[MaintenanceWindowSpec, ...]
    runtime: Mapping[str, Any] | None
    """Arguments of the InferenceRuntime on it."""
    cost: Cost
    checks: tuple[str, ...]
    """What was checked, with figures."""

    @property
    def gpu(self) -> bool:
        """Whether a pool for inference has GPUs."""
        return any(plan.pool.size and plan.pool.size.gpus for plan in self.pools)

    @property
    def growing(self) -> dict[str, int]:
        """Autoscaled pools for inference, by their names in Azure → the most nodes."""
        scaled = (plan for plan in self.pools if plan.pool.autoscale)
        return {plan.azure_name: plan.pool.max_count or 1 for plan in scaled}


Plan = ClusterPlan | AttachPlan


def plan_cluster(
    resource_name: str, declared: Mapping[str, Any], today: date, default_location: str | None = None
) -> tuple[Plan | None, list[Finding]]:
    """The plan, or what is wrong. `default_location`: that of the provider's configuration."""
    declared = named(AksInferenceClusterSpec, declared)
    got = read(AksInferenceClusterSpec, declared)
    findings = [*got.findings, *_empty(got.spec)]
    purpose, wrong = _purpose(got.spec)
    findings += wrong
    if attaches(declared):
        return _attach(got, purpose, declared, findings)
    return _create(resource_name, got, purpose, today, findings, default_location)


def _empty(spec: AksInferenceClusterSpec) -> Iterator[Finding]:
    """Texts without a letter, which would reach Azure as they are; other rules say it of the rest."""
    for name in ("location", "tier", "cluster_name"):
        if getattr(spec, name) == "":
            yield Finding((name,), "must not be empty", "give it, or leave it out", "")


def _attach(
    got: Read[AksInferenceClusterSpec], purpose: Purpose, declared: Mapping[str, Any], findings: list[Finding]
) -> tuple[Plan | None, list[Finding]]:
    from aks_inference.cluster_rules.tls import check_tls

    spec = got.spec
    given = {name: value for name, value in declared.items() if value is not None and name in spec.model_fields_set}
    findings += attach_rules(given)
    findings += check_tls(Cluster(tls=tls_of(spec)))
    runtime, wrong = runtime_arguments(spec)
    findings += wrong
    findings += address_findings(spec, _wrong(findings))
    if _failed(findings):
        return None, findings
    named = (spec.resource_id, spec.resource_group, spec.cluster_name, spec.subscription_id)
    vault = (spec.ssl_key_vault_secret_id, spec.ssl_key_vault_id)
    minutes = (spec.create_timeout_minutes, spec.update_timeout_minutes, spec.delete_timeout_minutes)
    return AttachPlan(purpose, *named, spec.vcpus_per_node, runtime, spec.leaf_domain_label, *vault, *minutes), findings


def _create(
    resource_name: str,
    got: Read[AksInferenceClusterSpec],
    purpose: Purpose,
    today: date,
    findings: list[Finding],
    default_location: str | None,
) -> tuple[Plan | None, list[Finding]]:
    # Rules and prices of AKS take longer to load than all the rest; programs without AKS do not wait for them.
    from aks_inference.aks_cluster.rules import cost_of, rule_findings

    spec, dev_test = got.spec, purpose is Purpose.DEV_TEST
    location = spec.location or default_location
    name = resource_name if spec.cluster_name is None else spec.cluster_name
    findings += COMPUTE.check(("cluster_name",), name)
    if name.lower() in RESERVED_COMPUTE:
        findings.append(Finding(("cluster_name",), "is a reserved name", "choose another name", name))
    network, wrong = plan_network(
        {field: getattr(spec, field) for field in FLAT}, spec.network if got.whole("network") else None
    )
    findings += wrong
    groups = {group: read(kind, getattr(spec, group) or {}) for group, kind in _GROUPS.items()}
    for group, found in groups.items():
        findings += under((group,), found.findings)
    egress, access, identity, security = (groups[group].spec for group in _GROUPS)
    assert isinstance(egress, EgressSpec) and isinstance(access, AccessSpec)  # noqa: S101, PT018 - for the types
    assert isinstance(identity, IdentitySpec) and isinstance(security, SecuritySpec)  # noqa: S101, PT018
    findings += under(("identity",), identity_rules(identity))
    system, wrong = system_pool(spec.system_pool, 1 if dev_test else PRODUCTION_NODES)
    findings += wrong
    pools, checks, wrong = _pools(got, purpose, network)
    findings += wrong
    made, wrong = windows(spec.maintenance_windows)
    findings += wrong
    runtime, wrong = runtime_arguments(spec)
    findings += wrong
    cluster = Cluster(
        name=None,  # said by the rule of compute names, which is the narrower one
        location=location,
        pools=(system, *(plan.pool for plan in pools)),
        network=rule_network(network, spec.subscription_id),
        egress=egress_part(egress),
        access=access_part(access, location, spec.subscription_id),
        identity=identity_part(identity),
        # The add-on brings the certificate.
        security=replace(security_part(security), key_vault_secrets=_mounts_secrets(spec, security)),
        tls=tls_of(spec),
        dns_prefix=spec.dns_prefix,
        subscription_id=spec.subscription_id,
        resource_group=spec.resource_group_name if isinstance(spec.resource_group_name, str) else None,
        node_resource_group=spec.node_resource_group,
        kubernetes_version=spec.kubernetes_version,
        sku_name=spec.sku_name,
        tier=spec.tier or ("Free" if dev_test else "Standard"),
        support_plan=spec.support_plan,
        upgrade_channel=spec.upgrade_channel,
        node_os_upgrade_channel=spec.node_os_upgrade_channel,
        node_provisioning=spec.node_provisioning,
        autoscaler_profile=tuple(spec.autoscaler_profile.items()),
        related_locations=tuple(spec.related_locations.items()),
        tags=tuple(spec.tags.items()),
        ids=named_ids(
            spec.registry_ids,
            network.spec.route_table_id,
            egress,
            identity,
            security,
            [plan.pool for plan in pools],
        ),
        today=today,
    )
    cluster = replace(cluster, name=name) if not _failed(findings) else cluster
    places: dict[Path, Path] = {**network.places, ("count",): ("agent_count",), ("name",): ("cluster_name",)}
    # What could not be read has its default here: nothing is said of that.
    unread = {one.path[0] for one in got.findings if one.path}
    said = rule_findings(cluster, places, dev_test)
    findings += (one for one in said if one.severity is Severity.ERROR or one.path[:1] not in {(p,) for p in unread})
    findings += address_findings(spec, _wrong(findings))
    if runtime is not None:
        findings += _unguarded(cluster)
    if spec.leaf_domain_label is not None and location is None and "leaf_domain_label" not in _wrong(findings):
        rule = "has the region in its name, which is not known"
        findings.append(Finding(("leaf_domain_label",), rule, "give @location", spec.leaf_domain_label))
    if _failed(findings):
        return None, findings
    cost = cost_of(cluster)
    return ClusterPlan(
        name=name,
        purpose=purpose,
        spec=spec,
        cluster=cluster,
        network=network,
        egress=egress,
        access=access,
        identity=identity,
        security=security,
        system=system,
        pools=tuple(pools),
        windows=tuple(made),
        runtime=runtime,
        cost=cost,
        checks=(*checks, f"cost: {cost.text()}"),
    ), findings


def _unguarded(cluster: Cluster) -> Iterator[Finding]:
    """Keys and tokens are checked by routers: without an engine for NetworkPolicies pods reach gates beside them."""
    network = cluster.network
    engine = network.policy not in {None, "none"} or network.dataplane == "cilium" or network.plugin == "none"
    if engine or cluster.sku_name == "Automatic":
        return
    rule = "no NetworkPolicy is enforced: every pod of the cluster can score without a key, past the routers"
    cilium = 'use @policy "cilium" with @dataplane "cilium"'
    mend = 'use @policy "calico"' if network.plugin == "kubenet" else f'{cilium}, or @policy "calico"'
    value = NOTHING if network.policy is None else network.policy
    yield Finding((*network.path, "policy"), rule, mend, value, Severity.WARNING)


def _mounts_secrets(spec: AksInferenceClusterSpec, security: SecuritySpec) -> bool:
    return security.key_vault_secrets or spec.ssl_key_vault_secret_id is not None


def _purpose(spec: AksInferenceClusterSpec) -> tuple[Purpose, list[Finding]]:
    purposes = [purpose.value for purpose in Purpose]
    if spec.cluster_purpose in purposes:
        return Purpose(spec.cluster_purpose), []
    mend = did_you_mean(spec.cluster_purpose, purposes).replace("@", "")
    return Purpose.FAST_PROD, [Finding(("cluster_purpose",), "is not a purpose", mend, spec.cluster_purpose)]


def _pools(
    got: Read[AksInferenceClusterSpec], purpose: Purpose, network: Network
) -> tuple[list[PoolPlan], list[str], list[Finding]]:
    """The pools for inference, the check of their vCPU, and what is wrong with them."""
    spec, findings, flat = got.spec, [], spec_is_flat(got.spec)
    if flat:
        nodes = spec.agent_count or (1 if purpose is Purpose.DEV_TEST else PRODUCTION_NODES)
        plans = [flat_pool(spec.vm_size, nodes, spec.vcpus_per_node, network)]
    else:
        both = [name for name in ("agent_count", "vm_size", "vcpus_per_node") if name in spec.model_fields_set]
        for name in both:
            rule = "is also given as @pools"
            findings.append(Finding((name,), rule, f"give @{name} or @pools, not both", getattr(spec, name)))
        plans, wrong = group_pools(spec.pools or (), network)
        findings += wrong
    for plan in plans:
        named = plan.spec.vm_size or ""
        findings += size_findings(plan.pool.path, named, plan.pool.size, plan.spec.vcpus_per_node)
    if _failed(findings) or not got.whole("agent_count", "vm_size", "cluster_purpose", "vcpus_per_node", "pools"):
        return plans, [], findings
    checks, wrong = vcpu_check([_sized(plan) for plan in plans], purpose, flat)
    return plans, checks, [*findings, *wrong]


def spec_is_flat(spec: AksInferenceClusterSpec) -> bool:
    """Whether the pool is said by `agent_count` and `vm_size`."""
    return not spec.pools


def _sized(plan: PoolPlan) -> Pool:
    """With the user's word where the table does not know the size."""
    if plan.pool.size is not None or plan.spec.vcpus_per_node is None:
        return plan.pool
    return replace(plan.pool, size=VmSize(plan.pool.vm_size or "", plan.spec.vcpus_per_node, 0.0, 0))


def _failed(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def _wrong(findings: list[Finding]) -> set[str | int]:
    return {f.path[0] for f in findings if f.path and f.severity is Severity.ERROR}
