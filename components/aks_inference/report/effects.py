"""What a preview means for what is served: traffic, replicas, capacity and cost, before and after."""

from collections.abc import Awaitable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from aks_inference.aks_cluster.capacity import replica_pod, runtime_services
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.cluster_rules.cost import cost_change
from aks_inference.cluster_rules.fitting import Service, fit_services
from aks_inference.cluster_rules.packing import Workload
from aks_inference.report.digest import UNKNOWN, Change
from aks_inference.report.quota import QuotaEffect, Usage, quota_effects
from aks_inference_runtime.api.traffic import Share, effective_traffic

CLUSTER = "aks-inference:index:AksInferenceCluster"
AZURE = "azure-native"
ENDPOINTS = ("aks-inference:index:LocalEndpoint", "kubernetes:aks-inference.dev/v1:ScoringEndpoint")


@dataclass(frozen=True)
class VersionEffect:
    """A version of an endpoint, before and after. None: not there."""

    name: str
    traffic: tuple[float | None, float | None]
    """Effective percent."""
    replicas: tuple[str | None, str | None]
    """`1` or `1–10`."""


@dataclass(frozen=True)
class EndpointEffect:
    """An endpoint that is there before or after."""

    name: str
    op: str
    versions: tuple[VersionEffect, ...]


@dataclass(frozen=True)
class PoolEffect:
    """A pool of nodes, before and after."""

    cluster: str
    name: str
    nodes: tuple[str | None, str | None]
    vcpus: tuple[int | None, int | None]
    """At most; None: not there, or the size is not known."""
    gpus: tuple[int, int]


@dataclass(frozen=True)
class CostEffect:
    """What a cluster costs a month."""

    cluster: str
    before: str | None
    after: str | None
    change: str | None


@dataclass(frozen=True)
class Report:
    """The report."""

    counts: Mapping[str, int]
    changes: tuple[Change, ...]
    """Without what stays the same."""
    endpoints: tuple[EndpointEffect, ...]
    pools: tuple[PoolEffect, ...]
    fit: tuple[str, ...]
    costs: tuple[CostEffect, ...]
    price_date: str | None
    """Of the price list."""
    diagnostics: tuple[tuple[str, str], ...]
    """(severity, text), errors first."""
    unknown: tuple[str, ...] = field(default=())
    quotas: tuple[QuotaEffect, ...] = ()
    """Those that are asked for more, where Azure's usage is given."""

    def replaced(self) -> list[Change]:
        """What is taken away and made anew."""
        return [change for change in self.changes if change.op == "replace"]

    def deleted(self) -> list[Change]:
        """What is taken away."""
        return [change for change in self.changes if change.op == "delete"]


class _Later(Awaitable[str]):
    """In the place of what is known only later."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from ()
        return ""


def report_of(
    changes: Sequence[Change], preview: Mapping[str, Any], today: date, usages: Sequence[Usage] = ()
) -> Report:
    """Everything together."""
    moving = tuple(change for change in changes if change.op not in {"same", "read", "refresh"})
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.op] = counts.get(change.op, 0) + 1
    clusters = [change for change in changes if change.type == CLUSTER]
    region = _region(preview)
    plans = {
        change.name: (_plan(change.name, change.old, today, region), _plan(change.name, change.new, today, region))
        for change in clusters
    }
    return Report(
        counts=counts,
        changes=moving,
        endpoints=tuple(_endpoints(changes)),
        pools=tuple(pool for name, both in plans.items() for pool in _pools(name, both)),
        fit=tuple(_fit(changes, plans)),
        costs=tuple(_cost(name, both) for name, both in plans.items()),
        price_date=next((str(plan.cost.price_date) for both in plans.values() for plan in both if plan), None),
        diagnostics=tuple(_diagnostics(preview)),
        unknown=tuple(f"{change.title}: {path}" for change in moving for path in change.unknown()),
        quotas=quota_effects(plans.values(), usages),
    )


def _region(preview: Mapping[str, Any]) -> str | None:
    """Of clusters that say none: the configuration's, as for the preview itself."""
    config = preview.get("config")
    region = config.get(f"{AZURE}:location") if isinstance(config, Mapping) else None
    return region if isinstance(region, str) else None


def _plan(name: str, inputs: Mapping[str, Any], today: date, region: str | None) -> ClusterPlan | None:
    if not inputs:
        return None
    known = {key: _late(value) for key, value in inputs.items()}
    plan, _ = plan_cluster(name, {_snake(key): value for key, value in known.items()}, today, region)
    return plan if isinstance(plan, ClusterPlan) else None


def _late(value: object) -> object:
    if value == UNKNOWN:
        return _Later()
    if isinstance(value, Mapping):
        return {key: _late(inner) for key, inner in value.items()}
    return [_late(inner) for inner in value] if isinstance(value, list) else value


def _snake(name: str) -> str:
    from pydantic.alias_generators import to_snake

    return to_snake(name)


