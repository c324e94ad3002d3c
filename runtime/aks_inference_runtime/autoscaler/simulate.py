"""Replays traffic through the autoscaler itself: the same controller and policy, a clock and replicas of its own.

The queue is the router's: one line, first come first served, with a bound and a deadline. A replica takes its time to
start and serves its requests to the end when it goes.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from aks_inference_runtime.autoscaler.controller import SAMPLE_S, Autoscaler, ScalingTarget
from aks_inference_runtime.autoscaler.policy import Decision, Load, Rules, utilization
from aks_inference_runtime.router.model import VersionKey, VersionLoad

KEY = VersionKey("simulated", "simulated")


@dataclass(frozen=True)
class Service:
    """What is simulated."""

    rules: Rules
    service_s: float
    """Mean time that one request takes a replica."""
    spread: float = 0.2
    """Of that time: its standard deviation, as a part of it (gamma distributed); 0 is always the same."""
    start_s: float = 5.0
    """From the decision until a new replica takes requests."""
    refresh_s: float = 1.0
    max_wait_s: float = 0.5
    cold_wait_s: float = 60.0
    """In place of `max_wait_s` while there is no replica (scaled to zero)."""
    max_queued: int = 1_000
    room: int = 1_000_000
    """Replicas that the nodes hold: further ones are wanted and neither start nor cost anything."""
    replica_cost_per_hour: float = 0.0


@dataclass(frozen=True)
class Second:
    """One second of the outcome."""

    at: int
    requests: int
    rejected: int
    wanted: int
    ready: int
    utilization: float
    """Percent, at its end."""
    queued: int
    cost: float
    """Since the beginning."""


@dataclass(frozen=True)
class Outcome:
    """All of it."""

    seconds: tuple[Second, ...]
    requests: int
    served: int
    queue_full: int
    """429."""
    timed_out: int
    """503."""
    wait_p50_ms: float
    wait_p99_ms: float
    wait_max_ms: float
    replica_hours: float
    cost: float
    most_replicas: int
    changes: int
    """Of the number of replicas."""
    reasons: tuple[tuple[float, str], ...]
    """Each change, when and why."""


class _World:
    """The controller's two protocols over simulated replicas."""

    def __init__(self, service: Service, random: Random) -> None:
        self.service = service
        self.now = 0.0
        self.wanted = max(service.rules.minimum, 0)
        self.ready = min(self.wanted, service.room)
        self.busy = 0
        self.starting: deque[float] = deque()
        self.ends: list[float] = []
        self.queue: dict[int, float] = {}
        """Number → arrival, in the order in which they came."""
        self._deadlines: list[tuple[float, int]] = []
        """As it was when each came: a cold start's patience stays when the replica is there."""
        self._numbers = itertools.count()
        self.waits: list[float] = []
        self.full = self.timed_out = 0
        self.replica_seconds = 0.0
        self.reasons: list[tuple[float, str]] = []
        self._random = random

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        return {KEY: VersionLoad(self.busy, len(self.queue), self.ready)}

    def targets(self) -> Mapping[VersionKey, ScalingTarget]:
        return {
            KEY: ScalingTarget(
                self.wanted,
                self.service.rules,
                self.service.refresh_s,
                lambda: self.service.room - self.wanted,
                ready=self.ready > 0,
                start_s=math.inf,
            )
        }

    def scale(self, key: VersionKey, decision: Decision) -> None:
        if decision.replicas == self.wanted:
            return
        self.reasons.append((round(self.now, 1), f"{self.wanted} → {decision.replicas}: {decision.reason}"))
        placed, fitting = self.ready + len(self.starting), min(decision.replicas, self.service.room)
        for _ in range(fitting - placed):
            self.starting.append(self.now + self.service.start_s)
        for _ in range(placed - fitting):
            if self.starting:
                self.starting.pop()
            else:
                self.ready -= 1
        self.wanted = decision.replicas

    def arrive(self) -> None:
        if self.busy < self._slots and not self.queue:
            self._begin(self.now)
        elif len(self.queue) >= self.service.max_queued:
            self.full += 1
        else:
            number = next(self._numbers)
            self.queue[number] = self.now
            heapq.heappush(self._deadlines, (self.now + self._patience, number))

    def advance(self, to: float) -> None:
        """Everything that happens until then."""
        while True:
            following = min(
                self.ends[0] if self.ends else to,
                self.starting[0] if self.starting else to,
                self._deadlines[0][0] if self._deadlines else to,
            )
            if following >= to:
                break
            self._pass(following)
            while self.ends and self.ends[0] <= self.now:
                heapq.heappop(self.ends)
                self.busy -= 1
            while self.starting and self.starting[0] <= self.now:
                self.starting.popleft()
                self.ready += 1
            self._serve()
            while self._deadlines and self._deadlines[0][0] <= self.now:
                _, number = heapq.heappop(self._deadlines)
                self.timed_out += self.queue.pop(number, None) is not None
        self._pass(to)

    @property
    def _slots(self) -> int:
        return self.ready * self.service.rules.max_concurrent

    @property
    def _patience(self) -> float:
        return self.service.max_wait_s if self.ready else self.service.cold_wait_s

    @property
    def cost(self) -> float:
        """So far."""
        return self.replica_seconds / 3_600 * self.service.replica_cost_per_hour

    def _pass(self, to: float) -> None:
        self.replica_seconds += (self.ready + len(self.starting)) * (to - self.now)
        self.now = to

    def _serve(self) -> None:
        while self.queue and self.busy < self._slots:
            self._begin(self.queue.pop(next(iter(self.queue))))

    def _begin(self, arrived: float) -> None:
        self.waits.append(self.now - arrived)
        self.busy += 1
        spread, mean = self.service.spread, self.service.service_s
        time = mean if spread == 0 else self._random.gammavariate(1 / spread**2, mean * spread**2)
        heapq.heappush(self.ends, self.now + time)


