"""Several routers in any order of joins, departures, deaths, silence, pauses and flapping at 10 Hz.

Limits hold, each request is in one place, one owner while nobody is in doubt, and everything comes back by itself.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from several_routers import Gate, World

from aks_inference_runtime.kubernetes.lane import lane_name, pod_of
from aks_inference_runtime.router.ownership import owner_of

LIMITS = st.lists(st.integers(1, 3), min_size=1, max_size=2)
HEALS_TICKS = 60
MOST_ROUTERS = 4
MOST_LANES = 6


class Orderly(RuleBasedStateMachine):
    """Three routers, two endpoints; routers come and leave, nobody fails."""

    names: tuple[str, ...] = ("r0", "r1", "r2")

    @initialize(first=LIMITS, second=LIMITS)
    def begin(self, first: list[int], second: list[int]) -> None:
        gates = [Gate(f"{e}-{i}", e, limit) for e, ls in (("a", first), ("b", second)) for i, limit in enumerate(ls)]
        self.world = World(gates, list(self.names))
        self.started = len(self.names)
        for _ in range(15):
            self.world.tick(sorted(self.world.routers))
        for endpoint in self.world.endpoints:
            assert self.world.users(endpoint) == [owner_of(endpoint, self.world.routers)]

    def pick(self, data: Any, what: Any) -> Any:
        return data.draw(st.sampled_from(sorted(what)))

    def ticks(self, data: Any, count: int) -> None:
        for _ in range(count):
            self.world.tick(data.draw(st.permutations(sorted(self.world.routers))))

    @rule(data=st.data(), count=st.integers(1, 8))
    def requests_come(self, data: Any, count: int) -> None:
        for _ in range(count):
            self.world.arrive(self.pick(data, self.world.routers), self.pick(data, self.world.endpoints))
        self.world.forward()

    @rule(data=st.data())
    def a_request_ends(self, data: Any) -> None:
        running = [(name, number) for name, gate in self.world.gates.items() for number in gate.running()]
        if running:
            name, number = self.pick(data, running)
            self.world.finish(self.world.gates[name], number)

    @rule(data=st.data(), count=st.integers(1, 7))
    def time_goes_on(self, data: Any, count: int) -> None:
        self.ticks(data, count)

    @rule(data=st.data(), count=st.integers(2, 10))
    def readiness_flaps(self, data: Any, count: int) -> None:
        gate = self.world.gates[self.pick(data, self.world.gates)]
        for _ in range(count):
            gate.ready = not gate.ready
            self.ticks(data, 1)

    @precondition(lambda self: len(self.world.routers) < MOST_ROUTERS)
    @rule()
    def a_router_starts(self) -> None:
        self.world.join(f"r{self.started}")
        self.started += 1

    @precondition(lambda self: any(not r.leaving for r in self.world.routers.values()))
    @rule(data=st.data())
    def a_router_is_asked_to_leave(self, data: Any) -> None:
        staying = [name for name, router in self.world.routers.items() if not router.leaving]
        if len(staying) > 1:
            self.world.routers[self.pick(data, staying)].leaving = True

    @invariant()
    def limits_hold(self) -> None:
        if not hasattr(self, "world"):
            return
        for gate in self.world.gates.values():
            assert gate.most <= gate.limit, f"{gate.name}: {gate.most} at once, the limit is {gate.limit}"
        places = self.world.places()
        assert sorted(places) == list(range(1, self.world.numbers + 1)), "a request is nowhere, or in two places"

    @invariant()
    def one_owner_while_nobody_is_in_doubt(self) -> None:
        if not hasattr(self, "world") or not self.world.graceful:
            return
        for endpoint in self.world.endpoints:
            assert len(self.world.users(endpoint)) <= 1, f"{endpoint}: {self.world.users(endpoint)}"
        for gate in self.world.gates.values():
            assert gate.admission.waiting == 0, f"{gate.name}: the routers sent more than it may run"
            order = self.world.began[gate.endpoint]
            assert order == sorted(order) or not self.world.orderly[gate.endpoint], f"overtaken: {order}"
        assert not self.world.lost

    def teardown(self) -> None:
        """Everybody is well again and goes on: all is served by whoever should."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.deaf.clear()
        world.unlisted.clear()
        for router in world.routers.values():
            router.paused = False
        for gate in world.gates.values():
            gate.ready = True
        for _ in range(HEALS_TICKS + world.numbers):
            world.tick(sorted(world.routers))
            for gate in world.gates.values():
                for number in gate.running():
                    world.finish(gate, number)
        self.limits_hold()
        # Those that leave want nothing; if all leave, all stay candidates.
        staying = {name for name, router in world.routers.items() if not router.leaving} or set(world.routers)
        for endpoint in world.endpoints:
            assert world.users(endpoint) == [owner_of(endpoint, staying)], endpoint
        assert len(world.done) + len(world.lost) == world.numbers, "requests wait for ever"


