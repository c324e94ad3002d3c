"""How many routers, and of how many cores. Pure: the clock and the figures come in, a decision and a memory go out.

Up while routing takes longer than it may: first more cores for each pod, where the pods use what they ask for, then one
pod more. Down by CPU use: first cores, then pods (source: azureml-fe scales itself up, then out, and back by CPU use,
only where the cluster has room). Each step waits until the one before has shown its effect.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aks_inference_runtime.api.kubernetes import router_lanes

UP_DELAY_S = 10.0
"""Routing must have been slow for so long: a burst is over by then, and a pod of a router takes as long to start."""
GAP_S = 5.0
"""A longer silence (lost figures, a machine that slept) tells nothing: all evidence begins anew."""
CALM = 0.5
"""Share of the threshold below which routing is quick enough to have less."""
SPARE = 0.5
"""What is left after a step down may be used by half: the next burst is no reason to go up again."""
FULL = 0.8
"""Pods that use less of the cores they ask for are not slow for want of cores."""
MOST_PATIENCE = 8
"""A size that was too small, again and again, is tried again after eight delays."""
MOST_NAMES = 3
"""Of routers, in a reason."""
REGRET = 2.0
"""Delays after a step down within which going up again shows that it was one too many."""


class Size(NamedTuple):
    """How many router pods, and what each asks for."""

    pods: int
    cpu_m: int
    """Thousandths of a core."""

    def __str__(self) -> str:
        return f"{self.pods} pod{'s' * (self.pods != 1)} of {self.cpu_m / 1000:g} cores"


@dataclass(frozen=True)
class RouterRules:
    """How the routers may be scaled."""

    least: Size
    most: Size
    threshold_ms: float
    """Routing that takes longer is slow."""
    down_delay_s: float
    up_delay_s: float = UP_DELAY_S

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to decide."""
        return self.least == self.most


class Figures(NamedTuple):
    """One router pod, over the last second."""

    routing_ms: float
    """What routing takes at each of its processes on a request's way, without any wait for a replica."""
    cores: float
    """Used by all its processes."""
    busiest: float
    """Of one core, by the HAProxy process that uses most: each has one thread."""


class Present(NamedTuple):
    """What there is."""

    size: Size
    """As wanted now."""
    ready: int
    """Pods that serve."""
    heard: Sequence[Figures]
    """Of those, who told their figures lately."""
    unheard: Sequence[str] = ()
    """Of those, the names of the others."""


class Room(NamedTuple):
    """What the nodes still hold."""

    pods: int
    """Further ones of the present cores."""
    cpu_m: int
    """The most that every pod could ask for where it runs; 0: pods cannot be resized."""


NO_ROOM = Room(0, 0)


class Memory(NamedTuple):
    """What the next decision needs of the past."""

    size: Size | None = None
    at: float | None = None
    """When figures of all were last there."""
    blind_since: float | None = None
    """Since when some are missing."""
    routing_ms: float = 0.0
    slow_since: float | None = None
    short_at: float | None = None
    """When a pod was last still to come."""
    calm_since: float | None = None
    """Since when less would do."""
    down_at: float | None = None
    patience: int = 1


class Decision(NamedTuple):
    """What there should be, and why."""

    size: Size
    reason: str
    held: str = ""
    """What keeps the routers as they are, whatever their load asks for. Empty: nothing does."""


def step(memory: Memory, now: float, present: Present, rules: RouterRules, room: Room) -> tuple[Memory, Decision]:
    """One look at the routers.

    Args:
        memory: Required. From the look before; `Memory()` at first.
        now: Required. Seconds of a clock that need not be the wall's.
        present: Required. Routers and their figures.
        rules: Required. Bounds, threshold and delays.
        room: Required. Only read when `memory.slow_since` is set.
    """
    memory = _observe(memory, now, present, rules)
    decision = _decide(memory, now, present, rules, room)
    if decision.size < present.size or decision.size.cpu_m < present.size.cpu_m:
        return memory._replace(down_at=now), decision
    if decision.size != present.size and memory.slow_since is not None:
        rued = memory.down_at is not None and now - memory.down_at <= REGRET * rules.down_delay_s * memory.patience
        patience = min(MOST_PATIENCE, memory.patience * 2) if rued else 1
        return memory._replace(patience=patience, down_at=None), decision
    return memory, decision


def routing_ms(heard: Sequence[Figures]) -> float:
    """Of the routers together. One slow among quick ones owns an endpoint that is too much for any router: an endpoint
    has one queue, in one router, and more of them would not help it."""
    return statistics.median(one.routing_ms for one in heard)


