"""A change that cannot succeed is told as failed, with its log, also while what was there before serves on."""

from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft4Validator

from aks_inference_runtime.api.crd import crd
from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.errors import AksInferenceError, NotFound
from aks_inference_runtime.api.kubernetes import RuntimeSettings
from aks_inference_runtime.api.status import LONGEST_MESSAGE
from aks_inference_runtime.cli.cluster import view_of
from aks_inference_runtime.cli.show import note
from aks_inference_runtime.kubernetes.objects import Declared
from aks_inference_runtime.kubernetes.room import PodNeed
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.status import HELD, Facts, status_of
from aks_inference_runtime.kubernetes.tails import LONGEST, tail_of
from aks_inference_runtime.kubernetes.workloads import (
    GIVEN_UP_RESTARTS,
    ReplicaPod,
    Template,
    Workload,
    made_as_declared,
    replica_pod,
    template,
    workload,
)
from aks_inference_runtime.router.model import VersionKey, VersionLoad

VERSION = ("ns", "svc", "blue")
CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
SERVES = ReplicaPod("ns", "old", PodNeed("n", {}), version=VERSION, ready=True)
CRASHES = ReplicaPod(
    "ns", "new", PodNeed("n", {}), version=VERSION, trouble="CrashLoopBackOff: back-off", restarts=GIVEN_UP_RESTARTS
)


FORBIDDEN = 'pods "x" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes (volume "model-cache")'


