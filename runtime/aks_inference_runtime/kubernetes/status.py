"""What is written to a ScoringEndpoint's status. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aks_inference_runtime.api.addresses import endpoint_addresses
from aks_inference_runtime.api.endpoint import EndpointVersion
from aks_inference_runtime.api.kubernetes import FAILED_REASON, READY_CONDITION, version_label
from aks_inference_runtime.api.status import LONGEST_MESSAGE, ServiceState, VersionStatus
from aks_inference_runtime.api.traffic import declared_traffic
from aks_inference_runtime.autoscaler.policy import Load, utilization
from aks_inference_runtime.kubernetes.client import Object
from aks_inference_runtime.kubernetes.objects import Declared, Refused, declared
from aks_inference_runtime.kubernetes.workloads import ReplicaPod, VersionId, Workload
from aks_inference_runtime.local.states import endpoint_state, version_state
from aks_inference_runtime.router.model import VersionKey, VersionLoad

HEARD_S = 2.0
"""So long after a change of an endpoint what was heard of its pods may be of before the change."""
NAME_IN_USE = "NameInUse"
_NEEDED = ("status", "observedGeneration", "lastTransitionTime")
"""Of the condition as it was."""
HELD = "no figures: held"
"""Before the last scaling of a version whose figures are lost."""
CHANGE = " → "
"""Between the numbers of replicas, before and after."""
FIGURES = frozenset({"busy", "queued", "utilization", "lastScaling"})
"""Of a version: what goes up and down with the requests."""


@dataclass(frozen=True)
class Facts:
    """All that is known of an endpoint."""

    endpoint: Declared
    name_in_use: bool
    """An older endpoint of another namespace has the name."""
    workloads: Mapping[VersionId, Workload]
    pods: Mapping[VersionId, Sequence[ReplicaPod]]
    newest: Mapping[VersionId, Sequence[ReplicaPod]]
    """Those of them that are made as is declared now."""
    loads: Mapping[VersionKey, VersionLoad]
    scaling: Mapping[VersionKey, str]
    """The last decision and its reason."""
    served_generation: int | None
    """By all routers; None: nobody knows now."""
    log_tails: Mapping[VersionId, str]
    url: str
    now: str
    """RFC 3339."""
    creating: Mapping[VersionId, str] = field(default_factory=dict)
    """Why containers of a version are not made (`creating`)."""
    unserved: str = ""
    """Why a router does not serve it as it is declared."""
    waits: str = ""
    """What all endpoints wait for, and are served otherwise meanwhile."""
    known_s: float = math.inf
    """For how long this generation is known."""


def status_of(facts: Facts) -> dict[str, Any]:
    """The status, as it goes over the wire."""
    endpoint = facts.endpoint
    traffic = declared_traffic(endpoint.spec)
    versions = [_version(facts, version, traffic[version.name] / 100) for version in endpoint.spec.versions]
    state = endpoint_state([version.state for version in versions])
    enough = all(v.replicas_ready >= least(d) for v, d in zip(versions, endpoint.spec.versions, strict=True))
    served = _served(facts) >= endpoint.generation
    ready = served and enough and state is ServiceState.HEALTHY and not facts.name_in_use
    message = next((f"{v.name}: {v.message}" for v in versions if v.message and v.state is state), "")
    reason = "Served" if ready else state.value
    if facts.name_in_use:
        # Nothing of it is served, whatever its pods do.
        state, reason = ServiceState.FAILED, NAME_IN_USE
        message = "an older endpoint of another namespace has this name; URLs have no namespace"
    elif state is ServiceState.FAILED:
        reason = FAILED_REASON
    elif not ready and state is ServiceState.HEALTHY:
        state, reason = ServiceState.TRANSITIONING, ServiceState.TRANSITIONING.value
        message = facts.unserved or message or "the routers do not serve this generation yet"
    message = cut(message or facts.waits)
    scoring_uri, swagger_uri = endpoint_addresses(facts.url, endpoint.name, endpoint.spec.protocol)
    if facts.name_in_use:
        # Those of its name lead to the other one.
        scoring_uri = swagger_uri = ""
    return {
        "state": state.value,
        "observedGeneration": endpoint.generation,
        "servedGeneration": endpoint.generation if ready else served_before(endpoint.status or {}),
        "scoringUri": scoring_uri,
        "swaggerUri": swagger_uri,
        "message": message,
        "replicas": f"{sum(v.replicas_ready for v in versions)}/{sum(v.replicas_desired for v in versions)}",
        "traffic": ", ".join(f"{v.name} {v.traffic:g}" for v in versions),
        "versions": [_told(facts, version) for version in versions],
        "conditions": [_condition(endpoint, facts.now, ready=ready, reason=reason, message=message)],
    }


def unusable(endpoint: Declared | Refused, why: str, now: str) -> dict[str, Any]:
    """The status of one that cannot be served as it is declared. `now`: RFC 3339."""
    message = cut(f"it cannot be served as it is declared: {why}")
    return {
        "state": ServiceState.FAILED.value,
        "observedGeneration": endpoint.generation,
        "servedGeneration": served_before(endpoint.status or {}),
        "scoringUri": "",
        "swaggerUri": "",
        "message": message,
        "versions": [],
        "conditions": [_condition(endpoint, now, ready=False, reason=FAILED_REASON, message=message)],
    }


def declared_with_status(
    found: Object, before: Declared | None = None, refused: Callable[[Refused], None] | None = None
) -> Declared | None:
    """A ScoringEndpoint with what the next status needs of the last one: figures that were written change nothing.

    Args:
        found: Required. The object.
        before, refused: Optional. As `objects.declared` has them.
    """
    endpoint = declared(found, before, refused)
    if endpoint is None:
        return None
    status = found.get("status") or {}
    ready = ready_condition(status)
    needed = {
        "state": status.get("state"),
        "servedGeneration": served_before(status),
        "conditions": [{name: ready.get(name) for name in _NEEDED} | {"type": READY_CONDITION}] if ready else [],
    }
    return endpoint if endpoint.status == needed else replace(endpoint, status=needed)


def served_before(status: Mapping[str, Any]) -> int:
    """The newest generation that was served whole, by what was written last; 0: none."""
    return max(_served_now(status), int(status.get("servedGeneration") or 0))


def _served_now(status: Mapping[str, Any]) -> int:
    ready = ready_condition(status)
    return int(ready.get("observedGeneration") or 0) if ready.get("status") == "True" else 0


def ready_condition(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a status; empty where it has none."""
    return next((c for c in status.get("conditions") or () if c.get("type") == READY_CONDITION), {})


