"""The policy with a clock of the test's own."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference_runtime.autoscaler.policy import (
    GAP_S,
    UP_WINDOW_S,
    Load,
    Memory,
    Peak,
    Rules,
    decide,
    needed,
    observe,
    stays,
    utilization,
)

RULES = Rules(minimum=1, maximum=10, target=0.7, max_concurrent=1, scale_down_delay_s=60)


class Simulation:
    """Time, replicas and memory; load is given per second or as a function of the replicas."""

    def __init__(self, rules: Rules, replicas: int, room: int = 1_000, at: float = 1_000.0) -> None:
        self.rules, self.replicas, self.room, self.now = rules, replicas, room, at
        self.memory = Memory()
        self.history: list[int] = []
        self.reason = ""

    def run(self, seconds: float, load: Load | None) -> None:
        """Samples every 0.1 s, decides every second."""
        for step in range(round(seconds * 10)):
            self.now += 0.1
            self.memory = observe(self.memory, self.now, load, self.rules)
            if step % 10 == 9:
                decision = decide(self.memory, self.now, self.replicas, self.rules, self.room)
                self.replicas, self.reason = decision.replicas, decision.reason
                self.history.append(self.replicas)


@pytest.mark.parametrize(
    ("load", "target", "max_concurrent", "expected"),
    [
        (0, 0.7, 1, 0),
        (1, 0.7, 1, 2),
        (7, 0.7, 1, 10),
        (0.7, 0.1, 7, 1),
        (200, 0.7, 1, 286),
        (200, 0.7, 4, 72),
        (1, 1, 1, 1),
    ],
)
def test_needed(load: Any, target: float, max_concurrent: int, expected: int) -> None:
    assert needed(load, Rules(1, 10, target, max_concurrent, 60)) == expected


@pytest.mark.parametrize(
    ("busy", "queued", "ready", "cap", "percent"),
    [(0, 0, 0, 1, 0), (0, 3, 0, 1, 100), (1, 0, 2, 1, 50), (4, 4, 2, 2, 200)],
)
def test_utilization(busy: int, queued: int, ready: int, cap: int, percent: float) -> None:
    assert utilization(Load(busy, queued), ready, cap) == percent


def test_up_within_about_a_second() -> None:
    world = Simulation(RULES, 1)
    world.run(3, Load(0, 0))
    world.run(2, Load(1, 4))
    assert world.replicas == 8
    assert "8 needed" in world.reason


def test_down_only_after_the_delay_and_only_to_the_highest_need() -> None:
    world = Simulation(RULES, 1)
    world.run(5, Load(5, 0))
    assert world.replicas == 8
    world.run(30, Load(0, 0))
    assert world.replicas == 8
    world.run(5, Load(2, 0))
    world.run(28, Load(0, 0))
    assert world.replicas == 3, "the need of the last minute"
    world.run(60, Load(0, 0))
    assert world.replicas == 1


def test_a_burst_shorter_than_half_a_window_after_silence_starts_nothing() -> None:
    world = Simulation(RULES, 1)
    memory = observe(Memory(), 1_000.0, Load(1, 30), RULES)
    assert decide(memory, 1_000.0, 1, RULES, 100).replicas == 1
    assert world.replicas == 1


def test_lost_figures_hold() -> None:
    world = Simulation(RULES, 1)
    world.run(5, Load(5, 0))
    world.run(300, None)
    assert world.replicas == 8
    assert "no figures" in world.reason
    world.run(59, Load(0, 0))
    assert world.replicas == 8, "what happened meanwhile is not known: the delay begins anew"
    world.run(5, Load(0, 0))
    assert world.replicas == 1


@pytest.mark.parametrize("jump", [-5_000.0, -1.0, GAP_S + 1, 86_400.0])
def test_a_clock_that_jumps_takes_nothing_away(jump: float) -> None:
    world = Simulation(RULES, 1)
    world.run(5, Load(5, 0))
    world.now += jump
    world.run(50, Load(0, 0))
    assert world.replicas == 8
    world.run(15, Load(0, 0))
    assert world.replicas == 1


@pytest.mark.parametrize(("delay_s", "silent_s"), [(60, 4.5), (6, 2.9), (6, 3.5), (2, 1.5), (0.5, 1.5)])
def test_a_silence_counts_as_seen_up_to_half_of_the_delay(delay_s: float, silent_s: float) -> None:
    rules = Rules(1, 10, 0.7, 1, delay_s)
    memory = observe(Memory(), 50.0, Load(0, 0), rules)
    memory = observe(memory, 50.0 + silent_s, Load(0, 0), rules)
    seen = silent_s <= 5 and silent_s <= max(1, delay_s / 2)
    assert memory.since == (50.0 if seen else 50.0 + silent_s)


def test_a_maximum_of_one_stays_one() -> None:
    world = Simulation(Rules(1, 1, 0.7, 1, 60), 1)
    world.run(10, Load(1, 500))
    assert set(world.history) == {1}


def test_from_zero_with_the_first_waiting_request() -> None:
    rules = Rules(0, 3, 0.7, 1, 5)
    memory = observe(Memory(), 50.0, Load(0, 1), rules)
    assert decide(memory, 50.0, 0, rules, 3).replicas >= 1
    world = Simulation(rules, 1)
    world.run(8, Load(0, 0))
    assert world.replicas == 0


def test_room_bounds_the_way_up_and_says_so() -> None:
    world = Simulation(RULES, 2, room=1)
    world.memory = observe(Memory(), world.now, Load(0, 0), RULES)
    world.run(1, Load(2, 6))
    assert world.replicas == 3
    assert "room is for 3" in world.reason


def test_the_first_replica_is_asked_for_whatever_the_room() -> None:
    """An empty pool gets its first node for a pod that waits."""
    world = Simulation(Rules(0, 10, 0.7, 1, 60), 0, room=0)
    world.run(3, Load(0, 5))
    assert world.replicas == 1
    assert "room is for 1" in world.reason


def test_new_bounds_are_obeyed_at_once() -> None:
    assert decide(Memory(), 0.0, 7, Rules(1, 4, 0.7, 1, 60), 0).replicas == 4
    assert decide(Memory(), 0.0, 1, Rules(3, 4, 0.7, 1, 60), 0).replicas == 3


rules_of_any_kind = st.builds(
    lambda low, more, target, cap, delay: Rules(low, low + more, target, cap, delay),
    st.integers(0, 5),
    st.integers(1, 40),
    st.floats(0.05, 1.0),
    st.integers(1, 8),
    st.floats(0, 20),
)
loads = st.builds(Load, st.integers(0, 60), st.integers(0, 60))


@given(rules_of_any_kind, st.lists(st.tuples(st.integers(1, 4), st.none() | loads), max_size=12), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_never_outside_of_the_bounds(rules: Rules, phases: Any, start: int) -> None:
    world = Simulation(rules, min(max(start, rules.minimum), rules.maximum))
    for seconds, load in phases:
        world.run(seconds, load)
    assert all(rules.minimum <= n <= rules.maximum for n in world.history)


@given(rules_of_any_kind, loads, st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_constant_load_converges_and_then_nothing_moves(rules: Rules, load: Any, start: int) -> None:
    world = Simulation(rules, min(max(start, rules.minimum), rules.maximum))
    world.run(math.ceil(rules.scale_down_delay_s) + 4, load)
    expected = min(max(needed(load.busy + load.queued, rules), rules.minimum), rules.maximum)
    settled = len(world.history)
    world.run(10, load)
    assert set(world.history[settled - 1 :]) == {expected}


@given(st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_a_load_that_comes_and_goes_faster_than_the_delay_causes_no_swinging(low: int, high: int) -> None:
    world = Simulation(Rules(1, 100, 0.7, 1, 20), 1)
    for _ in range(6):
        world.run(4, Load(low, 0))
        world.run(4, Load(high, 0))
    ups_and_downs = [b - a for a, b in pairwise(world.history) if a != b]
    assert all(step > 0 for step in ups_and_downs), "only up while the peak is younger than the delay"


@given(rules_of_any_kind, st.lists(loads, min_size=1, max_size=10), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_never_up_by_more_than_there_is_room_for(rules: Rules, phases: Any, room: int) -> None:
    world = Simulation(rules, rules.minimum, room=room)
    for load in phases:
        before = len(world.history)
        world.run(2, load)
        steps = [rules.minimum, *world.history][before:]
        assert all(b - a <= room or (a, b) == (0, 1) for a, b in pairwise(steps))


@given(
    rules_of_any_kind,
    st.lists(st.tuples(st.integers(0, 80), st.none() | loads), max_size=40),
    st.integers(0, 50),
    st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_what_stays_by_the_short_look_stays_by_the_long_one(rules: Rules, steps: Any, current: int, room: int) -> None:
    memory, now = Memory(), 1_000.0
    for tenths, load in steps:
        now += tenths / 10
        memory = observe(memory, now, load, rules)
        assert memory.total == sum(busy + queued for _, (busy, queued) in memory.samples)
        assert all(sample.at > now - UP_WINDOW_S for sample in memory.samples if load is not None)
    for later in (-1.0, 0.0, 0.3, 1.5, 6.0):
        if stays(memory, now + later, current, rules):
            assert decide(memory, now + later, current, rules, room).replicas == current


@given(st.lists(st.tuples(st.floats(0.1, 4.0), st.integers(0, 12)), min_size=1, max_size=80), st.floats(1.0, 30.0))
def test_few_peaks_say_what_all_would(looks: list[tuple[float, int]], delay_s: float) -> None:
    """As one peak a second did, each kept for the whole delay."""
    rules = Rules(minimum=0, maximum=100, target=1, max_concurrent=1, scale_down_delay_s=delay_s)
    memory, now = Memory(), 1_000.0
    all_of_them: list[Peak] = []
    for pause, load in looks:
        now += pause
        before = memory
        memory = observe(memory, now, Load(load, 0), rules)
        if memory.since != before.since:
            all_of_them = []
        need = needed(memory.total / len(memory.samples), rules)
        all_of_them = [peak for peak in all_of_them if peak.at >= now - delay_s - 1]
        if not all_of_them or now - all_of_them[-1].at >= 1:
            all_of_them.append(Peak(now, need))
        elif need > all_of_them[-1].need:
            all_of_them[-1] = Peak(all_of_them[-1].at, need)
        assert max(peak.need for peak in memory.peaks) == max(peak.need for peak in all_of_them)
        assert [peak.need for peak in memory.peaks] == sorted({peak.need for peak in memory.peaks}, reverse=True)


def test_a_long_delay_keeps_few_peaks() -> None:
    rules = Rules(minimum=0, maximum=10, target=1, max_concurrent=1, scale_down_delay_s=86_400)
    memory = Memory()
    for second in range(5_000):
        memory = observe(memory, float(second), Load(second % 7, 0), rules)
    assert len(memory.peaks) <= 7
