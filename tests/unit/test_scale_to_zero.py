"""The last replica of a version that may have none: it stays until it was ready, and until then nothing is well."""

from dataclasses import replace
from typing import Any

import pytest

from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.kubernetes import RuntimeSettings
from aks_inference_runtime.autoscaler.controller import SAMPLE_S, Autoscaler
from aks_inference_runtime.kubernetes.objects import Declared
from aks_inference_runtime.kubernetes.room import PodNeed
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.status import Facts, status_of
from aks_inference_runtime.kubernetes.workloads import ReplicaPod, Workload, workload
from aks_inference_runtime.router.model import VersionKey, VersionLoad

PLACE = ("ns", "svc", "blue")
KEY = VersionKey("svc", "blue")
CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
DELAY_S, DEADLINE_S = 3, 20.0
SCALING = {"autoscaleMinReplicas": 0, "autoscaleScaleDownDelaySeconds": DELAY_S}
SPEC = EndpointSpec.model_validate(
    {"versions": [{"name": "blue", "isDefault": True, "code": CODE, "scaling": SCALING}]}
)
STARTS = Workload(
    "ns", "svc-blue", PLACE, 1, 0, 1, 1, current=True, overdue=False, need={}, proven=False, deadline_s=DEADLINE_S
)
READY = replace(STARTS, ready=1, proven=True)
WOKEN = replace(STARTS, proven=True)
GONE = replace(READY, replicas=0, ready=0, updated=0, total=0)


class Cluster:
    """A version, and what would be written of it."""

    def __init__(self, work: Workload) -> None:
        self.now = 100.0
        self.busy = 0
        self.scaler = ClusterScaler(RuntimeSettings(), lambda: True, lambda: self.now)
        for informer in self.scaler._informers():
            informer._listed.set()
        self.scaler.endpoints._items["svc"] = Declared("ns", "svc", "uid", 1, "2026-01-01", SPEC)
        self.become(work)
        self.scaler.reports.load = lambda: {KEY: VersionLoad(self.busy, 0)}  # type: ignore[method-assign]
        self.autoscaler = self.another()

    def another(self) -> Autoscaler:
        return Autoscaler(self.scaler.reports, self.scaler, lambda: self.now)

    def become(self, work: Workload) -> None:
        self.work = work
        self.scaler.workloads._items["svc"] = work
        self.scaler.workloads._tell()

    def run(self, seconds: float) -> int:
        """How many are wanted then."""
        for _ in range(round(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            self.autoscaler.step()
            if KEY in self.scaler._pending:
                self.become(replace(self.work, replicas=self.scaler._pending[KEY][0]))
        return self.work.replicas


def test_a_new_version_keeps_its_last_replica_until_that_was_ready() -> None:
    cluster = Cluster(STARTS)
    assert cluster.run(2 * DEADLINE_S) == 1, "one that never starts must not vanish: it would look well"
    assert "stays until it was ready" in cluster.scaler._last_scaling[KEY]
    cluster.become(READY)
    assert cluster.run(2) == 0


def test_one_that_has_more_keeps_one() -> None:
    cluster = Cluster(replace(STARTS, replicas=4, updated=4, total=4))
    assert cluster.run(2 * DEADLINE_S) == 1


def test_what_was_woken_has_the_time_to_start() -> None:
    """Longer than the scale-down delay: without it each request would begin the same start again."""
    cluster = Cluster(GONE)
    cluster.busy = 1
    assert cluster.run(1) >= 1
    cluster.become(WOKEN)
    cluster.busy = 0
    assert cluster.run(DEADLINE_S - 2) == 1
    assert cluster.run(4) == 0, "it has not started within its deadline, and nobody asks for it"


def test_one_that_was_ready_and_is_not_now_may_go() -> None:
    cluster = Cluster(READY)
    cluster.run(1)
    cluster.become(replace(READY, ready=0))
    assert cluster.run(DELAY_S + 1) == 0


def test_another_leader_gives_the_same_time_anew() -> None:
    cluster = Cluster(WOKEN)
    cluster.run(DEADLINE_S - 1)
    cluster.autoscaler = cluster.another()
    assert cluster.run(DEADLINE_S - 1) == 1
    assert cluster.run(2) == 0


def test_a_change_of_one_that_serves_is_proven_anew() -> None:
    """The replica of before is ready; the one that is to follow it is not."""
    cluster = Cluster(READY)
    cluster.run(1)
    cluster.become(replace(READY, total=2, proven=False))
    assert cluster.run(2 * DEADLINE_S) == 1


def state_of(work: Workload, *pods: ReplicaPod) -> tuple[str, str]:
    status = status_of(
        Facts(
            endpoint=Declared("ns", "svc", "uid", 1, "2026-01-01T00:00:00Z", SPEC),
            name_in_use=False,
            workloads={PLACE: work},
            pods={PLACE: pods},
            newest={PLACE: pods},
            loads={},
            scaling={},
            served_generation=1,
            log_tails={},
            url="http://router",
            now="2026-01-01T00:00:00Z",
        )
    )
    return status["state"], status["conditions"][0]["status"]


POD = ReplicaPod("ns", "p", PodNeed("n", {}), version=PLACE)


@pytest.mark.parametrize(
    ("work", "pods", "expected"),
    [
        (STARTS, [POD], ("Transitioning", "False")),
        (replace(STARTS, overdue=True), [POD], ("Failed", "False")),
        (READY, [replace(POD, ready=True)], ("Healthy", "True")),
        (GONE, [], ("Healthy", "True")),
        # As somebody else scaled it.
        (replace(GONE, proven=False), [], ("Transitioning", "False")),
    ],
    ids=["starts", "too late", "ready", "gone", "gone before it was ready"],
)
def test_without_replicas_only_what_was_ready_once_is_well(
    work: Workload, pods: list[ReplicaPod], expected: tuple[str, str]
) -> None:
    assert state_of(work, *pods) == expected


@pytest.mark.parametrize(
    ("reason", "status", "proven"),
    [
        ("NewReplicaSetAvailable", {}, True),
        ("NewReplicaSetCreated", {}, False),
        ("ReplicaSetUpdated", {}, False),
        ("ProgressDeadlineExceeded", {}, False),
        # The conditions are of the specification before.
        ("NewReplicaSetAvailable", {"observedGeneration": 1}, False),
        ("NewReplicaSetAvailable", {"replicas": 2}, False),
        # One without a deadline has no such condition.
        (None, {}, True),
    ],
)
def test_what_a_deployment_says_of_that(reason: str | None, status: dict[str, Any], *, proven: bool) -> None:
    conditions = [{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}]
    if reason is not None:
        conditions.append({"type": "Progressing", "status": "True", "reason": reason})
    labels = {"aks-inference.dev/endpoint": "svc", "aks-inference.dev/version": "blue"}
    told = {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "conditions": conditions, **status}
    metadata = {"namespace": "ns", "name": "svc-blue", "labels": labels, "generation": 2}
    spec = {"replicas": 1, "progressDeadlineSeconds": 900, "template": {"spec": {"containers": []}}}
    found = workload({"metadata": metadata, "spec": spec, "status": told})
    assert found is not None
    assert (found.proven, found.deadline_s) == (proven, 900.0)
