"""A router pod of several lanes: how many, what they say, who owns what, and what one lane's end does to the others."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from several_lanes import CODE, NAMES, Pod, router_pod, shared

from aks_inference_runtime.api.kubernetes import LANE_PORTS, MOST_LANES, RuntimeSettings, router_lanes
from aks_inference_runtime.autoscaler.routers import Figures, Memory, Present, Room, RouterRules, Size, step
from aks_inference_runtime.kubernetes import agent as agents
from aks_inference_runtime.kubernetes import objects, vitals
from aks_inference_runtime.kubernetes.lane import lane_name, owner_port, pod_of
from aks_inference_runtime.router import config
from aks_inference_runtime.router.model import VersionKey
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.slots import Layout


@pytest.fixture(autouse=True)
def nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "LATE_S", 0.0)


# --- how many


@pytest.mark.parametrize(
    ("cpu_m", "lanes"), [(0, 1), (250, 1), (2_000, 1), (3_999, 1), (4_000, 2), (6_500, 3), (8_000, 4), (64_000, 4)]
)
def test_a_lane_for_every_two_cores(cpu_m: int, lanes: int) -> None:
    assert router_lanes(cpu_m) == lanes


@pytest.mark.parametrize(
    ("cpu", "granted", "expected"), [("4", None, 4_000), ("4", "250m", 250), ("250m", "4", 4_000), (None, None, 0)]
)
def test_cores_are_those_that_the_kubelet_has_granted(cpu: str | None, granted: str | None, expected: int) -> None:
    found = objects.router_pod(router_pod(cpu, granted))
    assert found is not None
    assert found.cpu_m == expected


def test_names_and_ports() -> None:
    settings = RuntimeSettings()
    names = [lane_name("router-x", number) for number in range(MOST_LANES)]
    assert names[:2] == ["router-x", "router-x/1"]
    assert {pod_of(name) for name in names} == {"router-x"}
    found = [owner_port(settings, name) for name in names]
    assert found == [settings.owner_port, *LANE_PORTS]
    assert not {settings.agent_port, settings.http_port} & set(found)


def test_more_pods_leave_fewer_lanes_for_each() -> None:
    for most, lanes in ((1, 4), (8, 4), (9, 3), (12, 2), (20, 1), (100, 1)):
        pod = Pod(router_max_pods=most)
        pod.cores(8)
        assert pod.agent.wanted == lanes


def test_a_pod_that_has_one_lane_for_ever_has_its_own_socket() -> None:
    def lines(cluster: Cluster) -> list[str]:
        paths = Paths(Path("/run/router"), Path("/run/router"))
        return config.first_process(paths, "10.0.0.1", 8080, Layout(()), 1_000, cluster).splitlines()

    alone, shares = Cluster("10.0.0.1", 8081), Cluster("10.0.0.1", 8081, sockets={8080: 7})
    before, after = Counter(lines(alone)), Counter(lines(shares))
    gone, new = before - after, after - before
    assert gone == Counter({"  bind 10.0.0.1:8080": 1})
    backends = [line for line in new if line.startswith("backend ")]
    assert backends == [f"backend peer{number} from hop" for number in range(alone.peers, shares.peers)]
    assert {"  bind fd@7", "  option idle-close-on-response"} <= new.keys()


RULES = RouterRules(least=Size(2, 1_000), most=Size(4, 8_000), threshold_ms=3, down_delay_s=300, up_delay_s=0)


@pytest.mark.parametrize(
    ("figures", "size", "expected"),
    [
        (Figures(9, 1.3, 0.95), Size(2, 2_000), Size(2, 4_000)),  # one thread has no more: another lane
        (Figures(9, 1.3, 0.7), Size(2, 2_000), Size(3, 2_000)),
        (Figures(9, 2.9, 0.95), Size(2, 8_000), Size(3, 8_000)),  # no more cores than that
        (Figures(9, 0.9, 0.6), Size(2, 1_000), Size(2, 2_000)),
        (Figures(9, 0.6, 0.9), Size(2, 1_000), Size(3, 1_000)),  # more of them bring no lane
    ],
)
def test_a_busy_thread_is_a_reason_for_more_lanes(figures: Figures, size: Size, expected: Size) -> None:
    memory, now = Memory(), 10.0
    for _ in range(2):
        memory, decision = step(memory, now, Present(size, 2, [figures] * 2), RULES, Room(9, 99_000))
        now += 1
    assert decision.size == expected


def test_routing_time_of_a_pod_is_that_of_its_lanes() -> None:
    one, two = Path("router"), Path("router-1")
    fast, slow = [0.001], [0.003]
    assert vitals.routing({(one, "p0"): fast, (one, "p1"): fast}) == pytest.approx(2)
    both = {(one, "p0"): fast, (one, "p1"): fast, (two, "p0"): slow, (two, "p1"): slow}
    assert vitals.routing(both) == pytest.approx(4)
    assert vitals.routing({(two, "p1"): slow}) is None


# --- one pod


async def test_cores_bring_lanes_that_take_their_share_and_give_it_back() -> None:
    pod = Pod()
    await pod.rounds()
    assert pod.held() == {"pod": sorted(NAMES)}
    pod.cores(4)
    await pod.rounds()
    assert pod.held() == shared("pod", "pod/1")
    assert all(pod.held().values()), "each has some"
    assert pod.agent.ready
    assert set(pod.agent.generations) == set(NAMES)
    for router, other in ((pod.routers[0], "pod/1"), (pod.routers[1], "pod")):
        (peer,) = router.state.peers.values()
        assert list(router.state.peers) == [other]
        assert (peer.host, peer.port) == ("10.0.0.1", owner_port(pod.agent.settings, other))
        assert {e.owner for e in router.state.endpoints.values()} == {None, other}
    assert set(pod.agent.load()) == {VersionKey(name, "blue") for name in NAMES}
    assert pod.agent.answers == {"404": 2}
    changes = pod.agent.owner_changes
    pod.cores(2)
    await pod.rounds()
    assert pod.held() == {"pod": sorted(NAMES)}
    assert pod.routers[1].calls == ["start", "finish", "stop"]
    assert pod.routers[0].calls == []
    assert not pod.routers[0].state.peers
    assert pod.agent.answers == {"404": 2}, "what a lane has answered still counts"
    assert pod.agent.owner_changes > changes
    await pod.agent.close()


async def test_a_lane_that_goes_keeps_what_waits_there() -> None:
    pod = Pod()
    pod.cores(4)
    await pod.rounds()
    mine = pod.held()["pod/1"]
    pod.routers[1].waits = 1
    pod.cores(2)
    for _ in range(20):
        await pod.round()
        assert pod.held()["pod/1"] == mine, "something waits there"
        assert pod.held()["pod"] == shared("pod", "pod/1")["pod"], "two would use the same replicas"
    assert "finish" not in pod.routers[1].calls
    pod.routers[1].waits = 0
    await pod.rounds()
    assert pod.held() == {"pod": sorted(NAMES)}
    await pod.agent.close()


async def test_cores_that_come_back_meanwhile_bring_another_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod()
    pod.cores(4)
    await pod.rounds()
    over = asyncio.Event()
    monkeypatch.setattr(pod.routers[1], "finish", over.wait)
    pod.cores(2)
    for _ in range(20):
        await pod.round()
    pod.cores(4)
    for _ in range(40):
        await pod.round()
        await asyncio.sleep(0)
    assert pod.held() == {**shared("pod", "pod/2"), "pod/1": []}
    over.set()
    await pod.rounds()
    assert pod.held() == shared("pod", "pod/2")
    await pod.agent.close()
    assert [router.calls[-1] for router in pod.routers.values()] == ["stop"] * 3


async def test_a_lane_that_does_not_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agents, "AGAIN_S", 0.05)
    pod = Pod()
    pod.broken = {1}
    pod.cores(4)
    await pod.rounds()
    assert pod.held() == {"pod": sorted(NAMES)}
    assert pod.routers[1].calls == ["start", "stop"]
    assert "no haproxy" in caplog.text
    pod.broken = set()
    async with asyncio.timeout(10):
        while len(pod.agent.lanes) == 1:
            await pod.round()
            await asyncio.sleep(0.01)
    await pod.rounds()
    assert pod.held() == shared("pod", "pod/1")
    await pod.agent.close()


async def test_a_lane_that_does_not_end_is_ended_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "AGAIN_S", 0.05)
    pod = Pod()
    pod.cores(4)
    await pod.rounds()
    pod.routers[1].broken = "stop"
    pod.cores(2)
    with pytest.raises(OSError, match="cannot be removed"):
        await pod.rounds()
    pod.routers[1].broken = ""
    async with asyncio.timeout(10):
        while len(pod.agent.lanes) > 1:
            await pod.round()
            await asyncio.sleep(0.01)
    pod.cores(4)
    await pod.rounds()
    assert pod.held() == shared("pod", "pod/1")
    await pod.agent.close()


async def test_a_lane_in_trouble_keeps_no_other_one_from_its_work() -> None:
    pod = Pod()
    pod.cores(4)
    await pod.rounds()
    pod.routers[0].broken = "apply"
    metadata = {"namespace": "ns", "name": "one-more", "uid": "uid", "generation": 1}
    version = {"name": "blue", "isDefault": True, "trafficPercentile": 100, "code": CODE}
    pod.agent.known.endpoints._take("ADDED", {"metadata": metadata, "spec": {"versions": [version]}})
    for _ in range(3):
        with pytest.raises(RuntimeError, match="not now"):
            await pod.round()
    assert "one-more" in pod.routers[1].state.endpoints
    assert pod.agent.generations.get("one-more", 0) == 0, "not served whole"
    pod.routers[0].broken = ""
    await pod.rounds()
    assert pod.agent.generations["one-more"] == 1
    await pod.agent.close()


async def test_a_lane_that_hangs_keeps_no_other_one_from_its_rounds() -> None:
    pod = Pod()
    pod.cores(4)
    await pod.rounds()
    hung, other = pod.routers[1], pod.routers[0]
    hung.goes_on.clear()
    metadata = {"namespace": "ns", "name": "one-more", "uid": "uid", "generation": 1}
    version = {"name": "blue", "isDefault": True, "trafficPercentile": 100, "code": CODE}
    pod.agent.known.endpoints._take("ADDED", {"metadata": metadata, "spec": {"versions": [version]}})
    assert await pod.round(), "its round is under way"
    assert "one-more" in other.state.endpoints
    pod.agent.known.endpoints._take("DELETED", {"metadata": metadata, "spec": {"versions": [version]}})
    assert await pod.round()
    assert "one-more" not in other.state.endpoints
    hung.goes_on.set()
    await pod.rounds()
    assert hung.state.endpoints.keys() == other.state.endpoints.keys()
    await pod.agent.close()


async def test_a_pod_that_is_to_end_while_a_lane_begins_has_none_more() -> None:
    pod = Pod()
    pod.later.clear()
    pod.cores(4)
    await pod.round()
    pod.agent.leave()
    pod.later.set()
    await pod.rounds()
    assert pod.routers[1].calls == ["start", "stop"]
    assert list(pod.agent.lanes) == [0]
    await pod.agent.close()
