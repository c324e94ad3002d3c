"""Deployments and pods of versions, nodes' pods, autoscalers of others: what the autoscaler keeps of them. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern

from aks_inference_runtime.api.kubernetes import ENDPOINT_LABEL, POD_TEMPLATE_ANNOTATION, VERSION_LABEL
from aks_inference_runtime.api.replica import CACHE_VOLUME
from aks_inference_runtime.kubernetes.client import Object
from aks_inference_runtime.kubernetes.room import Amounts, PodNeed, bears_spot, need_of, requests_of, turned_away

GIVEN_UP_RESTARTS = 3
"""A version that was never ready and whose container ended so often has failed."""
SOON_S = 600.0
"""A container that ran so long did work; the kubelet too then forgets how often it ended."""
_MAY_PASS = ("CrashLoopBackOff", "CreateContainerError", "RunContainerError", "ImageInspectError")
"""Waits that may end by themselves: of a container that ended, or of a node that has too much to do."""
_BAD_WAITS = frozenset(
    {
        *_MAY_PASS,
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
    }
)

_DEADLINE_S = 600.0
"""Kubernetes' own for a Deployment that says none."""
_DONE = "NewReplicaSetAvailable"
"""A Deployment is progressing no more: all replicas of its newest template were available at once. It stays so while
they come and go, until the next template."""
_REVISION = "deployment.kubernetes.io/revision"
_TEMPLATE = "pod-template-hash"

VersionId = tuple[str, str, str]
"""Namespace, endpoint, label of the version."""
Scaled = Mapping[tuple[str, str], str]
"""Namespace and name of a Deployment → the HPA that scales it."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A version's Deployment."""

    namespace: str
    name: str
    version: VersionId
    replicas: int
    """As wanted now."""
    ready: int
    updated: int
    total: int
    """Pods there are, those of an earlier template included."""
    current: bool
    """Its status is that of its newest specification."""
    overdue: bool
    """It did not get ready within its progress deadline."""
    need: Amounts
    """Of one replica."""
    revision: str = ""
    """Of its newest template; empty: not told."""
    refused: str = ""
    """Why the API server takes no pod of it: a quota, a policy."""
    spot: bool = False
    """Whether its pods may run on spot nodes."""
    selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes that its pods may run on."""
    pod_template: str | None = None
    """Digest of what its pods are made from, by who declared it."""
    proven: bool = True
    """Whether replicas of its newest template were ready once; of one that was changed while it had none nobody
    knows."""
    deadline_s: float = _DEADLINE_S
    """So long a start may take."""

    @property
    def started(self) -> bool:
        """Whether one of its newest template is ready, and none of another is there."""
        return self.current and self.updated == self.total and self.ready > 0

    @property
    def forbidden(self) -> bool:
        """Whether that is no matter of time: what a namespace allows stays as it is, a quota comes free."""
        return "violates PodSecurity" in self.refused or "denied the request" in self.refused


@dataclass(frozen=True, slots=True)
class ReplicaPod:
    """A replica's pod; `need` also of every other pod."""

    namespace: str
    name: str
    need: PodNeed
    version: VersionId | None = None
    """None: not a replica."""
    ready: bool = False
    unschedulable: str = ""
    """The scheduler's reason."""
    trouble: str = ""
    """Why a container does not run."""
    restarts: int = 0
    template: str = ""
    """The hash of the template that it was made from."""
    troubled: str = "scoring"
    """The container that does not run; whose log tells why."""
    creating: bool = False
    """Its node's kubelet has it, and none of its containers was ever made."""

    @property
    def given_up(self) -> bool:
        """Whether it will not get ready by itself."""
        return bool(self.trouble) and (self.restarts >= GIVEN_UP_RESTARTS or not self.trouble.startswith(_MAY_PASS))


@dataclass(frozen=True, slots=True)
class Template:
    """A ReplicaSet: one template that a version's Deployment has or had."""

    version: VersionId
    revision: str
    template: str
    """Its hash."""


@dataclass(frozen=True, slots=True)
class OtherScaler:
    """A HorizontalPodAutoscaler."""

    namespace: str
    name: str
    deployment: str


def workload(found: Object) -> Workload | None:
    """A Deployment of a version; others are left out."""
    metadata, spec, status = found["metadata"], found["spec"], found.get("status") or {}
    version = _version(metadata)
    if version is None:
        return None
    conditions = status.get("conditions") or ()
    updated, total = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
    current = int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0)
    progress = next((c.get("reason") for c in conditions if c.get("type") == "Progressing"), _DONE)
    return Workload(
        namespace=metadata["namespace"],
        name=metadata["name"],
        version=version,
        replicas=int(spec.get("replicas", 1)),
        ready=int(status.get("readyReplicas") or 0),
        updated=updated,
        total=total,
        current=current,
        overdue=any(c.get("reason") == "ProgressDeadlineExceeded" for c in conditions),
        need=requests_of(spec["template"]["spec"]),
        revision=(metadata.get("annotations") or {}).get(_REVISION, ""),
        refused=next((_words(c) for c in conditions if _refused(c)), ""),
        spot=bears_spot(spec["template"]["spec"]),
        selector=spec["template"]["spec"].get("nodeSelector") or {},
        pod_template=(metadata.get("annotations") or {}).get(POD_TEMPLATE_ANNOTATION),
        proven=progress == _DONE and current and updated == total,
        deadline_s=float(spec.get("progressDeadlineSeconds") or _DEADLINE_S),
    )