class Faulty(Orderly):
    """Also deaths, silence, pauses, and a list of routers that flaps."""

    @rule(data=st.data(), count=st.integers(2, 10))
    def membership_flaps(self, data: Any, count: int) -> None:
        self.world.graceful = False
        told, other = self.pick(data, self.world.routers), self.pick(data, self.world.routers)
        for _ in range(count):
            self.world.unlisted ^= {(told, other)}
            self.ticks(data, 1)

    @rule(data=st.data())
    def hearing_ends_or_comes_back(self, data: Any) -> None:
        self.world.graceful = False
        pair = self.pick(data, self.world.routers), self.pick(data, self.world.routers)
        self.world.deaf ^= {pair}

    @rule(data=st.data())
    def an_agent_stands_still_or_goes_on(self, data: Any) -> None:
        self.world.graceful = False
        router = self.world.routers[self.pick(data, self.world.routers)]
        router.paused = not router.paused

    @precondition(lambda self: len(self.world.routers) > 1)
    @rule(data=st.data())
    def a_router_dies(self, data: Any) -> None:
        self.world.crash(self.pick(data, self.world.routers))

    @rule()
    def the_dead_are_taken_from_the_list(self) -> None:
        self.world.gone.clear()


class Lanes(Faulty):
    """Two pods of two lanes: each is a router to all others, and a pod that dies takes both with it."""

    names = ("p0", "p0/1", "p1", "p1/1")

    @precondition(lambda self: len(self.world.routers) < MOST_LANES)
    @rule(data=st.data())
    def a_lane_starts(self, data: Any) -> None:
        pod = pod_of(self.pick(data, self.world.routers))
        self.world.join(lane_name(pod, self.started))
        self.started += 1

    @precondition(lambda self: len({pod_of(name) for name in self.world.routers}) > 1)
    @rule(data=st.data())
    def a_pod_dies(self, data: Any) -> None:
        pod = pod_of(self.pick(data, self.world.routers))
        for name in [name for name in self.world.routers if pod_of(name) == pod]:
            self.world.crash(name)


# Not made smaller: of steps that draw more than they show, that takes minutes.
FEW = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
MANY = settings(FEW, max_examples=400, stateful_step_count=50)


class TestRoutersThatComeAndLeave(Orderly.TestCase):
    """The usual run."""

    settings = FEW


class TestLanesThatFail(Lanes.TestCase):
    """The usual run."""

    settings = settings(FEW, max_examples=12)


class TestRoutersThatFail(Faulty.TestCase):
    """The usual run."""

    settings = FEW


@pytest.mark.long
class TestManyThatComeAndLeave(Orderly.TestCase):
    """The same, more of it."""

    settings = MANY


@pytest.mark.long
class TestManyThatFail(Faulty.TestCase):
    """The same, more of it."""

    settings = MANY


@pytest.mark.long
class TestManyLanesThatFail(Lanes.TestCase):
    """The same, more of it."""

    settings = MANY
