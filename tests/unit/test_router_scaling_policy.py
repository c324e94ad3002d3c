"""The routers' own scaling, with a clock and a world of the test's own."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference_runtime.api.kubernetes import router_lanes
from aks_inference_runtime.autoscaler.routers import (
    GAP_S,
    NO_ROOM,
    Decision,
    Figures,
    Memory,
    Present,
    Room,
    RouterRules,
    Size,
    routing_ms,
    smaller,
    step,
)

RULES = RouterRules(least=Size(3, 250), most=Size(8, 2000), threshold_ms=3, down_delay_s=300)
WIDE = replace(RULES, most=Size(8, 8_000))
AMPLE = Room(100, 64_000)
QUICK, SLOW = Figures(0.4, 0.05, 0.02), Figures(9, 2.0, 0.5)
SATURATED = SLOW._replace(busiest=0.9)
"""Its one thread has no more to give."""


class World:
    """Time, routers and memory."""

    def __init__(
        self, rules: RouterRules = RULES, size: Size = RULES.least, room: Room = AMPLE, pace_s: float = 0.5
    ) -> None:
        self.rules, self.size, self.room, self.pace_s, self.now = rules, size, room, pace_s, 1_000.0
        self.memory = Memory()
        self.last = Decision(size, "")
        self.history: list[Size] = [size]

    def look(self, heard: list[Figures], ready: int | None = None) -> None:
        self.now += self.pace_s
        there = self.size.pods if ready is None else ready
        present = Present(self.size, there, heard, [f"router-{n}" for n in range(len(heard), there)])
        self.memory, self.last = step(self.memory, self.now, present, self.rules, self.room)
        self.size = self.last.size
        if self.size != self.history[-1]:
            self.history.append(self.size)

    def run(self, seconds: float, figures: Figures | None, ready: int | None = None) -> None:
        for _ in range(round(seconds * 2)):
            there = self.size.pods if ready is None else ready
            self.look([] if figures is None else [figures] * there, ready)


def test_first_cores_then_pods_one_after_the_other() -> None:
    world = World()
    world.run(9, SLOW)
    assert world.size == Size(3, 250), "a burst of less than ten seconds starts nothing"
    world.run(120, SLOW)
    assert world.history[:6] == [Size(3, 250), Size(3, 500), Size(3, 1000), Size(3, 2000), Size(4, 2000), Size(5, 2000)]
    assert world.size == Size(8, 2000)
    assert "the maximum is 8 pods of 2 cores" in world.last.reason


@pytest.mark.parametrize(
    ("size", "rules", "room", "expected"),
    [
        (Size(3, 250), RULES, AMPLE, Size(4, 250)),
        (Size(3, 1000), RULES, AMPLE, Size(4, 1000)),
        # With four cores another lane comes.
        (Size(3, 2000), WIDE, AMPLE, Size(3, 4000)),
        (Size(3, 1000), WIDE, AMPLE, Size(4, 1000)),
        # Where there can be no more pods, cores are all that is left.
        (Size(8, 1000), WIDE, AMPLE, Size(8, 2000)),
        (Size(3, 1000), WIDE, Room(0, 64_000), Size(3, 2000)),
    ],
)
def test_a_full_thread_gets_another_one_beside_it(size: Size, rules: RouterRules, room: Room, expected: Size) -> None:
    world = World(rules, size=size, room=room)
    world.run(12, SATURATED)
    assert world.size == expected


def test_pods_that_do_not_use_their_cores_get_no_more_of_them() -> None:
    world = World()
    world.run(12, Figures(9, 0.1, 0.05))
    assert world.history == [Size(3, 250), Size(4, 250)]
    assert "routing takes 9 ms, more than 3; looks for 10 s" in world.last.reason


@pytest.mark.parametrize(
    ("room", "expected", "said"),
    [
        (Room(100, 250), Size(4, 250), ""),
        (Room(0, 64_000), Size(3, 500), ""),
        (Room(100, 0), Size(4, 250), ""),
        (NO_ROOM, Size(3, 250), "more than 3 for 10 s; room is for 3 pods of 0.25 cores"),
        (Room(0, 499), Size(3, 250), "no room for 0.5 cores each"),
    ],
)
def test_only_what_the_nodes_hold(room: Room, expected: Size, said: str) -> None:
    world = World(room=room)
    world.run(12, SLOW)
    assert world.size == expected
    assert said in world.last.reason


def test_down_by_cpu_first_cores_then_pods() -> None:
    world = World(size=Size(5, 1000))
    world.run(299, QUICK)
    assert world.size == Size(5, 1000)
    world.run(4 * 301, QUICK)
    assert world.history == [Size(5, 1000), Size(5, 500), Size(5, 250), Size(4, 250), Size(3, 250)]
    world.run(600, QUICK)
    assert world.size == Size(3, 250), "the minimum"


@pytest.mark.parametrize(
    ("size", "figures"),
    [
        (Size(4, 1000), Figures(0.5, 0.26, 0.1)),  # half of 500 is used
        (Size(4, 250), Figures(0.5, 0.1, 0.4)),  # 4 × 0.4 on three: more than half of their one thread
        (Size(4, 250), Figures(0.5, 0.2, 0.1)),  # 4 × 0.2 on three: more than they ask for
        (Size(4, 250), Figures(1.6, 0.1, 0.1)),  # more than half of the threshold
    ],
)
def test_less_would_not_do(size: Size, figures: Figures) -> None:
    world = World(size=size)
    world.run(1_000, figures)
    assert world.history == [size]


def test_lost_figures_hold() -> None:
    world = World(size=Size(5, 1000))
    world.run(290, QUICK)
    world.run(60, None)
    assert world.last.reason == "no figures of router-0, router-1, router-2 and 2 more: held"
    world.run(290, QUICK)
    assert world.size == Size(5, 1000), "the evidence begins anew"
    world.run(20, QUICK)
    assert world.size == Size(5, 500)
    one_short = World(size=Size(5, 1000))
    for _ in range(1_000):
        one_short.look([QUICK] * 4, ready=5)
    assert one_short.size == Size(5, 1000), "a router that is not heard may be the busy one"
    slow = World()
    for _ in range(1_000):
        slow.look([SLOW] * 2, ready=3)
    assert slow.size == Size(3, 250)


def test_figures_that_stay_away_are_told_with_who_is_not_heard() -> None:
    world = World()
    world.run(1, QUICK)
    for _ in range(6):
        world.look([QUICK] * 2, ready=3)
    assert world.last == Decision(Size(3, 250), "no figures of router-2: held"), "it may have just come"
    for _ in range(6):
        world.look([QUICK] * 2, ready=3)
    assert world.last.held == "no figures of router-2"
    world.run(1, QUICK)
    assert world.last.held == ""
    world.run(6, QUICK, ready=0)
    assert world.last.held == "no router is ready"
    world.run(1, QUICK)
    world.now -= 3_600
    world.run(6, None)
    world.now -= 3_600
    world.run(6, None)
    assert world.last.held == "no figures of router-0, router-1, router-2"


def test_a_pod_that_is_still_to_come_is_waited_for() -> None:
    world = World(size=Size(4, 2000))
    world.run(100, SLOW, ready=3)
    assert world.size == Size(4, 2000)
    assert world.last.reason.endswith("more than 3 for 10 s; waits for 1 pod that is not ready")
    assert world.last.held == "waits for 1 pod that is not ready"
    world.run(9, SLOW)
    assert world.size == Size(4, 2000), "what it brings is seen first"
    assert "looks for 10 s at all pods together" in world.last.reason
    assert world.last.held == ""
    world.run(3, SLOW)
    assert world.size == Size(5, 2000)
    # One that never comes does not keep the rest from shrinking.
    world = World(size=Size(4, 250))
    world.run(301, QUICK, ready=3)
    assert world.size == Size(3, 250)


def test_those_that_serve_get_more_cores_while_others_cannot_come() -> None:
    world = World(size=Size(5, 500))
    world.run(9, SLOW, ready=3)
    assert world.size == Size(5, 500)
    world.run(40, SLOW, ready=3)
    assert world.history == [Size(5, 500), Size(5, 1000), Size(5, 2000)]
    assert world.last.held == "waits for 2 pods that are not ready"
    world = World(size=Size(5, 500), room=Room(9, 500))
    world.run(12, SLOW, ready=3)
    assert world.last.held == "no room for 1 cores each; waits for 2 pods that are not ready"
    world = World(size=Size(5, 500))
    world.run(12, Figures(9, 0.1, 0.9), ready=3)
    assert world.history == [Size(5, 500)], "cores that are not used are no help"


@pytest.mark.parametrize("jump", [-5_000.0, -1.0, GAP_S + 1, 86_400.0])
def test_a_clock_that_jumps_changes_nothing(jump: float) -> None:
    for figures, size in ((QUICK, Size(5, 1000)), (SLOW, Size(3, 250))):
        world = World(size=size)
        world.run(9, figures)
        world.now += jump
        world.run(9, figures)
        assert world.size == size


def test_one_slow_router_owns_too_large_an_endpoint() -> None:
    assert routing_ms([QUICK, QUICK, SLOW]) == QUICK.routing_ms
    world = World()
    for _ in range(200):
        world.look([QUICK, QUICK, SLOW])
    assert world.size == Size(3, 250)


def test_fixed_routers_stay_whatever_happens() -> None:
    """DevTest."""
    world = World(RouterRules(Size(1, 250), Size(1, 250), 3, 300), Size(1, 250))
    for figures in (SLOW, None, QUICK):
        world.run(700, figures)
    assert world.history == [Size(1, 250)]
    assert "do not scale themselves" in world.last.reason


def test_new_bounds_are_obeyed_at_once() -> None:
    world = World(size=Size(1, 250))
    world.look([])
    assert world.size == Size(3, 250), "a Deployment that was just made has one pod"
    world = World(size=Size(12, 4000))
    world.look([])
    assert world.size == RULES.most


def test_a_size_that_was_too_small_is_not_soon_tried_again() -> None:
    world = World(size=Size(4, 250))
    waits = []
    for _ in range(5):
        began = world.now
        while world.size.pods == 4 and world.now - began < 20_000:
            world.look([QUICK] * world.size.pods)
        waits.append(world.now - began)
        while world.size.pods == 3:
            world.look([Figures(9, 0.1, 0.1)] * world.size.pods)
    assert [round(wait / 300) for wait in waits] == [1, 2, 4, 8, 8]


# --- any load


def figures_of(demand: float, size: Size, contended: bool) -> Figures:
    """A router's pods under a load of so many HAProxy seconds a second; two processes share a lane's."""
    each = demand / size.pods
    wanted, busiest = each + 0.05, min(1.0, each * 0.6 / router_lanes(size.cpu_m))
    granted = size.cpu_m / 1000 if contended else 16.0
    if wanted > granted or busiest >= 0.95:
        return Figures(40, min(wanted, granted), min(busiest, granted))
    return Figures(0.3 / (1 - busiest), wanted, busiest)


sizes = st.builds(Size, st.integers(3, 8), st.sampled_from([250, 500, 1000, 2000, 4000, 8000]))


@pytest.mark.parametrize("most", [2_000, 8_000])
@settings(max_examples=15, deadline=None)
@given(sizes, st.floats(0, 60), st.booleans(), st.builds(Room, st.integers(0, 3), st.integers(0, 10_000)))
def test_a_constant_load_never_swings(most: int, size: Size, demand: float, contended: bool, room: Room) -> None:
    rules = replace(WIDE, most=Size(8, most))
    world = World(rules, size=size._replace(cpu_m=min(size.cpu_m, most)), room=room, pace_s=4)
    for _ in range(1_500):
        world.look([figures_of(demand, world.size, contended)] * world.size.pods)
    ups = [after > before for before, after in pairwise(world.history)]
    assert ups in ([True] * len(ups), [False] * len(ups)), world.history
    assert all(rules.least.pods <= s.pods <= rules.most.pods for s in world.history)
    assert all(rules.least.cpu_m <= s.cpu_m <= rules.most.cpu_m for s in world.history)


phases = st.lists(
    st.tuples(
        st.integers(1, 100),
        st.none() | st.builds(Figures, st.floats(0, 50), st.floats(0, 4), st.floats(0, 1)),
        st.integers(0, 9),
        st.builds(Room, st.integers(0, 2), st.integers(0, 3_000)),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(sizes, phases)
def test_one_bounded_step_at_a_time_and_none_without_room(size: Size, told: Any) -> None:
    world = World(WIDE, size=size, pace_s=4)
    for looks, figures, ready, room in told:
        world.room = room
        for _ in range(looks):
            before = world.size
            world.look([] if figures is None else [figures] * ready, ready)
            after = world.size
            if after != before:
                assert WIDE.least.pods <= after.pods <= WIDE.most.pods
                assert WIDE.least.cpu_m <= after.cpu_m <= WIDE.most.cpu_m
                assert figures is not None, "nothing moves while nothing is known"
                one_pod_more, more_cores = after.pods == before.pods + 1, after.cpu_m > before.cpu_m
                assert one_pod_more or more_cores or after == smaller(before, WIDE)
                assert not one_pod_more or room.pods > 0
                assert not more_cores or room.cpu_m >= after.cpu_m


@given(sizes)
def test_steps_down_end_at_the_minimum(size: Size) -> None:
    for _ in range(12):
        size = smaller(size, RULES)
    assert size == RULES.least
