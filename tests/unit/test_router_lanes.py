"""A router pod of several lanes: how many, what they say, who owns what, and what one lane's end does to the others."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.kubernetes import LANE_PORTS, MOST_LANES, RuntimeSettings, router_lanes
from aks_inference_runtime.autoscaler.routers import Figures, Memory, Present, Room, RouterRules, Size, step
from aks_inference_runtime.kubernetes import agent as agents
from aks_inference_runtime.kubernetes import objects, vitals
from aks_inference_runtime.kubernetes.agent import Agent
from aks_inference_runtime.kubernetes.lane import lane_name, owner_port, pod_of
from aks_inference_runtime.kubernetes.words import Word
from aks_inference_runtime.router.model import RouterState, VersionKey, VersionLoad
from aks_inference_runtime.router.ownership import owner_of

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
NAMES = [f"svc-{number}" for number in range(12)]
LOAD = VersionLoad(busy=1, queued=2, requests_total=3)
SESSION: Any = SimpleNamespace()


class Router:
    """A lane's HAProxy processes, as far as the agent sees them."""

    def __init__(self, number: int) -> None:
        self.number, self.news = number, 0
        self.state = RouterState()
        self.answers: Counter[str] = Counter({"404": 1})
        self.calls: list[str] = []
        self.waits = 0
        self.broken = ""

    async def start(self) -> None:
        self.calls.append("start")
        if self.broken == "start":
            raise OperationFailed("no haproxy")

    async def apply(self, state: RouterState) -> None:
        if self.broken == "apply":
            raise RuntimeError("not now")
        self.state = state

    async def finish(self) -> None:
        self.calls.append("finish")

    async def stop(self) -> None:
        self.calls.append("stop")

    def claims(self, _: str) -> tuple[int, None]:
        return 0, None

    def waiting(self, _: str, since: float = 0.0) -> int:
        return self.waits

    def load(self) -> dict[VersionKey, VersionLoad]:
        return {VersionKey(name, "blue"): LOAD for name in self.holds()}

    def holds(self) -> list[str]:
        return [n for n, e in self.state.endpoints.items() if e.tenure is not None and e.tenure.uses_replicas]


class Pod:
    """An agent with routers that the test sees."""

    def __init__(self, name: str = "pod", **settings: Any) -> None:
        self.name, self.routers = name, {0: Router(0)}
        self.broken: set[int] = set()
        first: Any = self.routers[0]
        self.agent = Agent(name, RuntimeSettings(**settings), first, address="10.0.0.1", make=self.make)
        for endpoint in NAMES:
            version = {"name": "blue", "isDefault": True, "trafficPercentile": 100, "code": CODE}
            metadata = {"namespace": "ns", "name": endpoint, "uid": f"uid-{endpoint}", "generation": 7}
            self.agent.known.endpoints._take("ADDED", {"metadata": metadata, "spec": {"versions": [version]}})

    def make(self, number: int) -> Any:
        made = self.routers[number] = Router(number)
        made.broken = "start" if number in self.broken else ""
        return made

    def cores(self, cores: float) -> None:
        self.agent.known.pods._take("ADDED", router_pod(f"{cores}", name=self.name))

    async def round(self) -> bool:
        self.agent._fit()
        await asyncio.sleep(0)
        return await self.agent.step(SESSION)

    async def rounds(self) -> None:
        """Until nothing is on the move."""
        quiet = 0
        async with asyncio.timeout(20):
            while quiet < 3 or self.agent._changing:
                quiet = 0 if await self.round() else quiet + 1
                await asyncio.sleep(0.005)

    def held(self) -> dict[str, list[str]]:
        return {lane.name: sorted(lane.sharing.held) for lane in self.agent.lanes.values()}

    def hears(self, other: "Pod") -> None:
        for line in other.agent.heartbeats._lines({}).splitlines():
            self.agent.heartbeats._take(other.name, Word.model_validate_json(line))


def router_pod(cpu: str | None, granted: str | None = None, name: str = "pod") -> dict[str, Any]:
    def container(cores: str | None) -> list[dict[str, Any]]:
        asked = {} if cores is None else {"requests": {"cpu": cores}}
        return [{"name": "other", "resources": {"requests": {"cpu": "9"}}}, {"name": "router", "resources": asked}]

    status: dict[str, Any] = {"podIP": "10.0.0.1"}
    if granted is not None:
        status["containerStatuses"] = container(granted)
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": container(cpu)}, "status": status}


def shared(*lanes: str) -> dict[str, list[str]]:
    """As rendezvous over these lanes has it."""
    return {lane: sorted(name for name in NAMES if owner_of(name, lanes) == lane) for lane in lanes}


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
    for most, lanes in ((8, 4), (12, 3), (20, 1), (100, 1)):
        pod = Pod(router_max_pods=most)
        pod.cores(8)
        assert pod.agent.wanted == lanes


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


@pytest.fixture(autouse=True)
def nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "LATE_S", 0.0)


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


# --- several pods


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