def told(
    pods: list[ReplicaPod],
    *,
    templates: tuple[Template, ...] = (),
    known_s: float = 60,
    served: int | None = 3,
    loads: dict[VersionKey, VersionLoad] | None = None,
    before: dict[str, Any] | None = None,
    tail: str = "ImportError: no module named numpi",
    name_in_use: bool = False,
    **workload: Any,
) -> dict[str, Any]:
    spec = EndpointSpec.model_validate({"versions": [{"name": "blue", "isDefault": True, "code": CODE}]})
    usual = {"replicas": 1, "ready": 1, "updated": 1, "total": 1, "current": True, "overdue": False}
    work = Workload("ns", "svc-blue", VERSION, need={}, **{**usual, **workload})
    return status_of(
        Facts(
            endpoint=Declared("ns", "svc", "uid", 3, "2026-01-01T00:00:00Z", spec, before),
            name_in_use=name_in_use,
            workloads={VERSION: work},
            pods={VERSION: pods},
            newest={VERSION: made_as_declared(work, templates, pods)},
            loads=loads or {},
            scaling={},
            served_generation=served,
            log_tails={VERSION: tail},
            url="http://router",
            now="2026-01-01T00:00:00Z",
            known_s=known_s,
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


@pytest.mark.parametrize(("pods", "workload"), [([SERVES], {}), ([CRASHES], {"ready": 0}), ([], {"ready": 0})])
def test_an_endpoint_whose_name_is_in_use_has_failed(pods: list[ReplicaPod], workload: dict[str, Any]) -> None:
    """Its pods may be ready: no request reaches them."""
    found = told(pods, name_in_use=True, **workload)
    (condition,) = found["conditions"]
    assert (found["state"], condition["status"], condition["reason"]) == ("Failed", "False", "NameInUse")
    assert found["message"] == condition["message"]
    assert "an older endpoint of another namespace has this name" in found["message"]
    assert (found["servedGeneration"], found["scoringUri"], found["swaggerUri"]) == (0, "", "")


READY_2 = {"type": "Ready", "status": "True", "observedGeneration": 2}


@pytest.mark.parametrize(
    ("pods", "workload", "before", "served", "said"),
    [
        ([SERVES], {}, None, 3, ""),
        ([SERVES, CRASHES], {"updated": 1, "total": 2}, None, 0, ""),
        ([SERVES, CRASHES], {"updated": 1, "total": 2}, {"servedGeneration": 2}, 2, "2 still serves: 3 failed (blue)"),
        # As an autoscaler wrote it that did not know the field.
        ([SERVES], {"updated": 0}, {"conditions": [READY_2]}, 2, "2 still serves: 3 is not ready yet"),
        ([CRASHES], {"ready": 0}, {"servedGeneration": 2}, 2, ""),
        ([], {"ready": 0}, {"servedGeneration": 3}, 3, ""),
    ],
    ids=["served", "never served", "a change that failed", "on its way", "nothing serves", "served before"],
)
def test_what_served_before_is_remembered_and_told_as_on_this_machine(
    pods: list[ReplicaPod], workload: dict[str, Any], before: dict[str, Any] | None, served: int, said: str
) -> None:
    found = told(pods, before=before, **workload)
    assert found["servedGeneration"] == served
    spec = {"versions": [{"name": "blue", "isDefault": True, "code": CODE}]}
    metadata = {"name": "svc", "namespace": "ns", "uid": "uid", "generation": 3}
    status = view_of({"metadata": metadata, "spec": spec, "status": found}, []).status
    assert note(status) == (f"generation {said}" if said else "")


@pytest.mark.parametrize(
    ("word", "generation", "state"),
    [("True", 3, "Healthy"), ("True", 2, "Transitioning"), ("False", 3, "Transitioning")],
)
def test_who_has_heard_no_router_yet_leaves_what_was_written(word: str, generation: int, state: str) -> None:
    """An autoscaler that has just begun to lead: events and webhooks of all endpoints would tell of nothing."""
    ready = {"type": "Ready", "status": word, "observedGeneration": generation}
    assert told([SERVES], served=None, before={"conditions": [ready]})["state"] == state


@pytest.mark.parametrize("why", [{"unschedulable": "0/3 nodes"}, {"trouble": "ImagePullBackOff: no right"}])
def test_what_cannot_run_beside_what_serves_is_told(why: dict[str, str]) -> None:
    pods = [SERVES, replace(SERVES, name="more", ready=False, **why)]
    found = told(pods, replicas=2, updated=2, total=2)
    (said,) = why.values()
    assert (found["state"], found["versions"][0]["message"], found["message"]) == ("Healthy", said, f"blue: {said}")
    assert told(pods, replicas=1, updated=2, total=2)["message"] == "", "it is to go"


def test_figures_that_are_lost_are_not_zero() -> None:
    (version,) = told([SERVES])["versions"]
    assert {"busy", "queued", "utilization"} & version.keys() == set()
    assert version["lastScaling"] == HELD
    (version,) = told([SERVES], loads={VersionKey("svc", "blue"): VersionLoad(1, 2, 1)})["versions"]
    assert (version["busy"], version["queued"], version["utilization"], version["lastScaling"]) == (1, 2, 300.0, "")


def test_the_last_change_is_told_on_by_another_leader() -> None:
    leads = False
    scaler = ClusterScaler(RuntimeSettings(), lambda: leads, lambda: 0.0)
    changed = "2026-01-01T00:00:00Z 1 → 3: 3 needed"
    key = VersionKey("svc", "blue")

    def told_back(kind: str, said: str) -> None:
        spec = {"versions": [{"name": "blue", "isDefault": True, "code": CODE}]}
        metadata = {"name": "svc", "namespace": "ns", "uid": "uid", "generation": 3}
        status = {"versions": [{"name": "blue", "lastScaling": said}]}
        scaler.endpoints._take(kind, {"metadata": metadata, "spec": spec, "status": status})

    told_back("ADDED", "3: 3 needed")
    assert key not in scaler._last_scaling
    told_back("MODIFIED", f"{HELD}; {changed}")
    assert scaler._last_scaling[key] == changed
    leads = True
    told_back("MODIFIED", "2026-01-01T00:00:00Z 1 → 2: mine, told late")
    assert scaler._last_scaling[key] == changed


WAITS = ReplicaPod("ns", "waits", PodNeed("", {}), version=VERSION, unschedulable="0/3 nodes: Insufficient cpu")
HANGS = ReplicaPod("ns", "hangs", PodNeed("n", {}), version=VERSION)


@pytest.mark.parametrize(
    ("pods", "state", "said"),
    [
        ([WAITS], "Unschedulable", "0/3 nodes: Insufficient cpu"),
        ([HANGS], "Failed", "not ready in time\nImportError: no module named numpi"),
        ([WAITS, CRASHES], "Failed", "CrashLoopBackOff: back-off\nImportError: no module named numpi"),
    ],
)
def test_what_is_said_of_what_is_late(pods: list[ReplicaPod], state: str, said: str) -> None:
    found = told(pods, ready=0, overdue=True)
    assert (found["state"], found["message"]) == (state, f"blue: {said}")


@pytest.mark.parametrize("length", [10, LONGEST_MESSAGE, 3 * LONGEST_MESSAGE])
@pytest.mark.parametrize("state", ["Failed", "Transitioning"])
def test_no_message_is_longer_than_the_api_server_takes(length: int, state: str) -> None:
    """Of a longer one it refuses the whole status: the state before would stay for ever."""
    trouble = f"CrashLoopBackOff: {'x' * length}"
    pod = replace(CRASHES, trouble=trouble, restarts=GIVEN_UP_RESTARTS if state == "Failed" else 1)
    found = told([pod], ready=0, updated=0, tail="é" * (LONGEST - 1) + "!")
    assert found["state"] == state
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    Draft4Validator(schema).validate(found)
    assert found["message"].endswith("!") == (state == "Failed"), "the end of the log tells most"


@pytest.mark.parametrize(
    ("refused", "state"), [(FORBIDDEN, "Failed"), ('exceeded quota: "pods", requested: 1', "Transitioning")]
)
def test_pods_that_the_api_server_does_not_take_are_told_with_its_words(refused: str, state: str) -> None:
    found = told([], ready=0, updated=0, total=0, refused=refused)
    assert found["state"] == state
    assert refused in found["message"]


OOM = {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "restartCount": 4}
BUSY = "context deadline exceeded"


@pytest.mark.parametrize(
    ("reason", "message", "last", "given_up", "said"),
    [
        ("CrashLoopBackOff", "back-off 40s", OOM, True, "back-off 40s; its last run: OOMKilled, exit code 137"),
        ("CreateContainerError", BUSY, {}, False, f"CreateContainerError: {BUSY}"),
        ("RunContainerError", "no such program", {}, False, "no such program"),
        ("ErrImageNeverPull", "", {}, True, "ErrImageNeverPull"),
        ("ContainerCreating", "", {}, False, ""),
    ],
)
def test_why_a_container_does_not_run(
    reason: str, message: str, last: dict[str, Any], given_up: bool, said: str
) -> None:
    labels = {"aks-inference.dev/endpoint": "svc", "aks-inference.dev/version": "blue"}
    waits = {"name": "scoring", "state": {"waiting": {"reason": reason, "message": message}}, **last}
    metadata = {"namespace": "ns", "name": "pod", "labels": labels}
    pod = replica_pod({"metadata": metadata, "spec": {"containers": []}, "status": {"containerStatuses": [waits]}})
    assert pod is not None
    assert pod.given_up is given_up
    assert pod.trouble.endswith(said)
    assert said in told([pod], ready=0, overdue=True)["message"]


OLD, NEW = Template(VERSION, "1", "aaa"), Template(VERSION, "2", "bbb")
LEFT = replace(CRASHES, name="left", template="aaa")
COMES = ReplicaPod("ns", "comes", PodNeed("n", {}), version=VERSION, template="bbb")


@pytest.mark.parametrize(
    ("pods", "given", "reason"),
    [
        # What the mended template replaces goes on crashing until the new pods are ready.
        ([LEFT, COMES], {}, "Transitioning"),
        ([LEFT], {}, "Transitioning"),
        ([LEFT, replace(CRASHES, template="bbb")], {}, "Failed"),
        # Back to a template that was there before: its ReplicaSet gets the new number.
        ([LEFT, COMES], {"revision": "1"}, "Failed"),
        # The Deployment controller has not seen the change, or this process has not.
        ([LEFT], {"revision": "1", "current": False}, "Transitioning"),
        ([LEFT], {"revision": "1", "known_s": 0.5}, "Transitioning"),
        ([LEFT], {"templates": ()}, "Failed"),
    ],
)
def test_a_mended_change_is_not_told_as_the_one_before(
    pods: list[ReplicaPod], given: dict[str, Any], reason: str
) -> None:
    found = {"templates": (OLD, NEW), "revision": "2", "ready": 0, "updated": 1, "total": 2, **given}
    (condition,) = told(pods, **found)["conditions"]
    assert condition["reason"] == reason


def test_what_is_read_of_templates() -> None:
    labels = {"aks-inference.dev/endpoint": "svc", "aks-inference.dev/version": "blue"}
    numbered = {"deployment.kubernetes.io/revision": "2"}
    metadata = {"namespace": "ns", "name": "svc-blue", "labels": {**labels, "pod-template-hash": "bbb"}}
    assert template({"metadata": metadata | {"annotations": numbered}}) == NEW
    assert template({"metadata": {"namespace": "ns", "name": "other"}}) is None
    spec = {"template": {"spec": {"containers": []}}}
    deployment = {"metadata": {"namespace": "ns", "name": "svc-blue", "labels": labels, "annotations": numbered}}
    made = workload({**deployment, "spec": spec})
    assert made is not None
    assert made.revision == "2"
    pod = replica_pod({"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Running"}})
    assert pod is not None
    assert pod.template == "bbb"


def ended(restarts: int, *, seconds: int = 5, ready: bool = False) -> dict[str, Any]:
    """A container that was started again."""
    last = {"exitCode": 3, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": f"2026-01-01T00:{seconds // 60:02}:00Z"}
    state = {"running": {"startedAt": "2026-01-01T01:00:00Z"}}
    return {
        "name": "scoring",
        "restartCount": restarts,
        "ready": ready,
        "state": state,
        "lastState": {"terminated": last},
    }


@pytest.mark.parametrize(
    ("container", "given_up"),
    [
        (ended(GIVEN_UP_RESTARTS), True),
        (ended(GIVEN_UP_RESTARTS - 1), False),
        (ended(GIVEN_UP_RESTARTS, ready=True), False),
        # It worked for long: one that ends once a day is no loop.
        (ended(GIVEN_UP_RESTARTS, seconds=1_200), False),
        ({"name": "scoring", "restartCount": 9, "lastState": {"terminated": {"exitCode": 1}}}, False),
    ],
)
def test_what_crashes_is_not_well_while_it_starts_once_more(container: dict[str, Any], given_up: bool) -> None:
    labels = {"aks-inference.dev/endpoint": "svc", "aks-inference.dev/version": "blue"}
    status = {"phase": "Running", "containerStatuses": [container]}
    pod = {"metadata": {"namespace": "ns", "name": "p", "labels": labels}, "spec": {"containers": []}, "status": status}
    found = replica_pod(pod)
    assert found is not None
    assert found.given_up is given_up
    assert ("exit code 3" in found.trouble) is given_up


class Logs:
    """Answers of the API server for a container's former and present log, one after the other."""

    def __init__(self, *answers: str | AksInferenceError) -> None:
        self.answers = list(answers)

    async def text(self, path: str, **query: str) -> str:
        assert path == "/api/v1/namespaces/ns/pods/new/log"
        assert query["container"] == "scoring"
        answer = self.answers.pop(0)
        if isinstance(answer, AksInferenceError):
            raise answer
        return answer


GONE = "unable to retrieve container logs for containerd://f5101caa"


@pytest.mark.parametrize(
    ("answers", "tail"),
    [
        (["boom\n", ""], "boom"),
        (["", "boom"], "boom"),
        ([NotFound("no former container"), "boom"], "boom"),
        # Between two runs.
        ([GONE, "", GONE, "", "boom", ""], "boom"),
        ([GONE, GONE] * 3, ""),
        (["x" * LONGEST + "boom", ""], "x" * (LONGEST - 4) + "boom"),
        # An image that cannot be pulled has no log; nobody waits for one.
        ([NotFound("waiting to start"), NotFound("waiting to start")], ""),
    ],
)
async def test_the_end_of_the_log_of_what_crashed(answers: list[str | AksInferenceError], tail: str) -> None:
    logs = Logs(*answers)
    assert await tail_of(logs, CRASHES, pauses=(0, 0, 0)) == tail
    assert not logs.answers
