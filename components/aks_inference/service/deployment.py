"""deploymentconfig.json as Azure ML's CLI v1 read it, as the arguments that it stands for.

Where the old reader ignored unknown keys in silence and said "error parsing deploy config file" for everything else,
each problem is named here (reference: azureml-v1.md 5.2).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aks_inference.findings import NOTHING, Casing, Finding, Path, did_you_mean, placed, show_path, under
from aks_inference.service.code import absolute
from aks_inference.service.inference import read_json
from aks_inference.values import is_late

_AKS: dict[str, str] = {
    "autoScaler.autoscaleEnabled": "autoscale_enabled",
    "autoScaler.minReplicas": "autoscale_min_replicas",
    "autoScaler.maxReplicas": "autoscale_max_replicas",
    "autoScaler.refreshPeriodInSeconds": "autoscale_refresh_seconds",
    "autoScaler.targetUtilization": "autoscale_target_utilization",
    "dataCollection.storageEnabled": "collect_model_data",
    "authEnabled": "auth_enabled",
    "tokenAuthEnabled": "token_auth_enabled",
    "containerResourceRequirements.cpu": "cpu_cores",
    "containerResourceRequirements.cpuLimit": "cpu_cores_limit",
    "containerResourceRequirements.memoryInGB": "memory_gb",
    "containerResourceRequirements.memoryInGBLimit": "memory_gb_limit",
    "gpuCores": "gpu_cores",
    "appInsightsEnabled": "enable_app_insights",
    "scoringTimeoutMs": "scoring_timeout_ms",
    "maxConcurrentRequestsPerContainer": "replica_max_concurrent_requests",
    "maxQueueWaitMs": "max_request_wait_time",
    "numReplicas": "num_replicas",
    "keys.primaryKey": "primary_key",
    "keys.secondaryKey": "secondary_key",
    "livenessProbeRequirements.periodSeconds": "period_seconds",
    "livenessProbeRequirements.initialDelaySeconds": "initial_delay_seconds",
    "livenessProbeRequirements.timeoutSeconds": "timeout_seconds",
    "livenessProbeRequirements.successThreshold": "success_threshold",
    "livenessProbeRequirements.failureThreshold": "failure_threshold",
    "namespace": "namespace",
}
FILE = "deployment_config"
"""The argument."""
_TABLES: dict[str, dict[str, str]] = {
    "aks": _AKS | {"computeTargetName": "compute_target_name"},
    "aksendpoint": _AKS | {"versionName": "version_name", "trafficPercentile": "traffic_percentile"},
    "local": {"port": "port"},
}
ENDPOINT_KEYS = frozenset(
    {
        "auth_enabled",
        "token_auth_enabled",
        "enable_app_insights",
        "primary_key",
        "secondary_key",
        "namespace",
        "compute_target_name",
    }
)
"""Shared by all versions of an endpoint: a version's file that has them speaks for the endpoint."""


@dataclass(frozen=True)
class Deployment:
    """Arguments that a deployment configuration stands for, and where each of them stands."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    at: dict[str, Path] = field(default_factory=dict)
    """Of what versions say of their endpoint: the path of the version."""


def read_deployment(config: object, accepted: frozenset[str]) -> tuple[Deployment, list[Finding]]:
    """Reads a path or an object. `accepted`: the compute types that the component takes."""
    if config is None:
        return Deployment(), []
    at = (FILE,)
    if isinstance(config, str):
        raw, findings = read_json(absolute(config), config)
        if findings:
            return Deployment(), [Finding(at, f.rule, f.mend, f.value) for f in findings]
        name = config
    elif isinstance(config, Mapping):
        raw, name = dict(config), FILE
    else:
        rule = "must be known at preview" if is_late(config) else "must be an object or a path"
        return Deployment(), [Finding(at, rule, "give the path of a deploymentconfig.json", config)]
    kind, findings = _compute_type(raw, name, accepted)
    if kind is None:
        return Deployment(), findings
    table = _TABLES[kind]
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    known = {key.split(".")[0] for key in table}
    for key, value in raw.items():
        if key == "computeType" or value is None:
            continue
        if key not in known:
            findings.append(_unknown(name, key, kind, known))
        elif key in table:
            values[table[key]], places[table[key]] = value, f"{name}: {key}"
        else:
            findings += _group(name, key, kind, value, values, places)
    return Deployment(values, places), findings


def merge(explicit: Mapping[str, Any], deployment: Deployment) -> tuple[dict[str, Any], list[Finding]]:
    """The arguments and the file's together; what is given in both is named with both places."""
    findings = [
        Finding((name,), f"is also given in {'@' if place.startswith(FILE) else ''}{place}", "give it once")
        for name, place in deployment.places.items()
        if explicit.get(name) is not None
    ]
    return {**deployment.values, **{k: v for k, v in explicit.items() if v is not None}}, findings


