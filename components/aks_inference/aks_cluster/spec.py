"""The rules of a cluster: purpose and vCPU, pools, network, what is not there yet.

Reference: azureml-v1.md 1, aks-rules.md 1, 2, 6 and 7; contradictions are decided in docs/decisions.md.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from aks_inference.aks_cluster.network import FLAT, Network, plan_network
from aks_inference.findings import Finding, Severity, did_you_mean, under
from aks_inference.names import COMPUTE, RESERVED_COMPUTE
from aks_inference.values import Flag, Leaf, Leaves, Object, Read, Spec, Text, Whole, read
from aks_inference.vm_sizes import VmSize, closest, find_size, table_date

if TYPE_CHECKING:
    from aks_inference.cluster_rules import Tls

PRODUCTION_VCPU = 12
"""What a production cluster needs (source documents 000, 002, 004)."""
PRODUCTION_NODES = 3
"""Later documentation: fewer nodes leave a service without a spare."""
DEV_TEST_VCPU = 2
"""Recommended for DevTest."""
DEFAULT_VM_SIZE = "Standard_D3_v2"
DEFAULT_SYSTEM_VM_SIZE = "Standard_D4s_v5"
LARGEST_POOL = 1_000
SCORING_ADDRESS = (
    "load_balancer_type",
    "load_balancer_subnet",
    "ssl_cname",
    "ssl_cert_pem_file",
    "ssl_key_pem_file",
    "leaf_domain_label",
)
ATTACH = "attaching an existing cluster is not supported yet"
NEEDS_RUNTIME = "needs the runtime on Kubernetes, which this version does not have yet"


class Purpose(StrEnum):
    """What a cluster is for."""

    FAST_PROD = "FastProd"
    DENSE_PROD = "DenseProd"
    DEV_TEST = "DevTest"


Nodes = Annotated[Whole, Field(ge=1, le=LARGEST_POOL)]


class SystemPoolSpec(Spec):
    """The system pool, converted."""

    vm_size: Text = DEFAULT_SYSTEM_VM_SIZE
    count: Nodes | None = Field(None, description="use 1 to 1,000 nodes")


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
    vcpus_per_node: Annotated[Whole, Field(ge=1)] | None = None
    system_pool: Object | None = None
    resource_group_name: Leaf | None = None
    cluster_name: Text | None = None
    resource_id: Text | None = None
    tags: Leaves


@dataclass(frozen=True)
class ClusterPlan:
    """The cluster that will be created."""

    name: str
    purpose: Purpose
    agent_count: int
    vm_size: str
    gpu: bool
    system_vm_size: str
    system_count: int
    tier: str
    """Free or Standard."""
    network: Network
    location: str | None
    resource_group_name: Any
    tags: Mapping[str, Any]
    checks: tuple[str, ...]
    """What was checked, with figures."""


def plan_cluster(
    resource_name: str, declared: Mapping[str, Any], today: date
) -> tuple[ClusterPlan | None, list[Finding]]:
    """The plan, or what is wrong."""
    # Rules and prices of AKS take longer to load than all the rest; programs without AKS do not wait for them.
    from aks_inference.aks_cluster.rules import cost_line, judged, pool, rule_findings

    got = read(AksInferenceClusterSpec, declared)
    spec, findings = got.spec, list(got.findings)
    name = spec.cluster_name or resource_name
    findings += COMPUTE.check(("cluster_name",), name)
    if name.lower() in RESERVED_COMPUTE:
        findings.append(Finding(("cluster_name",), "is a reserved name", "choose another name", name))
    purposes = [purpose.value for purpose in Purpose]
    if spec.cluster_purpose not in purposes:
        mend = did_you_mean(spec.cluster_purpose, purposes).replace("@", "")
        findings.append(Finding(("cluster_purpose",), "is not a purpose", mend, spec.cluster_purpose))
    purpose = Purpose(spec.cluster_purpose) if spec.cluster_purpose in purposes else Purpose.FAST_PROD
    nodes = spec.agent_count or (1 if purpose is Purpose.DEV_TEST else PRODUCTION_NODES)
    size = find_size(spec.vm_size)
    checks, wrong = vcpu_check(got, purpose, nodes, size)
    findings += wrong
    findings += size_findings(spec.vm_size, size, spec.vcpus_per_node)
    system = read(SystemPoolSpec, spec.system_pool or {})
    findings += under(("system_pool",), system.findings)
    dev_test = purpose is Purpose.DEV_TEST
    count = system.spec.count or (1 if dev_test else PRODUCTION_NODES)
    network, wrong = plan_network(
        {field: getattr(spec, field) for field in FLAT}, spec.network if got.whole("network") else None
    )
    findings += wrong
    pools = (
        pool("system", system.spec.vm_size, count, "System", ("system_pool",)),
        pool("inference", spec.vm_size, nodes, "User", ()),
    )
    tier = "Free" if dev_test else "Standard"
    cluster = judged(spec.location, pools, network, tls_of(spec), tier, today)
    findings += rule_findings(cluster, network, dev_test)
    findings += later_findings(spec, {f.path[0] for f in findings if f.path and f.severity is Severity.ERROR})
    if any(f.severity is Severity.ERROR for f in findings):
        return None, findings
    plan = ClusterPlan(
        name=name,
        purpose=purpose,
        agent_count=nodes,
        vm_size=spec.vm_size,
        gpu=bool(size and size.gpus),
        system_vm_size=system.spec.vm_size,
        system_count=count,
        tier=tier,
        network=network,
        location=spec.location,
        resource_group_name=spec.resource_group_name,
        tags=spec.tags,
        checks=(*checks, cost_line(cluster)),
    )
    return plan, findings


def vcpu_check(
    got: Read[AksInferenceClusterSpec], purpose: Purpose, nodes: int, size: VmSize | None
) -> tuple[list[str], list[Finding]]:
    """The rule of 12: its sentence with the figures, and what is wrong."""
    each = size.vcpus if size else got.spec.vcpus_per_node
    if each is None or not got.whole("agent_count", "vm_size", "cluster_purpose"):
        return ["vCPU check: not possible, the size is not known"], []
    total = nodes * each
    sum_text = f"agentCount {nodes} × {got.spec.vm_size} ({each} vCPU) = {total} vCPU"
    if purpose is Purpose.DEV_TEST:
        return [f"vCPU check: {sum_text}; DevTest has no minimum: ok"], list(_dev_test(nodes, total))
    rule = f"{purpose.value} needs at least {PRODUCTION_VCPU}"
    if total >= PRODUCTION_VCPU:
        return [f"vCPU check: {sum_text}; {rule}: ok"], list(_few_nodes(nodes, purpose))
    enough = -(-PRODUCTION_VCPU // each)
    mend = f"use agentCount ≥ {enough}, a larger vmSize, or clusterPurpose DevTest"
    return [], [Finding(("agent_count",), f"{sum_text}; {rule}: {mend}", "")]


def _dev_test(nodes: int, total: int) -> Iterator[Finding]:
    rule = "DevTest is not for production: no fault tolerance, and requests may take longer"
    yield Finding(("cluster_purpose",), rule, "use FastProd for production", severity=Severity.WARNING)
    if total < DEV_TEST_VCPU:
        rule = f"{total} vCPU; at least {DEV_TEST_VCPU} are recommended for DevTest"
        yield Finding(("agent_count",), rule, "use a larger vmSize", nodes, Severity.WARNING)


def _few_nodes(nodes: int, purpose: Purpose) -> Iterator[Finding]:
    if nodes < PRODUCTION_NODES:
        rule = f"{purpose.value} on fewer than {PRODUCTION_NODES} nodes: the loss of one takes much of the capacity"
        yield Finding(("agent_count",), rule, f"use {PRODUCTION_NODES} or more", nodes, Severity.WARNING)


def size_findings(name: str, size: VmSize | None, vcpus: int | None) -> Iterator[Finding]:
    """A size that is not in the table, and the user's own word about one that is."""
    if size is None:
        said = f"taken as {vcpus} vCPU" if vcpus else "its vCPU are not checked"
        rule = f"is not in the table of {table_date()}: {said}"
        mends = [mend for mend in (closest(name), "" if vcpus else "@vcpus_per_node says how many") if mend]
        yield Finding(("vm_size",), rule, " ".join(mends), name, Severity.WARNING)
    elif vcpus is not None and vcpus != size.vcpus:
        yield Finding(("vcpus_per_node",), f"{name} has {size.vcpus} vCPU", "leave it out", vcpus)