def _refused(condition: Object) -> bool:
    return condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"


def _words(condition: Object) -> str:
    said = str(condition.get("message", ""))
    mend = '; give the runtime model_cache "": each pod then fetches its own models' if CACHE_VOLUME in said else ""
    return said + mend


def replica_pod(found: Object) -> ReplicaPod | None:
    """A pod that takes room. One that is none of ours and fits nowhere takes none: it may wait for ever."""
    metadata, status = found["metadata"], found.get("status") or {}
    need = need_of(found)
    if need is None:
        return None
    version = _version(metadata)
    if version is None:
        return None if turned_away(found) else ReplicaPod(metadata["namespace"], metadata["name"], need)
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    containers = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    waits = [((c.get("state") or {}).get("waiting") or _again(c)) for c in containers]
    bad, ended = next(
        ((w, _ended(c)) for c, w in zip(containers, waits, strict=True) if w.get("reason") in _BAD_WAITS), (None, "")
    )
    return ReplicaPod(
        metadata["namespace"],
        metadata["name"],
        need,
        version,
        ready=conditions.get("Ready", {}).get("status") == "True" and not metadata.get("deletionTimestamp"),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
        trouble=f"{bad['reason']}: {bad.get('message', '')}{ended}".rstrip(": ") if bad else "",
        template=(metadata.get("labels") or {}).get(_TEMPLATE, ""),
        restarts=sum(int(c.get("restartCount") or 0) for c in containers),
        troubled=next((c["name"] for c, w in zip(containers, waits, strict=True) if w is bad and bad), "scoring"),
        creating=_is_created(metadata, status, containers) and bad is None,
    )


def template(found: Object) -> Template | None:
    """A ReplicaSet of a version."""
    metadata = found["metadata"]
    version = _version(metadata)
    if version is None:
        return None
    revision = (metadata.get("annotations") or {}).get(_REVISION, "")
    return Template(version, revision, metadata["labels"].get(_TEMPLATE, ""))


def made_as_declared(
    work: Workload | None, templates: Sequence[Template], pods: Sequence[ReplicaPod]
) -> Sequence[ReplicaPod]:
    """The pods of the Deployment's newest template; where nobody tells which that is, all."""
    newest = next((one.template for one in templates if work and one.revision and one.revision == work.revision), None)
    return pods if newest is None else [pod for pod in pods if pod.template == newest]


def _is_created(metadata: Object, status: Object, containers: Iterable[Object]) -> bool:
    if status.get("phase") != "Pending" or not status.get("startTime") or metadata.get("deletionTimestamp"):
        return False
    states = [state for c in containers for state in (c.get("state"), c.get("lastState")) if state]
    return not any(name in state for state in states for name in ("running", "terminated"))


def _again(container: Object) -> Mapping[str, str]:
    """What is to be said of a container that ended soon again and again, and was just started once more."""
    ended, restarts = (container.get("lastState") or {}).get("terminated"), int(container.get("restartCount") or 0)
    if not ended or container.get("ready") or restarts < GIVEN_UP_RESTARTS or _lasted(ended) >= SOON_S:
        return {}
    return {"reason": "CrashLoopBackOff", "message": f"ended {restarts} times"}


def _ended(container: Object) -> str:
    """How its last run ended; no log tells that one used too much memory."""
    last = (container.get("lastState") or {}).get("terminated")
    return f"; its last run: {last.get('reason', 'ended')}, exit code {last.get('exitCode')}" if last else ""


def _lasted(ended: Object) -> float:
    try:
        started, finished = (datetime.fromisoformat(ended[at]) for at in ("startedAt", "finishedAt"))
    except (KeyError, TypeError, ValueError):
        return math.inf
    return (finished - started).total_seconds()


def other_scaler(found: Object) -> OtherScaler | None:
    """An HPA of a Deployment."""
    metadata, target = found["metadata"], found["spec"].get("scaleTargetRef") or {}
    if target.get("kind") != "Deployment":
        return None
    return OtherScaler(metadata["namespace"], metadata["name"], target["name"])


def fought_over(scalers: Mapping[str, OtherScaler]) -> Scaled:
    """The HPAs' Deployments."""
    return {(s.namespace, s.deployment): s.name for s in scalers.values()}


def _version(metadata: Object) -> VersionId | None:
    labels = metadata.get("labels") or {}
    if ENDPOINT_LABEL not in labels or VERSION_LABEL not in labels:
        return None
    # Each of ten thousand pods has words of its own for the same.
    return intern(metadata["namespace"]), intern(labels[ENDPOINT_LABEL]), intern(labels[VERSION_LABEL])