def shared(
    explicit: Mapping[str, Any], deployments: Sequence[tuple[Path, Deployment]]
) -> tuple[Deployment, list[Finding]]:
    """What the files of an endpoint's versions say of the endpoint; where they, or its own arguments, say it twice.

    `explicit`: the endpoint's arguments. `deployments`: each with the path of its version.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    said_by: dict[str, Path] = {}
    findings = []
    for at, deployment in deployments:
        for name in sorted(ENDPOINT_KEYS & deployment.values.keys()):
            value, place = deployment.values[name], deployment.places[name]
            if explicit.get(name) is not None:
                rule = f"is also given in the @{FILE} of {show_path(at, Casing.SNAKE)}"
                findings.append(Finding((name,), rule, "give it once"))
            elif name not in values:
                values[name], places[name], said_by[name] = value, place, at
            elif values[name] != value:
                other = show_path(said_by[name], Casing.SNAKE)
                rule = f"is another value than that of {other}: an endpoint has one for all its versions"
                mend = f"give the same, or set @{name} on the endpoint alone"
                findings.append(Finding((*at, FILE), rule, mend, place=place))
    return Deployment(values, places, said_by), findings


def in_versions(files: Deployment, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings about an endpoint, whose settings its versions may have said."""
    for finding in findings:
        at = files.at.get(str(finding.path[0]), ()) if finding.path else ()
        yield from under(at, placed(files.places, FILE, [finding]))


def _compute_type(raw: Mapping[str, object], name: str, accepted: frozenset[str]) -> tuple[str | None, list[Finding]]:
    place = f"{name}: computeType"
    given = raw.get("computeType")
    allowed = " or ".join(sorted(accepted))
    if given is None:
        return None, [Finding((FILE,), "is required", f"add {allowed}", place=place)]
    kind = given.lower() if isinstance(given, str) else ""
    if kind == "aci":
        rule = "Azure Container Instances are not supported yet"
        return None, [Finding((FILE,), rule, f"use {allowed}", given, place=place)]
    if kind not in _TABLES:
        return None, [Finding((FILE,), "is not a compute type", f"use {allowed}", given, place=place)]
    if kind not in accepted:
        other = "a ControlledRolloutEndpoint" if kind == "aksendpoint" else "a ModelWebService"
        return None, [Finding((FILE,), f"belongs to {other}", f"use {allowed}", given, place=place)]
    return kind, []


def _group(
    name: str, key: str, kind: str, value: object, values: dict[str, Any], places: dict[str, str]
) -> Iterator[Finding]:
    table = _TABLES[kind]
    if not isinstance(value, Mapping):
        shown = NOTHING if key == "keys" else value
        yield Finding((FILE,), "must be an object", "mend the file", shown, place=f"{name}: {key}")
        return
    known = {path.split(".")[1] for path in table if path.startswith(f"{key}.")}
    for inner, item in value.items():
        if item is None:
            continue
        if inner not in known:
            yield _unknown(f"{name}: {key}", inner, kind, known)
            continue
        argument = table[f"{key}.{inner}"]
        values[argument], places[argument] = item, f"{name}: {key}.{inner}"


def _unknown(name: str, key: object, kind: str, known: set[str]) -> Finding:
    others = [other for other, table in _TABLES.items() if any(path.split(".")[0] == key for path in table)]
    rule = f"`{key}` is not a key of computeType {kind}"
    mend = f"it belongs to {' and '.join(others)}" if others else did_you_mean(str(key), known)
    return Finding((FILE,), rule, mend.replace("@", ""), place=name)
