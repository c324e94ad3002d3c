"""A ControlledRolloutEndpoint: versions, their traffic, one default, at most one control.

Reference: azureml-v1.md 3 and 8.1; what Azure ML left open is decided in docs/decisions.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aks_inference.findings import Finding, Severity, placed, under
from aks_inference.names import SERVICE
from aks_inference.service.calls import call_rules
from aks_inference.service.deployment import FILE, Deployment, in_versions, shared
from aks_inference.service.endpoint import (
    EndpointPlan,
    EndpointSettings,
    VersionPlan,
    build_endpoint,
    endpoint_fields,
    endpoint_rules,
)
from aks_inference.service.insights import with_insights
from aks_inference.service.settings import VersionSettings
from aks_inference.service.versions import plan_version, read_settings
from aks_inference.targets import TargetChoice, choose_target, target_findings
from aks_inference.values import Anys, Flag, Labels, Leaf, Leaves, Number, Read, Text, named, read
from aks_inference_runtime.api.endpoint import MAX_VERSIONS, MOST_QUEUED, VersionType
from aks_inference_runtime.api.traffic import HUNDREDTHS, hundredths

COMPUTE_TYPES = frozenset({"aks", "aksendpoint"})


class VersionSpec(VersionSettings):
    """The arguments of a version, converted."""

    version_name: Text | None = None
    traffic_percentile: Number = 0
    is_default: Flag | None = None
    type: Text | None = None
    is_control_version_type: Flag | None = None


class ControlledRolloutEndpointSpec(EndpointSettings):
    """The arguments of an endpoint, converted."""

    versions: Anys = ()
    endpoint_name: Text | None = None
    tags: Leaves
    properties: Labels
    description: Leaf | None = None


def plan_rollout(resource_name: str, declared: Mapping[str, Any]) -> tuple[EndpointPlan | None, list[Finding]]:
    """The plan, or what is wrong. Reads the files that the arguments name."""
    explicit = named(ControlledRolloutEndpointSpec, declared)
    reads, unread = _read_versions(read(ControlledRolloutEndpointSpec, explicit).spec.versions)
    files, twice = shared(explicit, [(("versions", index), deployment) for index, _, deployment in reads])
    got = read(ControlledRolloutEndpointSpec, {**files.values, **explicit}, required=("target", "versions"))
    spec, findings = got.spec, [*in_versions(files, got.findings), *twice]
    target, wrong = choose_target(spec.target)
    findings += wrong + list(target_findings(target))
    name = resource_name if spec.endpoint_name is None else spec.endpoint_name
    findings += SERVICE.check(("endpoint_name",), name)
    findings += in_versions(files, endpoint_rules(got, target))
    plans, wrong = _plan_versions(len(spec.versions), reads, target) if got.whole("versions") else ([], [])
    findings += [*unread, *wrong, *in_versions(files, call_rules(spec, plans))]
    if target is None or any(f.severity is Severity.ERROR for f in findings):
        return None, findings
    plans = [with_insights(plan, spec) for plan in plans]
    plain, late = endpoint_fields(spec)
    endpoint = build_endpoint(name, spec, plans, {**plain, "properties": spec.properties})
    notes = [f"{plan.version.name}: {note}" for plan in plans for note in plan.notes]
    if spec.namespace is not None and target.local is not False:
        notes.append(f"namespace {spec.namespace}: a label only, on the local target")
    return EndpointPlan(
        name, target, endpoint, tuple(plans), late, spec.primary_key, spec.secondary_key, tuple(notes), spec.key_version
    ), findings


Reads = list[tuple[int, Read[VersionSpec], Deployment]]
"""Versions by their position."""


def _read_versions(versions: Sequence[Any]) -> tuple[Reads, list[Finding]]:
    findings: list[Finding] = []
    reads: Reads = []
    for index, declared in enumerate(versions):
        at = ("versions", index)
        if not isinstance(declared, Mapping):
            findings.append(
                Finding(at, f"an object of type {type(declared).__name__} is not a version", "write an object")
            )
            continue
        got, wrong, deployment = read_settings(VersionSpec, declared, ("version_name",), COMPUTE_TYPES)
        findings += under(at, wrong)
        reads.append((index, got, deployment))
    return reads, findings


def _plan_versions(count: int, reads: Reads, target: TargetChoice | None) -> tuple[list[VersionPlan], list[Finding]]:
    specs = [got for _, got, _ in reads]
    findings = list(version_rules(count, specs))
    default = _default(specs)
    control = any(_type(got.spec) is VersionType.CONTROL for got in specs)
    plans = []
    for position, (index, got, deployment) in enumerate(reads):
        places = deployment.places
        share = got.spec.traffic_percentile
        traffic = {
            "traffic_percentile": share if _valid(share) else 0,
            "is_default": position == default,
            "type": _type(got.spec) or (VersionType.TREATMENT if control else None),
        }
        plan, wrong = plan_version(got.spec.version_name or "", got, target, places, traffic)
        findings += under(("versions", index), wrong)
        findings += under(("versions", index), placed(places, FILE, traffic_findings(got)))
        if plan is not None:
            plans.append(plan)
    return plans, findings


def traffic_findings(got: Read[VersionSpec]) -> Iterator[Finding]:
    """The rules of one version's share, name and type."""
    spec = got.spec
    if got.whole("traffic_percentile") and not _valid(spec.traffic_percentile):
        wrong = "must be between 0 and 100" if not 0 <= spec.traffic_percentile <= 100 else "has more than two decimals"
        mend = "use 0 to 100 with up to two decimals"
        yield Finding(("traffic_percentile",), wrong, mend, spec.traffic_percentile)
    yield from SERVICE.check(("version_name",), spec.version_name)
    if spec.type is not None and spec.type not in (VersionType.CONTROL, VersionType.TREATMENT):
        yield Finding(("type",), "is not a type of version", "use Control or Treatment", spec.type)
    control = spec.type == VersionType.CONTROL
    if spec.type is not None and spec.is_control_version_type not in (None, control):
        rule = f"contradicts @is_control_version_type {str(spec.is_control_version_type).lower()}"
        yield Finding(("type",), rule, "give one of them", spec.type)


