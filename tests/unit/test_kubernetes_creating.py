"""Pods whose containers are not made: their kubelet's words are asked for, in turn, and told."""

import asyncio
from typing import Any

import pytest

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.kubernetes.creating import AGAIN_S, MOST, PATIENCE_S, Creating, newest_words
from aks_inference_runtime.kubernetes.room import PodNeed
from aks_inference_runtime.kubernetes.workloads import ReplicaPod, replica_pod

LABELS = {"aks-inference.dev/endpoint": "svc", "aks-inference.dev/version": "blue"}
NO_SECRET = 'MountVolume.SetUp failed for volume "x": secret "y" not found'


def event(reason: str, note: str = "", **times: Any) -> dict[str, Any]:
    return {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "reason": reason, "note": note, **times}


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], ""),
        ([event("FailedMount", NO_SECRET)], f"FailedMount: {NO_SECRET}"),
        ([event("FailedScheduling", "no node")], ""),
        # A kubelet counts one event up; others make one with a time of parts of a second, and count in a series.
        (
            [
                event("FailedMount", "a", deprecatedLastTimestamp="2026-01-01T00:05:00Z", eventTime=None),
                event("FailedCreatePodSandBox", "b", eventTime="2026-01-01T00:04:59.900000Z"),
            ],
            "FailedMount: a",
        ),
        (
            [
                event("FailedMount", "a", deprecatedLastTimestamp="2026-01-01T00:05:00Z"),
                event("NoNetwork", "", series={"count": 2, "lastObservedTime": "2026-01-01T00:06:00.000000Z"}),
            ],
            "NoNetwork",
        ),
    ],
)
def test_what_was_told_last_counts(events: list[dict[str, Any]], words: str) -> None:
    assert newest_words(events) == words


@pytest.mark.parametrize(
    ("status", "metadata", "creating"),
    [
        ({}, {}, True),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, {}, True),
        ({"initContainerStatuses": [{"name": "gate", "state": {"running": {}}}]}, {}, False),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull"}}}]}, {}, False),
        ({"containerStatuses": [{"name": "c", "state": {}, "lastState": {"terminated": {}}}]}, {}, False),
        ({"phase": "Running"}, {}, False),
        ({"startTime": None}, {}, False),
        ({}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, False),
    ],
)
def test_which_pods_are_being_made(status: dict[str, Any], metadata: dict[str, Any], creating: bool) -> None:
    usual = {"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"}
    found = {"metadata": {"namespace": "ns", "name": "pod", "labels": LABELS, **metadata}, "status": usual | status}
    pod = replica_pod(found)
    assert pod is not None
    assert pod.creating is creating


class Server:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.away = False

    async def list(self, path: str, labels: str = "", fields: str = "") -> tuple[list[dict[str, Any]], str]:
        self.asked.append(fields)
        if self.away:
            raise RuntimeUnavailable("away")
        return self.events, "1"


def test_who_waits_longest_is_asked_about_first_and_what_is_over_is_forgotten() -> None:
    server, now = Server(), 100.0
    creating = Creating(lambda: now)
    versions = [("ns", f"svc-{number}", "blue") for number in range(MOST + 1)]
    pods = {version: ReplicaPod("ns", version[1], PodNeed("n", {}), version, creating=True) for version in versions}

    def look() -> None:
        asyncio.run(creating.look(server, pods))

    look()
    now += PATIENCE_S - 0.1
    look()
    assert not server.asked, "most pods are made at once"
    now += 0.1
    server.events = [event("FailedMount", NO_SECRET)]
    look()
    assert len(server.asked) == MOST
    assert "regarding.name=svc-0,type=Warning" in server.asked[0]
    look()
    look()
    assert len(server.asked) == len(versions), "each once, until it is time again"
    assert creating.words == dict.fromkeys(versions, f"FailedMount: {NO_SECRET}")
    now += AGAIN_S
    server.away, server.events = True, []
    look()
    assert creating.words[versions[0]], "what was told stays while nobody answers"
    del pods[versions[0]]
    look()
    assert set(creating.words) == set(versions[1:])
