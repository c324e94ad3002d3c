"""The controller over stand-ins of its two protocols."""

import asyncio
from collections.abc import Mapping

import pytest

from aks_inference_runtime.autoscaler.controller import Autoscaler, ScalingTarget
from aks_inference_runtime.autoscaler.policy import Decision, Rules
from aks_inference_runtime.router.model import VersionKey, VersionLoad

A, B = VersionKey("svc", "a"), VersionKey("svc", "b")


class World:
    """Both protocols and the clock."""

    def __init__(self) -> None:
        self.now = 10.0
        self.loads: dict[VersionKey, VersionLoad] = {}
        self.replicas = {A: 1, B: 2}
        self.places = 20
        self.rules = {A: Rules(1, 5, 0.7, 1, 3), B: Rules(1, 5, 0.7, 1, 3)}
        self.reasons: dict[VersionKey, list[str]] = {A: [], B: []}
        self.autoscaler = Autoscaler(self, self, lambda: self.now)

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        return self.loads

    def targets(self) -> Mapping[VersionKey, ScalingTarget]:
        return {key: ScalingTarget(n, self.rules[key], 1, self.room) for key, n in self.replicas.items()}

    def room(self) -> int:
        return self.places - sum(self.replicas.values())

    def scale(self, key: VersionKey, decision: Decision) -> None:
        self.replicas[key] = decision.replicas
        self.reasons[key].append(decision.reason)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.autoscaler.step()


def test_each_version_by_its_own_load() -> None:
    world = World()
    world.loads = {A: VersionLoad(busy=1, queued=1, ready_replicas=1), B: VersionLoad(ready_replicas=2)}
    world.run(1.5)
    assert world.replicas == {A: 3, B: 2}
    world.run(4)
    assert world.replicas == {A: 3, B: 1}


@pytest.mark.parametrize("places", [3, 4, 5, 7])
def test_versions_that_grow_in_one_round_share_the_room(places: int) -> None:
    world = World()
    world.places = places
    world.loads = {key: VersionLoad(busy=1, queued=9) for key in (A, B)}
    world.run(1.5)
    assert sum(world.replicas.values()) == places
    assert "room is for" in world.reasons[B][-1]


def test_a_version_without_figures_is_held() -> None:
    world = World()
    world.loads = {A: VersionLoad(busy=1, queued=1)}
    world.run(20)
    assert world.replicas[B] == 2
    assert set(world.reasons[B]) == {"no figures: held"}


def test_decides_once_per_refresh_interval() -> None:
    world = World()
    world.run(5)
    assert 5 <= len(world.reasons[A]) <= 6


def test_a_version_that_went_and_came_back_starts_without_a_past() -> None:
    world = World()
    world.loads = {A: VersionLoad(), B: VersionLoad()}
    world.run(2.5)
    gone = world.replicas.pop(B)
    world.run(2.5)
    world.replicas[B] = gone
    world.run(2.5)
    assert world.replicas[B] == 2, "3 s of lower need have not been seen since"


async def test_a_failing_round_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:

    world = World()
    rounds = []

    class Broken:
        def load(self) -> Mapping[VersionKey, VersionLoad]:
            rounds.append(1)
            raise RuntimeError("no figures today")

    task = asyncio.create_task(Autoscaler(Broken(), world).run())
    async with asyncio.timeout(5):
        while len(rounds) < 3:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.replicas == {A: 1, B: 2}
    assert "no figures today" in caplog.text
