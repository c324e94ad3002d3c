"""Whether the declared services fit on the declared pools, at their minimum and at their maximum."""

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from aks_inference.aks_cluster.purpose import Purpose
from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.cluster_rules.capacity import Resources
from aks_inference.cluster_rules.fitting import SPOT_TAINT, FitReport, Service, fit_services
from aks_inference.cluster_rules.packing import Verdict, Workload
from aks_inference.findings import Finding, Severity
from aks_inference.inference_runtime.routers import RoutersPlan, plan_routers
from aks_inference.values import read

if TYPE_CHECKING:
    from aks_inference.service.endpoint import EndpointPlan

K = TypeVar("K", bound=Hashable)

GATE = Resources(cpu_m=50, memory_mib=64, pods=0)
"""Beside each replica, in its pod."""
SHIPPING = Resources(cpu_m=10, memory_mib=64, pods=0)
"""Beside each replica that collects model data, too."""
AUTOSCALER = Resources(cpu_m=100, memory_mib=128)
CERTIFICATE = Resources(cpu_m=10, memory_mib=64)
"""The pod that keeps a Key Vault's certificate."""
GPU_TOLERATION = "sku=gpu:NoSchedule"


def replica_pod(cpu_cores: float, memory_gb: float, gpu_cores: int, *, collects: bool) -> Resources:
    """A replica's pod, with what stands beside its container. `collects`: model data, into a store."""
    beside = (GATE, SHIPPING) if collects else (GATE,)
    return Resources(
        cpu_m=round(cpu_cores * 1000) + sum(one.cpu_m for one in beside),
        # Azure ML's GB are GiB.
        memory_mib=round(memory_gb * 1024) + sum(one.memory_mib for one in beside),
        gpus=gpu_cores,
    )


def services_of(name: str, plan: "EndpointPlan") -> Iterator[Service]:
    """Each version of an endpoint."""
    for one in plan.versions:
        version = one.version
        wanted, scaling = version.resources, version.scaling
        collects = version.model_data is not None and version.model_data.store is not None
        each = replica_pod(wanted.cpu_cores, wanted.memory_gb, wanted.gpu_cores, collects=collects)
        tolerations = (GPU_TOLERATION,) * bool(wanted.gpu_cores) + (SPOT_TAINT,) * one.placing.spot
        if scaling.autoscale_enabled:
            least, most = scaling.autoscale_min_replicas, scaling.autoscale_max_replicas
        else:
            least = most = scaling.num_replicas or 1
        workload = Workload(f"{name}/{version.name}", each, most, tolerations=tolerations)
        yield Service(workload, least, most)


def runtime_services(plan: ClusterPlan) -> tuple[Service, ...]:
    """The router and the autoscaler themselves, and what keeps a certificate."""
    routers, copies = _routers(plan), 1 if plan.purpose is Purpose.DEV_TEST else 2
    # More cores than at first are asked for where they are free, and nowhere else.
    each = Resources(cpu_m=round(routers.cores * 1000), memory_mib=round(routers.memory_gib * 1024))
    found = (
        Service(Workload("router", each, routers.most), routers.least, routers.most),
        Service(Workload("autoscaler", AUTOSCALER, copies), copies, copies),
    )
    if plan.spec.ssl_key_vault_secret_id is None:
        return found
    return (*found, Service(Workload("certificate", CERTIFICATE, 1), 1, 1))


def _routers(plan: ClusterPlan) -> RoutersPlan:
    # It loads what is about Kubernetes.
    from aks_inference.inference_runtime.spec import InferenceRuntimeSpec

    declared = {name: value for name, value in (plan.runtime or {}).items() if name.startswith("router_")}
    return plan_routers(read(InferenceRuntimeSpec, {**declared, "cluster_purpose": plan.purpose.value}).spec)


def fit(plan: ClusterPlan, endpoints: Mapping[K, "EndpointPlan"]) -> FitReport:
    """All services of a cluster, with its runtime."""
    declared = [service for one in endpoints.values() for service in services_of(one.name, one)]
    return fit_services(plan.cluster, [*runtime_services(plan), *declared])


def fit_findings(plan: ClusterPlan, endpoints: Mapping[K, "EndpointPlan"]) -> Iterator[tuple[K, Finding]]:
    """What does not fit, by endpoint. Surely not, with as few replicas as may be: an error; else a warning."""
    if not endpoints:
        return
    for key, endpoint in endpoints.items():
        if not plan.gpu and any(one.version.resources.gpu_cores for one in endpoint.versions):
            rule = f"asks for a GPU, and no pool of the cluster {plan.name} has one"
            yield key, Finding(("gpu_cores",), rule, "give the cluster a pool of a size with a GPU, or leave it out")
        if not any(pool.pool.spot for pool in plan.pools) and any(one.placing.spot for one in endpoint.versions):
            rule = f"has no effect: no pool of the cluster {plan.name} is of spot nodes"
            mend = "give the cluster one (`spot`), or leave it out"
            yield key, Finding(("spot",), rule, mend, value=True, severity=Severity.WARNING)
    report = fit(plan, endpoints)
    by_name = {f"{one.name}/": key for key, one in endpoints.items()}
    said: set[tuple[K, str]] = set()
    for bound, found, surely in (
        ("minimum", report.at_least, report.at_least.verdict is Verdict.CANNOT_FIT),
        ("maximum", report.at_most, False),
    ):
        for pending in found.pending:
            whose = next((key for start, key in by_name.items() if pending.name.startswith(start)), None)
            if whose is None or (pending.reason == "GPU" and not plan.gpu) or (whose, pending.name) in said:
                continue
            said.add((whose, pending.name))
            rule = f"{found.verdict} on the nodes of {plan.name} at the services' {bound}: {pending.text()}"
            severity = Severity.ERROR if surely else Severity.WARNING
            yield whose, Finding((), rule, "use more or larger nodes, or ask for less", severity=severity)