def _endpoints(changes: Sequence[Change]) -> Iterator[EndpointEffect]:
    for change in changes:
        if change.type not in ENDPOINTS:
            continue
        before, after = _versions(change.old), _versions(change.new)
        effects = tuple(
            VersionEffect(
                name,
                (_traffic(before, name), _traffic(after, name)),
                (_replicas(before.get(name)), _replicas(after.get(name))),
            )
            for name in dict.fromkeys([*before, *after])
        )
        yield EndpointEffect(_endpoint_name(change), change.op, effects)


def _endpoint_name(change: Change) -> str:
    spec = (change.new or change.old).get("endpoint") or (change.new or change.old)
    name = (spec.get("metadata") or {}).get("name") if isinstance(spec, Mapping) else None
    return str(name or change.name)


def _versions(inputs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    endpoint = inputs.get("endpoint") or inputs
    spec = endpoint.get("spec") if isinstance(endpoint, Mapping) else None
    versions = spec.get("versions") if isinstance(spec, Mapping) else None
    return {str(one.get("name")): one for one in versions or () if isinstance(one, Mapping)}


def _traffic(versions: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    if name not in versions:
        return None
    shares = [
        Share(key, float(one.get("trafficPercentile") or 0), bool(one.get("isDefault")))
        for key, one in versions.items()
    ]
    return effective_traffic(shares)[name] / 100


def _replicas(version: Mapping[str, Any] | None) -> str | None:
    if version is None:
        return None
    return _span(*_bounds(version))


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least}–{most}"


def _bounds(version: Mapping[str, Any]) -> tuple[int, int]:
    scaling = version.get("scaling") or {}
    if scaling.get("autoscaleEnabled", True):
        return int(scaling.get("autoscaleMinReplicas") or 0), int(scaling.get("autoscaleMaxReplicas") or 1)
    fixed = int(scaling.get("numReplicas") or 1)
    return fixed, fixed


def _pools(name: str, both: tuple[ClusterPlan | None, ClusterPlan | None]) -> Iterator[PoolEffect]:
    before, after = ({pool.name: pool for pool in plan.cluster.pools} if plan else {} for plan in both)
    for pool in dict.fromkeys([*before, *after]):
        sides = (before.get(pool), after.get(pool))
        nodes = tuple(None if one is None else _span(one.least_nodes, one.most_nodes) for one in sides)
        vcpus = tuple(one.most_nodes * one.size.vcpus if one and one.size else None for one in sides)
        gpus = tuple(one.most_nodes * one.size.gpus if one and one.size else 0 for one in sides)
        yield PoolEffect(name, pool, (nodes[0], nodes[1]), (vcpus[0], vcpus[1]), (gpus[0], gpus[1]))


def _fit(
    changes: Sequence[Change], plans: Mapping[str, tuple[ClusterPlan | None, ClusterPlan | None]]
) -> Iterator[str]:
    """The services on a Kubernetes target; with several clusters a preview does not say which one is meant."""
    after = [plan for _, plan in plans.values() if plan is not None]
    if len(after) != 1:
        return
    services = [
        _service(_endpoint_name(change), name, version)
        for change in changes
        if change.type == ENDPOINTS[1] and change.new
        for name, version in _versions(change.new).items()
    ]
    if services:
        yield from fit_services(after[0].cluster, [*runtime_services(after[0]), *services]).lines()


def _service(endpoint: str, name: str, version: Mapping[str, Any]) -> Service:
    wanted: Mapping[str, Any] = version.get("resources") or {}
    each = replica_pod(
        float(wanted.get("cpuCores") or 0.1),
        float(wanted.get("memoryGb") or 0.5),
        int(wanted.get("gpuCores") or 0),
        collects=bool((version.get("modelData") or {}).get("store")),
    )
    least, most = _bounds(version)
    return Service(Workload(f"{endpoint}/{name}", each, most), least, most)


def _cost(name: str, both: tuple[ClusterPlan | None, ClusterPlan | None]) -> CostEffect:
    before, after = both
    there = after or before
    if there is None:
        return CostEffect(name, None, None, None)
    nothing = replace(there.cost, lines=())
    change = cost_change(before.cost if before else nothing, after.cost if after else nothing)
    return CostEffect(name, _amount(before), _amount(after), change.text())


def _amount(plan: ClusterPlan | None) -> str | None:
    if plan is None:
        return None
    cost = plan.cost
    span = f"{cost.lowest:,.2f}" + (f" to {cost.highest:,.2f}" if cost.highest != cost.lowest else "")
    without = f" and what is unknown: {', '.join(cost.unknown)}" if cost.unknown else ""
    return f"USD {span}{without}"


def _diagnostics(preview: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = []
    for one in preview.get("diagnostics") or ():
        text = " ".join(str(one.get("message") or "").split()) if isinstance(one, Mapping) else ""
        severity = str(one.get("severity") or "info") if isinstance(one, Mapping) else "info"
        if text and severity in {"error", "warning"}:
            found.append((severity, text))
    yield from dict.fromkeys(sorted(found, key=lambda one: one[0] != "error"))
