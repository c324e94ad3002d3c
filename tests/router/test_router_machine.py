"""I1 to I6 against the real router: HAProxy, gates and replicas as processes, in any order of requests and changes.

Readiness flaps at 10 Hz, replicas come and go, limits, shares and deadlines change, clients leave; in the second
machine replicas, gates, HAProxy and the agent end as well. A model of several routers is in `test_sharing_machine`.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from router_world import SLOW_MS, VERSIONS, World

from aks_inference_runtime.autoscaler import policy

MOST_REPLICAS = 4
LEAST, MOST = 1, 3
"""Of version A, when the autoscaler decides."""
RULES = policy.Rules(LEAST, MOST, 0.7, 1, 2.0)
COUNTS = st.integers(1, 8)
PICKS = st.integers(0, 11)
"""Of replicas: what is drawn must not depend on how many there are, which the replicas themselves decide."""


class Orderly(RuleBasedStateMachine):
    """Nobody fails: whatever is changed, each request that there is time for is served."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.memory = policy.Memory()
        self.clock = 0.0

    @initialize()
    def begin(self) -> None:
        self.world.do(self.world.begin())

    def several(self) -> list[Any]:
        return [member for version in VERSIONS if len(of := self.world.of(version)) > 1 for member in of]

    @rule(count=COUNTS, version=st.sampled_from([None, None, *VERSIONS]), sleep_ms=st.sampled_from([0, 20, 60]))
    def requests_come(self, count: int, version: str | None, sleep_ms: int) -> None:
        self.world.do(self.world.ask(count, version, sleep_ms))

    @rule(hundredths=st.integers(1, 25))
    def time_goes_on(self, hundredths: int) -> None:
        self.world.do(asyncio.sleep(hundredths / 100))

    @rule(pick=PICKS, times=st.integers(2, 10))
    def readiness_flaps(self, pick: int, times: int) -> None:
        self.flap(pick, times, address=False)

    def flap(self, pick: int, times: int, *, address: bool) -> None:
        async def begin() -> None:
            self.world.flap(members[pick % len(members)], times, address=address)

        if members := self.world.members:
            self.world.do(begin())

    @rule(version=st.sampled_from(VERSIONS), cap=st.integers(1, 3))
    def a_replica_comes(self, version: str, cap: int) -> None:
        if len(self.world.members) < MOST_REPLICAS:
            self.world.do(self.world.add(version, cap))

    @rule(pick=PICKS)
    def a_replica_goes(self, pick: int) -> None:
        if members := self.several():
            self.world.do(self.world.remove(members[pick % len(members)]))

    @rule(share=st.sampled_from([0, 2_500, 5_000, 10_000]))
    def traffic_changes(self, share: int) -> None:
        self.world.do(self.world.change(shares={"A": 10_000 - share, "B": share}))

    @rule(wait_ms=st.sampled_from([500, 5_000, 5_000]), most_queued=st.sampled_from([2, 1_000, 1_000]))
    def limits_change(self, wait_ms: int, most_queued: int) -> None:
        self.world.do(self.world.change(wait_ms=wait_ms, most_queued=most_queued))

    @rule(count=st.integers(1, 3))
    def clients_leave(self, count: int) -> None:
        self.world.do(self.world.leave(count))

    @rule()
    def the_autoscaler_decides(self) -> None:
        """I5, by the figures that the real router reports."""
        members = self.world.of("A")
        if not members:
            return
        load = self.world.do(self.world.load("A"))
        self.clock += 1.0
        sample = None if load is None else policy.Load(load.busy, load.queued)
        self.memory = policy.observe(self.memory, self.clock, sample, RULES)
        room = MOST_REPLICAS - len(self.world.members)
        decision = policy.decide(self.memory, self.clock, len(members), RULES, room)
        assert LEAST <= decision.replicas <= MOST
        assert decision.replicas <= max(len(members) + max(room, 0), MOST)
        if sample is None and len(members) <= MOST:
            assert decision.replicas >= len(members), "figures are missing, and a replica goes"
        if decision.replicas > len(members):
            self.world.do(self.world.add("A", 1))
        elif decision.replicas < len(members):
            self.world.do(self.world.remove(members[0]))

    @invariant()
    def limits_hold(self) -> None:
        self.world.do(self.world.limits())

    def teardown(self) -> None:
        self.world.do(self.world.settle(), 120)
        self.world.check()


class Faulty(Orderly):
    """Also deaths, addresses that come and go, and replicas that work longer than anybody waits."""

    @rule(count=st.integers(1, 3))
    def slow_requests_come(self, count: int) -> None:
        self.world.do(self.world.ask(count, None, SLOW_MS))

    @rule(pick=PICKS, times=st.integers(1, 6))
    def an_address_flaps(self, pick: int, times: int) -> None:
        self.flap(pick, times, address=True)

    @rule(pick=PICKS, gate=st.booleans())
    def a_replica_dies(self, pick: int, gate: bool) -> None:
        if members := self.world.members:
            self.world.do(self.world.kill(members[pick % len(members)], gate=gate))


class Lossy(Faulty):
    """Also HAProxy and the agent."""

    @rule()
    def haproxy_dies(self) -> None:
        self.world.do(self.world.kill_router())

    @rule()
    def another_agent_takes_over(self) -> None:
        self.world.do(self.world.another_agent())


# Not made smaller: each try costs seconds. The few are always the same ones.
FEW = settings(
    max_examples=2,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
MANY = settings(FEW, max_examples=12, stateful_step_count=30, derandomize=False)


@pytest.fixture
def world(make_bed: Callable[[], Any]) -> Iterator[World]:
    world = World(make_bed())
    try:
        yield world
    finally:
        world.close()


def test_nothing_is_lost_that_was_promised(world: World) -> None:
    run_state_machine_as_test(lambda: Faulty(world), settings=FEW)


@pytest.mark.long
def test_changes_fail_no_request(world: World) -> None:
    run_state_machine_as_test(lambda: Orderly(world), settings=MANY)


@pytest.mark.long
def test_deaths_cost_what_they_must(world: World) -> None:
    run_state_machine_as_test(lambda: Faulty(world), settings=MANY)


@pytest.mark.long
def test_a_lost_router_comes_back(world: World) -> None:
    run_state_machine_as_test(lambda: Lossy(world), settings=MANY)