def version_rules(count: int, reads: Sequence[Read[VersionSpec]]) -> Iterator[Finding]:
    """The rules between the versions of an endpoint."""
    at = ("versions",)
    if count == 0:
        yield Finding(at, "is empty", "declare one to six versions; to end an endpoint, remove it", [])
    if count > MAX_VERSIONS:
        yield Finding(at, f"{count} versions; an endpoint has at most {MAX_VERSIONS}", "remove some")
    names = [got.spec.version_name for got in reads if got.spec.version_name is not None]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Finding(at, f"{names.count(name)} versions are named {name!r}", "give each its own name")
    defaults = [got.spec.version_name for got in reads if got.spec.is_default]
    if len(defaults) > 1:
        rule = f"{len(defaults)} versions are the default ({_listed(defaults)}); one gets what no version has"
        yield Finding(at, rule, "set @is_default on one of them")
    if reads and not defaults and all(got.spec.is_default is False for got in reads):
        yield Finding(at, "no version is the default", "set @is_default on one, or leave it out: the first is")
    controls = [got.spec.version_name for got in reads if _type(got.spec) is VersionType.CONTROL]
    if len(controls) > 1:
        rule = f"{len(controls)} versions are the control ({_listed(controls)}); an experiment has one"
        yield Finding(at, rule, "make the others Treatment")
    shares = [(got.spec.version_name, got.spec.traffic_percentile) for got in reads]
    total = sum(hundredths(share) for _, share in shares if _valid(share))
    if total > HUNDREDTHS:
        parts = " + ".join(f"{name} {share:g}" for name, share in shares if _valid(share))
        rule = f"the traffic percentiles sum to {total / 100:g} ({parts}); at most 100"
        yield Finding(at, rule, "lower some @traffic_percentile; what no version has goes to the default")
    queues = [got.spec.max_queued_requests for got in reads if got.whole("max_queued_requests")]
    if sum(queues) > MOST_QUEUED and max(queues) <= MOST_QUEUED:
        rule = (
            f"the versions may have {sum(queues):,} waiting requests; one router holds {MOST_QUEUED:,} of all together"
        )
        yield Finding(at, rule, "lower some @max_queued_requests: beyond it 429", severity=Severity.WARNING)


def _default(reads: Sequence[Read[VersionSpec]]) -> int:
    """Azure ML's rule: the first version, unless another is marked."""
    return next((index for index, got in enumerate(reads) if got.spec.is_default), 0)


def _type(spec: VersionSpec) -> VersionType | None:
    if spec.type in (VersionType.CONTROL, VersionType.TREATMENT):
        return VersionType(spec.type)
    return VersionType.CONTROL if spec.is_control_version_type else None


def _valid(share: float) -> bool:
    try:
        hundredths(share)
    except ValueError:
        return False
    return True


def _listed(names: Sequence[str | None]) -> str:
    return ", ".join(name or "?" for name in names)
