"""A change that cannot succeed is told as failed, with its log, also while what was there before serves on."""

from typing import Any

import pytest

from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.kubernetes.objects import Declared
from aks_inference_runtime.kubernetes.room import PodNeed
from aks_inference_runtime.kubernetes.status import Facts, status_of
from aks_inference_runtime.kubernetes.workloads import GIVEN_UP_RESTARTS, ReplicaPod, Workload

VERSION = ("ns", "svc", "blue")
CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
SERVES = ReplicaPod("ns", "old", PodNeed("n", {}), version=VERSION, ready=True)
CRASHES = ReplicaPod(
    "ns", "new", PodNeed("n", {}), version=VERSION, trouble="CrashLoopBackOff: back-off", restarts=GIVEN_UP_RESTARTS
)


FORBIDDEN = 'pods "x" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes (volume "model-cache")'


def told(pods: list[ReplicaPod], **workload: Any) -> dict[str, Any]:
    spec = EndpointSpec.model_validate({"versions": [{"name": "blue", "isDefault": True, "code": CODE}]})
    usual = {"replicas": 1, "ready": 1, "updated": 1, "total": 1, "current": True, "overdue": False}
    work = Workload("ns", "svc-blue", VERSION, need={}, **{**usual, **workload})
    return status_of(
        Facts(
            endpoint=Declared("ns", "svc", "uid", 3, "2026-01-01T00:00:00Z", spec),
            name_in_use=False,
            workloads={VERSION: work},
            pods={VERSION: pods},
            loads={},
            scaling={},
            served_generation=3,
            log_tails={VERSION: "ImportError: no module named numpi"},
            url="http://router",
            now="2026-01-01T00:00:00Z",
        )
    )


@pytest.mark.parametrize(
    ("pods", "workload", "reason"),
    [
        ([SERVES, CRASHES], {"updated": 1, "total": 2}, "Failed"),
        ([CRASHES], {"ready": 0}, "Failed"),
        ([SERVES], {}, "Served"),
        ([SERVES], {"updated": 0}, "Transitioning"),
        ([], {"ready": 0, "updated": 0, "total": 0, "refused": FORBIDDEN}, "Failed"),
        ([SERVES], {"updated": 0, "refused": FORBIDDEN}, "Failed"),
        ([], {"ready": 0, "updated": 0, "total": 0, "refused": "exceeded quota: pods"}, "Transitioning"),
    ],
)
def test_what_the_condition_says(pods: list[ReplicaPod], workload: dict[str, Any], reason: str) -> None:
    (condition,) = told(pods, **workload)["conditions"]
    assert condition["reason"] == reason
    assert ("numpi" in condition["message"]) is (reason == "Failed")


@pytest.mark.parametrize(
    ("refused", "state"), [(FORBIDDEN, "Failed"), ('exceeded quota: "pods", requested: 1', "Transitioning")]
)
def test_pods_that_the_api_server_does_not_take_are_told_with_its_words(refused: str, state: str) -> None:
    found = told([], ready=0, updated=0, total=0, refused=refused)
    assert found["state"] == state
    assert refused in found["message"]
