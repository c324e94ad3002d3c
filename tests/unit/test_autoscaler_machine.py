"""The autoscaler in any order of loads, silence, jumps of the clock, changes of the leader, of the room and of other
writers: bounds, room, nothing taken away on missing figures or without the whole delay.
"""

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aks_inference_runtime.autoscaler.controller import SAMPLE_S, Autoscaler, ScalingTarget
from aks_inference_runtime.autoscaler.policy import Decision, Rules, needed
from aks_inference_runtime.router.model import VersionKey, VersionLoad

KEYS = (VersionKey("a", "blue"), VersionKey("b", "blue"))
KEY = st.sampled_from(KEYS)
DELAY_S = 3.0
REFRESH_S = 0.5


class Scaling(RuleBasedStateMachine):
    """Two candidates, one of which leads; two versions that share the room."""

    @initialize(
        lows=st.tuples(st.integers(0, 2), st.integers(1, 3)),
        more=st.tuples(st.integers(0, 8), st.integers(0, 8)),
        caps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        places=st.integers(4, 24),
    )
    def begin(self, lows: tuple[int, int], more: tuple[int, int], caps: tuple[int, int], places: int) -> None:
        self.now = 100.0
        self.places = places
        self.leader = 0
        self.rules = {
            key: Rules(low, low + extra, 0.7, cap, DELAY_S)
            for key, low, extra, cap in zip(KEYS, lows, more, caps, strict=True)
        }
        self.replicas = {key: rules.minimum for key, rules in self.rules.items()}
        self.loads: dict[VersionKey, VersionLoad] = {key: VersionLoad() for key in KEYS}
        self.seen: dict[VersionKey, list[tuple[float, int | None]]] = {key: [] for key in KEYS}
        """When, and what the figures asked for (None: there were none), since the clock or the leader changed."""
        self.candidates = [Autoscaler(self, _Candidate(self, number), lambda: self.now) for number in range(2)]

    # --- what the autoscaler sees

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        return self.loads

    def room(self) -> int:
        return max(0, self.places - sum(self.replicas.values()))

    def scale(self, key: VersionKey, decision: Decision) -> None:
        before, rules = self.replicas[key], self.rules[key]
        wanted = self.replicas[key] = decision.replicas
        assert rules.minimum <= wanted <= rules.maximum or wanted == before, f"{wanted} is out of bounds: {decision}"
        if wanted > max(before, rules.minimum) and (before, wanted) != (0, 1):
            assert sum(self.replicas.values()) <= self.places, f"more than there is room for: {decision}"
        if wanted < min(before, rules.maximum):
            past = [(at, need) for at, need in self.seen[key] if at > self.now - DELAY_S + SAMPLE_S]
            assert self.seen[key], f"down without a past: {decision}"
            assert self.seen[key][0][0] <= self.now - DELAY_S + SAMPLE_S, f"down too early: {decision}"
            needs = [need for _, need in past if need is not None]
            assert needs, f"down on missing figures: {decision}"
            known = [self.now - DELAY_S, *(at for at, need in past if need is not None), self.now]
            assert max(b - a for a, b in pairwise(known)) <= DELAY_S / 2 + 2 * SAMPLE_S, f"half unseen: {decision}"
            # The policy's need is a mean over a second, so never above the highest and never below the lowest.
            assert wanted >= min(needs), f"{wanted} is below all that was needed: {needs}"

    # --- what happens

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.now += SAMPLE_S
            for key, rules in self.rules.items():
                load = self.loads.get(key)
                self.seen[key].append((self.now, None if load is None else needed(load.busy + load.queued, rules)))
            for candidate in self.candidates:
                candidate.step()

    @rule(key=KEY, busy=st.integers(0, 12), queued=st.integers(0, 30))
    def the_load_changes(self, key: VersionKey, busy: int, queued: int) -> None:
        self.loads[key] = VersionLoad(busy=busy, queued=queued)

    @rule(key=KEY)
    def the_figures_are_lost(self, key: VersionKey) -> None:
        self.loads.pop(key, None)

    @rule(count=st.integers(1, 50))
    def time_goes_on(self, count: int) -> None:
        self.rounds(count)

    @rule(key=KEY, count=st.integers(2, 20))
    def the_figures_flap(self, key: VersionKey, count: int) -> None:
        for number in range(count):
            if number % 2:
                self.loads.pop(key, None)
            else:
                self.loads[key] = VersionLoad(busy=number % 5)
            self.rounds(1)

    @rule(jump=st.sampled_from([-3_600.0, -1.0, 6.0, 86_400.0]))
    def the_clock_jumps(self, jump: float) -> None:
        self.now += jump
        self.seen = {key: [] for key in KEYS}
        # One after the other may add up to a short silence, which is none.
        self.rounds(1)

    @rule()
    def another_one_leads(self) -> None:
        self.leader = 1 - self.leader
        self.seen = {key: [] for key in KEYS}
        self.rounds(1)

    @rule(places=st.integers(0, 24))
    def nodes_come_and_go(self, places: int) -> None:
        self.places = places

    @rule(key=KEY, replicas=st.integers(0, 14))
    def somebody_else_scales(self, key: VersionKey, replicas: int) -> None:
        self.replicas[key] = replicas

    @rule(key=KEY, low=st.integers(0, 4), more=st.integers(0, 8))
    def other_bounds_are_declared(self, key: VersionKey, low: int, more: int) -> None:
        cap = self.rules[key].max_concurrent
        self.rules[key] = Rules(low, low + more, 0.7, cap, DELAY_S)

    @invariant()
    def nothing_is_left_of_versions_that_are_gone(self) -> None:
        if hasattr(self, "candidates"):
            assert set(self.replicas) == set(KEYS)

    def teardown(self) -> None:
        """A steady load: what it needs, within the bounds and the room, and then nothing moves."""
        if not hasattr(self, "candidates"):
            return
        self.places = 1_000
        for key in KEYS:
            self.loads[key] = VersionLoad(busy=3)
        self.rounds(100)
        for key, rules in self.rules.items():
            wanted = min(max(needed(3, rules), rules.minimum), rules.maximum)
            assert self.replicas[key] == wanted, f"{key}: {self.replicas[key]}, not {wanted}"


class _Candidate:
    """What one of the two may scale: nothing while the other one leads."""

    def __init__(self, world: Scaling, number: int) -> None:
        self.world, self.number = world, number

    def targets(self) -> Mapping[VersionKey, ScalingTarget]:
        world = self.world
        if world.leader != self.number:
            return {}
        return {key: ScalingTarget(world.replicas[key], world.rules[key], REFRESH_S, world.room) for key in KEYS}

    def scale(self, key: VersionKey, decision: Decision) -> None:
        assert self.world.leader == self.number, "scaled by one that does not lead"
        self.world.scale(key, decision)


FEW = settings(max_examples=40, stateful_step_count=25, deadline=None)


class TestScaling(Scaling.TestCase):
    """The usual run."""

    settings = FEW


@pytest.mark.long
class TestScalingForLong(Scaling.TestCase):
    """The same, more of it."""

    settings = settings(FEW, max_examples=400, stateful_step_count=50)