def tls_of(spec: AksInferenceClusterSpec) -> "Tls":
    """The arguments about the scoring address."""
    from aks_inference.cluster_rules import Tls

    return Tls(
        cname=spec.ssl_cname,
        cert_pem_file=spec.ssl_cert_pem_file,
        key_pem_file=spec.ssl_key_pem_file,
        leaf_domain_label=spec.leaf_domain_label,
        overwrite_existing_domain=bool(spec.overwrite_existing_domain),
        load_balancer_type=spec.load_balancer_type,
        load_balancer_subnet=spec.load_balancer_subnet,
    )


def later_findings(spec: AksInferenceClusterSpec, wrong: Set[str | int]) -> Iterator[Finding]:
    """What this version does not have; refused, never ignored. `wrong`: arguments that have another error."""
    if spec.resource_id is not None:
        yield Finding(("resource_id",), ATTACH, "leave it out to create a cluster", spec.resource_id)
    if not wrong.isdisjoint(SCORING_ADDRESS):
        return
    if spec.load_balancer_type == "InternalLoadBalancer":
        yield Finding(("load_balancer_type",), NEEDS_RUNTIME, "leave it out", spec.load_balancer_type)
    if None not in (spec.ssl_cname, spec.ssl_cert_pem_file, spec.ssl_key_pem_file):
        yield Finding(("ssl_cname",), f"TLS {NEEDS_RUNTIME}", "leave it out")
    if spec.leaf_domain_label is not None:
        yield Finding(("leaf_domain_label",), f"TLS {NEEDS_RUNTIME}", "leave it out", spec.leaf_domain_label)
