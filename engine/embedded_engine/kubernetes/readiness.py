"""Whether a live object is what was asked for: pure, so that each kind's rule is a table.

After the official plugin's documented behaviour; the annotation `pulumi.com/waitFor` names a condition of any object.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from embedded_engine.kubernetes.errors import KubernetesError
from embedded_engine.kubernetes.objects import WAIT_FOR, annotation

Object = Mapping[str, Any]


class Stage(Enum):
    """How far it is."""

    READY = auto()
    WAITING = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Look:
    """What one look at an object says."""

    stage: Stage
    message: str = ""


READY = Look(Stage.READY)
# Reasons of a condition that no waiting mends.
_FINAL = frozenset(("Failed", "NameInUse", "ProgressDeadlineExceeded"))
# Waiting reasons of a container that people must see.
_TROUBLE = frozenset(
    ("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError")
)


def look(live: Object) -> Look:
    """Raises KubernetesError for a wait that cannot be read."""
    asked = annotation(live, WAIT_FOR)
    if asked:
        waits = [_wait(live, one) for one in _waits(asked)]
        # One of several is enough, as with the official plugin.
        return min(waits, key=lambda one: one.stage is not Stage.READY)
    rule = _RULES.get(str(live.get("kind")))
    return rule(live) if rule else READY


def _waits(text: str) -> Sequence[str]:
    if not text.startswith("["):
        return [text]
    try:
        return [str(one) for one in json.loads(text)]
    except ValueError as error:
        raise KubernetesError(f"{WAIT_FOR}: {text!r} is no JSON list") from error


def _wait(live: Object, asked: str) -> Look:
    kind, _, rest = asked.partition("=")
    name, _, wanted = rest.partition("=")
    if kind == "condition" and name:
        return _condition(live, name, wanted or "True")
    if kind == "jsonpath" and name:
        value: Any = live
        for part in name.strip("{}").lstrip(".").split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        met = value is not None and (not wanted or str(value) == wanted)
        return READY if met else Look(Stage.WAITING, f"{name} is {value!r}")
    raise KubernetesError(f"{WAIT_FOR}: {asked!r}: use condition=<type>[=<status>] or jsonpath={{.path}}[=<value>]")


def _status(live: Object) -> Object:
    return live.get("status") or {}


def _condition(live: Object, kind: str, wanted: str = "True") -> Look:
    generation = live["metadata"].get("generation", 0)
    for one in _status(live).get("conditions") or ():
        if one.get("type") != kind:
            continue
        if one.get("observedGeneration", generation) < generation:
            return Look(Stage.WAITING, f"{kind} is not known for this change yet")
        if str(one.get("status")).lower() == wanted.lower():
            return READY
        text = ": ".join(str(one[key]) for key in ("reason", "message") if one.get(key))
        return Look(Stage.FAILED if one.get("reason") in _FINAL else Stage.WAITING, text or f"{kind} is not {wanted}")
    return Look(Stage.WAITING, f"{kind} is not known yet")


def _observed(live: Object) -> bool:
    return bool(_status(live).get("observedGeneration", 0) >= live["metadata"].get("generation", 0))


def _deployment(live: Object) -> Look:
    status = _status(live)
    if not _observed(live):
        return Look(Stage.WAITING, "the change is not seen yet")
    progress = _condition(live, "Progressing")
    if progress.stage is Stage.FAILED:
        return progress
    wanted = live["spec"].get("replicas", 1)
    updated, available, every = (status.get(key) or 0 for key in ("updatedReplicas", "availableReplicas", "replicas"))
    if updated < wanted:
        return Look(Stage.WAITING, f"{updated} of {wanted} replicas are of the new version")
    if every > updated:
        return Look(Stage.WAITING, f"{every - updated} old replicas are still there")
    if available < updated:
        return Look(Stage.WAITING, f"{available} of {updated} replicas are available")
    return READY


def _stateful_set(live: Object) -> Look:
    status, wanted = _status(live), live["spec"].get("replicas", 1)
    ready, updated = status.get("readyReplicas") or 0, status.get("updatedReplicas") or 0
    if _observed(live) and min(ready, updated) >= wanted:
        return READY
    return Look(Stage.WAITING, f"{min(ready, updated)} of {wanted} replicas are ready")


def _daemon_set(live: Object) -> Look:
    status = _status(live)
    wanted = status.get("desiredNumberScheduled") or 0
    there = min(status.get("updatedNumberScheduled") or 0, status.get("numberAvailable") or 0)
    return READY if _observed(live) and there >= wanted else Look(Stage.WAITING, f"{there} of {wanted} pods are ready")


def _pod(live: Object) -> Look:
    if _status(live).get("phase") == "Succeeded":
        return READY
    found = _condition(live, "Ready")
    if found.stage is Stage.READY:
        return found
    return Look(Stage.WAITING, pod_trouble([live]) or found.message)


def _job(live: Object) -> Look:
    if _condition(live, "Complete").stage is Stage.READY:
        return READY
    failed = next((c for c in _status(live).get("conditions") or () if c["type"] == "Failed"), None)
    if failed and failed.get("status") == "True":
        return Look(Stage.FAILED, f"{failed.get('reason')}: {failed.get('message')}")
    return Look(Stage.WAITING, f"{_status(live).get('active') or 0} pods run")


def _service(live: Object) -> Look:
    if live["spec"].get("type") != "LoadBalancer" or (_status(live).get("loadBalancer") or {}).get("ingress"):
        return READY
    return Look(Stage.WAITING, "the load balancer has no address yet")


def _namespace(live: Object) -> Look:
    phase = _status(live).get("phase")
    return READY if phase == "Active" else Look(Stage.WAITING, f"the namespace is {phase}")


_RULES: Mapping[str, Callable[[Object], Look]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Pod": _pod,
    "Job": _job,
    "Service": _service,
    "Namespace": _namespace,
    "CustomResourceDefinition": lambda live: _condition(live, "Established"),
}


def pod_trouble(pods: Sequence[Object]) -> str:
    """What keeps pods from being ready, one line a pod; empty when nothing is known."""
    lines = []
    for pod in pods:
        status = _status(pod)
        found = [
            f"{entry['name']}: {state.get('reason')}: {state.get('message') or ''}".rstrip(": ")
            for entry in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
            if (state := (entry.get("state") or {}).get("waiting") or {}).get("reason") in _TROUBLE
        ]
        found += [
            str(c.get("message") or c.get("reason"))
            for c in status.get("conditions") or ()
            if c.get("type") == "PodScheduled" and c.get("status") == "False"
        ]
        lines += [f"pod {pod['metadata']['name']}: {text}" for text in found]
    return "\n".join(lines)