def simulate(service: Service, arrivals: Iterable[float], duration_s: float, random: Random) -> Outcome:
    """What becomes of a service under this traffic.

    Args:
        service: Required.
        arrivals: Required. Seconds, growing.
        duration_s: Required.
        random: Required. For the times that requests take.
    """
    world = _World(service, random)
    autoscaler = Autoscaler(world, world, lambda: world.now)
    coming = iter(arrivals)
    following = next(coming, None)
    seconds: list[Second] = []
    came = rejected = 0
    most = world.wanted
    for tick in range(1, round(duration_s / SAMPLE_S) + 1):
        until = tick * SAMPLE_S
        while following is not None and following < until:
            world.advance(following)
            world.arrive()
            came += 1
            following = next(coming, None)
        world.advance(until)
        autoscaler.step()
        most = max(most, world.wanted)
        if tick % round(1 / SAMPLE_S) == 0:
            at = round(until)
            lost = world.full + world.timed_out
            load = Load(world.busy, len(world.queue))
            used = utilization(load, world.ready, service.rules.max_concurrent)
            seen = world.wanted, world.ready, round(used, 1), load.queued, round(world.cost, 4)
            seconds.append(Second(at, came, lost - rejected, *seen))
            came, rejected = 0, lost
    return _outcome(world, tuple(seconds), most)


def _outcome(world: _World, seconds: tuple[Second, ...], most: int) -> Outcome:
    waits = sorted(world.waits)
    hours = world.replica_seconds / 3_600
    return Outcome(
        seconds=seconds,
        requests=sum(second.requests for second in seconds),
        served=len(waits),
        queue_full=world.full,
        timed_out=world.timed_out,
        wait_p50_ms=_percentile(waits, 0.5),
        wait_p99_ms=_percentile(waits, 0.99),
        wait_max_ms=_percentile(waits, 1.0),
        replica_hours=round(hours, 4),
        cost=round(world.cost, 4),
        most_replicas=most,
        changes=len(world.reasons),
        reasons=tuple(world.reasons),
    )


def _percentile(ordered: list[float], part: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1_000, 2)