def _served(facts: Facts) -> int:
    """An autoscaler that has just begun has heard nobody yet: what was written before stands."""
    return _served_now(facts.endpoint.status or {}) if facts.served_generation is None else facts.served_generation


def cut(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def without_figures(status: Mapping[str, Any]) -> dict[str, Any]:
    """A status without what changes with each request."""
    versions = [{name: told for name, told in version.items() if name not in FIGURES} for version in status["versions"]]
    return {**status, "versions": versions}


def least(version: EndpointVersion) -> int:
    """Replicas without which a version is not served."""
    scaling = version.scaling
    return scaling.autoscale_min_replicas if scaling.autoscale_enabled else scaling.num_replicas or 1


def _version(facts: Facts, version: EndpointVersion, traffic: float) -> VersionStatus:
    key = VersionKey(facts.endpoint.name, version.name)
    place = (facts.endpoint.namespace, facts.endpoint.name, version_label(version.name))
    workload, pods = facts.workloads.get(place), facts.pods.get(place, ())
    load = facts.loads.get(key) or VersionLoad()
    ready = sum(pod.ready for pod in pods)
    wanted = workload.replicas if workload is not None else least(version)
    # What a former template's pods suffer from is no word on the change that replaces them.
    mine = facts.newest.get(place, ())
    trouble = next((pod.trouble for pod in mine if pod.trouble), "") or facts.creating.get(place, "")
    trouble = trouble or (workload.refused if workload else "")
    unschedulable = next((pod.unschedulable for pod in mine if pod.unschedulable), "")
    # What is known of the pods may be of before a change of theirs alone.
    seen = facts.known_s >= HEARD_S or (workload is not None and workload.pod_template == version.pod_template)
    rolled_out = (
        workload is not None
        and seen
        and workload.current
        and workload.updated == workload.total
        and workload.updated >= min(wanted, least(version))
    )
    proven = workload is not None and workload.proven
    # A change that cannot succeed has failed also while what was there before serves on.
    hopeless = any(pod.given_up for pod in mine) or (workload is not None and workload.forbidden)
    given_up = hopeless and (ready == 0 or not rolled_out)
    # What waits for a node is not late by its own fault, and starts once there is room.
    overdue = ready == 0 and workload is not None and workload.overdue and not unschedulable
    # A Deployment whose change is not seen yet says what was before.
    heard = facts.known_s >= HEARD_S and (workload is None or workload.current)
    failed = heard and (given_up or overdue)
    state = version_state(
        failed=failed,
        unschedulable=bool(unschedulable),
        ready=ready,
        wanted=wanted,
        # That all of no replicas are ready says nothing of a version that never had one.
        settled=rolled_out and ready >= min(wanted, least(version)) and (ready > 0 or proven),
        troubled=bool(trouble),
    )
    message = ""
    longest = LONGEST_MESSAGE - len(f"{version.name}: ")
    if state is ServiceState.FAILED:
        tail = facts.log_tails.get(place, "")
        said = cut(trouble or unschedulable or "not ready in time", longest - len(tail) - 1)
        message = "\n".join(filter(None, (said, tail)))
    elif state is not ServiceState.HEALTHY:
        message = trouble or unschedulable or ("" if workload is not None else "there is no Deployment yet")
    elif ready < wanted:
        # It serves, with fewer than it needs: without a word nobody would know why.
        message = trouble or unschedulable
    slots = version.requests.replica_max_concurrent_requests
    return VersionStatus(
        name=version.name,
        state=state,
        traffic=traffic,
        replicas_desired=wanted,
        replicas_ready=ready,
        busy=load.busy,
        queued=load.queued,
        utilization=round(utilization(Load(load.busy, load.queued), ready, slots), 1),
        last_scaling=facts.scaling.get(key, ""),
        message=cut(message, longest),
    )


def _told(facts: Facts, version: VersionStatus) -> dict[str, Any]:
    """A version as it is written: figures that are not known are left out, for they are not zero."""
    told = version.model_dump(mode="json", by_alias=True, exclude={"replicas"})
    if VersionKey(facts.endpoint.name, version.name) in facts.loads:
        return told
    scaling = next(v.scaling for v in facts.endpoint.spec.versions if v.name == version.name)
    held = HELD if scaling.autoscale_enabled else ""
    known = {name: said for name, said in told.items() if name not in FIGURES}
    return {**known, "lastScaling": "; ".join(filter(None, (held, version.last_scaling)))}


def last_change(version: Mapping[str, Any]) -> str:
    """What the status of a version says of the last change of its number; empty where it says of none."""
    said = str(version.get("lastScaling") or "").removeprefix(f"{HELD}; ")
    return said if CHANGE in said else ""


def _condition(endpoint: Declared | Refused, now: str, *, ready: bool, reason: str, message: str) -> dict[str, Any]:
    word = "True" if ready else "False"
    before = ready_condition(endpoint.status or {})
    return {
        "type": READY_CONDITION,
        "status": word,
        "reason": reason,
        "message": message,
        "observedGeneration": endpoint.generation,
        "lastTransitionTime": before.get("lastTransitionTime", now) if before.get("status") == word else now,
    }
