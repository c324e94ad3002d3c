"""Several router pods, some of several lanes: who owns what, what they say, and what those that hang hold up."""

import asyncio
from collections import Counter

import pytest
from several_lanes import NAMES, Pod, shared

from aks_inference_runtime.kubernetes import agent as agents
from aks_inference_runtime.kubernetes.words import Word


@pytest.fixture(autouse=True)
def nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "LATE_S", 0.0)


async def exchange(*pods: Pod, rounds: int = 30, met: bool = True) -> None:
    """Rounds of all, each of which is heard. `met`: they know of each other, so that there is one owner at most."""
    for _ in range(rounds):
        for pod in pods:
            await pod.round()
            await asyncio.sleep(0)
            for other in pods:
                if other is not pod:
                    other.hears(pod)
        held = Counter(name for pod in pods for names in pod.held().values() for name in names)
        assert not met or not held or max(held.values()) == 1, "two routers use the same replicas"


async def test_pods_share_by_lane_and_a_pod_that_leaves_gives_up_all_of_them() -> None:
    a, b = Pod("a"), Pod("b")
    await exchange(a, b, met=False)
    a.cores(4)
    await exchange(a, b)
    assert a.held() | b.held() == shared("a", "a/1", "b")
    assert b.agent.heartbeats.lanes("a") == {"a", "a/1"}
    a.agent.leave()
    await exchange(a, b)
    assert a.agent.left
    assert b.held() == {"b": sorted(NAMES)}
    assert not a.agent.ready
    await a.agent.close()
    await b.agent.close()


@pytest.mark.parametrize("heard_again", [True, False])
async def test_a_lane_waits_for_routers_that_are_not_heard(monkeypatch: pytest.MonkeyPatch, heard_again: bool) -> None:
    a, b = Pod("a"), Pod("b")
    await exchange(a, b, met=False)
    a.cores(4)
    a.cores(1, "b")
    await exchange(a, b)
    if not heard_again:
        monkeypatch.setattr(agents, "UNHEARD_S", 0.2)
    a.cores(1)
    # Its last word was of the time before.
    a.agent.heartbeats._known["b"] = -1_000.0
    a.agent.heartbeats._heard.clear()
    for _ in range(20):
        await a.round()
    assert a.held() == {"a": sorted(NAMES), "a/1": []}, "nobody else is alive"
    assert "finish" not in a.routers[1].calls, "but that one may go on sending"
    async with asyncio.timeout(10):
        while len(a.agent.lanes) > 1:
            await (exchange(a, b, rounds=1, met=False) if heard_again else a.round())
            await asyncio.sleep(0.005)
    assert a.routers[1].calls == ["start", "finish", "stop"]
    await a.agent.close()
    await b.agent.close()


async def test_a_pod_alone_that_leaves_keeps_its_endpoints_until_its_requests_are_over() -> None:
    pod = Pod()
    pod.cores(4)
    await pod.rounds()
    pod.agent.leave()
    assert pod.agent.left
    await pod.round()
    assert pod.held() == shared("pod", "pod/1")
    await pod.agent.finish()
    await pod.agent.close()
    assert [router.calls[-2:] for router in pod.routers.values()] == [["finish", "stop"]] * 2


async def test_who_hears_of_a_lane_waits_for_its_word() -> None:
    pod = Pod("b")
    heartbeats = pod.agent.heartbeats
    both = Word(router="a", clock=3, candidates=("a", "a/1"), lanes=("a", "a/1"), held={})
    heartbeats._take("a", both)
    assert heartbeats.view().live == {"a", "a/1", "b"}
    assert not heartbeats.view().heard_all, "it may hold an endpoint"
    await pod.round()
    assert pod.held() == {"b": []}
    its = both.model_copy(update={"router": "a/1", "held": {NAMES[0]: 3}})
    heartbeats._take("a", its)
    assert heartbeats.view().heard_all
    assert heartbeats.view().holders(NAMES[0])
    # What it holds is said once, as long as it is the same.
    heartbeats._take("a", its.model_copy(update={"held": None}))
    assert heartbeats.view().holders(NAMES[0])
    # It is gone with the first word that does not name it.
    heartbeats._take("a", both.model_copy(update={"lanes": None, "held": None}))
    assert heartbeats.view().live == {"a", "b"}
    assert not heartbeats.view().holders(NAMES[0])
    await pod.agent.close()


async def test_a_pod_of_one_lane_speaks_as_before_there_were_several() -> None:
    pod = Pod()
    await pod.rounds()
    (line,) = pod.agent.heartbeats._lines({}).splitlines()
    assert b"lanes" not in line
    pod.cores(4)
    await pod.rounds()
    words = [Word.model_validate_json(line) for line in pod.agent.heartbeats._lines({}).splitlines()]
    assert [word.router for word in words] == ["pod", "pod/1"]
    assert {word.lanes for word in words} == {("pod", "pod/1")}
    assert {word.router: sorted(word.held or ()) for word in words} == shared("pod", "pod/1")
    await pod.agent.close()