def smaller(size: Size, rules: RouterRules) -> Size:
    """The next step down: first cores, then pods; the same where there is none."""
    if size.cpu_m > rules.least.cpu_m:
        return Size(size.pods, max(rules.least.cpu_m, size.cpu_m // 2))
    return Size(max(rules.least.pods, size.pods - 1), size.cpu_m)


def _observe(memory: Memory, now: float, present: Present, rules: RouterRules) -> Memory:
    stale = memory.at is None or now < memory.at or now - memory.at > GAP_S
    if stale or memory.size != present.size:
        memory = memory._replace(size=present.size, slow_since=None, short_at=None, calm_since=None)
    if present.ready < present.size.pods:
        memory = memory._replace(short_at=now)
    if not present.heard or len(present.heard) < present.ready:
        return memory._replace(blind_since=_since(memory.blind_since, now))
    took = routing_ms(present.heard)
    slow = took > rules.threshold_ms
    calm = took <= rules.threshold_ms * CALM and _would_do(smaller(present.size, rules), present)
    return memory._replace(
        at=now,
        blind_since=None,
        routing_ms=took,
        slow_since=_since(memory.slow_since, now) if slow else None,
        calm_since=_since(memory.calm_since, now) if calm else None,
    )


def _since(before: float | None, now: float) -> float:
    return now if before is None or before > now else before


def _would_do(less: Size, present: Present) -> bool:
    if less == present.size:
        return False
    if less.cpu_m < present.size.cpu_m:
        return max(one.cores for one in present.heard) * 1000 <= SPARE * less.cpu_m
    # The work of all, on those that stay: with a thread to spare, and within what each asks for.
    left = max(1, min(less.pods, present.ready))
    used_m = 1000 * sum(one.cores for one in present.heard) / left
    return sum(one.busiest for one in present.heard) / left <= SPARE and used_m <= less.cpu_m


def _decide(memory: Memory, now: float, present: Present, rules: RouterRules, room: Room) -> Decision:
    size = present.size
    bounded = Size(*(min(max(one, low), high) for one, low, high in zip(size, rules.least, rules.most, strict=True)))
    if bounded != size:
        return Decision(bounded, f"{size}: outside of {rules.least} to {rules.most}")
    if rules.fixed:
        return Decision(size, "routers do not scale themselves")
    if memory.blind_since is not None:
        why = _unknown(present)
        # A router that has just come has none yet.
        return Decision(size, f"{why}: held", why if now - memory.blind_since > GAP_S else "")
    said = f"routing takes {memory.routing_ms:.2g} ms"
    if memory.slow_since is not None:
        said += f", more than {rules.threshold_ms:g}"
        if now - memory.slow_since < rules.up_delay_s:
            return Decision(size, f"{said}; looks for {rules.up_delay_s:g} s")
        # A pod that is still to come, or has just come, may be all that is missing.
        whole = memory.short_at is None or now - memory.short_at >= rules.up_delay_s
        return _up(f"{said} for {rules.up_delay_s:g} s", present, rules, room, whole=whole)
    less, delay = smaller(size, rules), rules.down_delay_s * memory.patience
    if memory.calm_since is None:
        return Decision(size, said)
    if now - memory.calm_since < delay:
        return Decision(size, f"{said}; less would do, waits {delay:g} s to be sure")
    return Decision(less, f"{said}; less would have done for {delay:g} s")


def _unknown(present: Present) -> str:
    if not present.ready:
        return "no router is ready"
    names = sorted(present.unheard)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"no figures of {', '.join(names[:MOST_NAMES])}{more}"


def _up(said: str, present: Present, rules: RouterRules, room: Room, *, whole: bool) -> Decision:
    """`whole`: all pods have been ready for long enough to show that they do not suffice."""
    size = present.size
    missing = size.pods - present.ready
    used_m = max((one.cores for one in present.heard), default=0.0) * 1000
    more = min(rules.most.cpu_m, size.cpu_m * 2)
    # Where a process has no more of its one thread to give, others beside it have, whatever the pod asks for: those of
    # another lane, or of another pod where more cores bring no lane.
    threads = statistics.median(one.busiest for one in present.heard) >= FULL
    lane = router_lanes(more) > router_lanes(size.cpu_m)
    pod = threads and not lane and missing <= 0 and size.pods < rules.most.pods and room.pods > 0
    using = (threads and lane) or used_m >= FULL * size.cpu_m
    wanting = more > size.cpu_m and using and room.cpu_m > 0 and not pod
    if wanting and room.cpu_m >= more:
        return Decision(Size(size.pods, more), f"{said}; pods use {used_m / 1000:.2f} of {size.cpu_m / 1000:g} cores")
    lacking = f"no room for {more / 1000:g} cores each; " if wanting else ""
    if missing > 0:
        they = "pod that is" if missing == 1 else "pods that are"
        return _held(size, said, f"{lacking}waits for {missing} {they} not ready")
    if size.pods >= rules.most.pods:
        return _held(size, said, f"{lacking}the maximum is {rules.most}")
    if room.pods < 1:
        return _held(size, said, f"{lacking}room is for {size}")
    if not whole:
        return Decision(size, f"{said}; {lacking}looks for {rules.up_delay_s:g} s at all pods together")
    return Decision(Size(size.pods + 1, size.cpu_m), f"{said}; {lacking}".removesuffix("; "))


def _held(size: Size, said: str, why: str) -> Decision:
    return Decision(size, f"{said}; {why}", why)
