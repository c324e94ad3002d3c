"""Replicas by need. Pure: the clock and the figures come in, a decision and the next memory go out.

Up as soon as the need of the last second asks for it; down only to the highest need of the whole scale-down delay
(source: Azure ML's router: adding is eager, about a second; removing is conservative, about a minute).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

UP_WINDOW_S = 1.0
"""Need is averaged over this long: one burst of a few milliseconds starts nothing."""
GAP_S = 5.0
"""The longest silence (lost figures, a machine that slept) that still tells something of the need; see `gap_s`."""
_BUCKET_S = 1.0


@dataclass(frozen=True)
class Rules:
    """How a version may be scaled."""

    minimum: int
    maximum: int
    target: float
    """Utilization to aim at, 0 < target <= 1."""
    max_concurrent: int
    """Requests at once on one replica."""
    scale_down_delay_s: float


class Load(NamedTuple):
    """Requests at replicas and in the queue, now."""

    busy: int
    queued: int


class Sample(NamedTuple):
    """A load and when it was seen (seconds of a clock that need not be the wall's)."""

    at: float
    load: Load


class Peak(NamedTuple):
    """The highest need within one second."""

    at: float
    need: int


class Memory(NamedTuple):
    """What the next decision needs of the past."""

    samples: tuple[Sample, ...] = ()
    peaks: tuple[Peak, ...] = ()
    since: float | None = None
    """From when on the past is known without a gap."""
    total: int = 0
    """Requests in all samples together: what a sum over them would say, without one for each look."""


class Decision(NamedTuple):
    """How many replicas, and why."""

    replicas: int
    reason: str


def needed(load: float, rules: Rules) -> int:
    """Replicas that serve this many requests at once at the target utilization."""
    # The tolerance keeps 0.7 / (0.1 × 7) at 1: a rounding error is no reason for a replica.
    return math.ceil(load / (rules.target * rules.max_concurrent) - 1e-9)


def utilization(load: Load, ready: int, max_concurrent: int) -> float:
    """Percent of the ready replicas' slots that are asked for; above 100 with a queue. No replica: 0 without load."""
    slots = ready * max_concurrent
    if slots == 0:
        return 100.0 if load.busy + load.queued else 0.0
    return 100.0 * (load.busy + load.queued) / slots


def gap_s(rules: Rules) -> float:
    """After a longer silence the scale-down delay begins anew: most of a short delay would have gone by unseen."""
    return max(UP_WINDOW_S, min(GAP_S, rules.scale_down_delay_s / 2))


def observe(memory: Memory, now: float, load: Load | None, rules: Rules) -> Memory:
    """Adds a sample. Lost figures (None) add nothing; a clock that ran back or a long gap forgets the past."""
    if memory.samples and _unknown_since(memory.samples[-1].at, now, rules):
        memory = Memory()
    if load is None:
        return memory
    # Ten times a second for each of a thousand versions: what is old stands in front, nothing else is looked at.
    samples, peaks, since, total = memory
    old = 0
    for at, (busy, queued) in samples:
        if at > now - UP_WINDOW_S:
            break
        old += 1
        total -= busy + queued
    samples = (*samples[old:], Sample(now, load))
    total += load.busy + load.queued
    need = needed(total / len(samples), rules)
    if peaks and peaks[0].at < now - rules.scale_down_delay_s - _BUCKET_S:
        peaks = tuple(p for p in peaks if p.at >= now - rules.scale_down_delay_s - _BUCKET_S)
    if not peaks or now - peaks[-1].at >= _BUCKET_S:
        peaks = (*_above(peaks, need), Peak(now, need))
    elif need > peaks[-1].need:
        peaks = (*_above(peaks[:-1], need), Peak(peaks[-1].at, need))
    return Memory(samples, peaks, now if since is None else since, total)


def _above(peaks: tuple[Peak, ...], need: int) -> tuple[Peak, ...]:
    """Without those that a newer one of this need makes of no use: it is remembered longer, and is as high."""
    count = len(peaks)
    while count and peaks[count - 1].need <= need:
        count -= 1
    return peaks[:count]


def stays(memory: Memory, now: float, current: int, rules: Rules) -> bool:
    """Whether `decide` surely says `current`, whatever the room: without its words, and with a look at few peaks."""
    if not rules.minimum <= current <= rules.maximum or current == 0 or not memory.samples:
        return False
    if _unknown_since(memory.samples[-1].at, now, rules):
        return True
    need = needed(_mean(memory), rules)
    if need >= current or rules.minimum == current:
        return need <= current
    # Mostly one of the newest.
    return any(peak.need >= current for peak in reversed(memory.peaks))


def decide(memory: Memory, now: float, current: int, rules: Rules, room: int, *, starts: bool = False) -> Decision:
    """How many replicas there should be.

    Args:
        memory: Required. With the newest sample observed.
        now: Required. Seconds of the same clock.
        current: Required. Replicas that are wanted at present.
        rules: Required. Bounds and target.
        room: Required. Further replicas that fit (0 or more); the minimum is asked for all the same, and the first one.
        starts: Optional. Whether none of them was ready yet: the last one then stays, or a start that takes longer than
            the scale-down delay would never come to its end. Default: false.
    """
    bounded = min(max(current, rules.minimum), rules.maximum)
    if bounded != current:
        return Decision(bounded, f"{current} is outside of {rules.minimum}..{rules.maximum}")
    if not memory.samples or _unknown_since(memory.samples[-1].at, now, rules):
        return Decision(current, "no figures: held")
    mean = _mean(memory)
    need = needed(mean, rules)
    if current == 0 and memory.samples[-1].load.queued > 0:
        need = max(need, 1)
    if need > current:
        if current > 0 and now - memory.samples[0].at < UP_WINDOW_S / 2:
            return Decision(current, f"{_load(mean, rules)}: {need} needed; looks twice")
        return _up(need, mean, current, rules, room)
    lowest = max([need, rules.minimum, *(p.need for p in memory.peaks)])
    last = starts and lowest == 0
    if max(lowest, last) >= current:
        why = "; the last one stays until it was ready" if last else ""
        return Decision(current, f"{_load(mean, rules)}: {need} needed{why}")
    if now - memory.samples[-1].at > UP_WINDOW_S:
        return Decision(current, "no figures now: none goes")
    if memory.since is None or now - memory.since < rules.scale_down_delay_s:
        return Decision(
            current, f"{_load(mean, rules)}: {need} needed; waits {rules.scale_down_delay_s:g} s to be sure"
        )
    lowest = max(lowest, last)
    return Decision(lowest, f"no more than {lowest} were needed for {rules.scale_down_delay_s:g} s")


def _unknown_since(last: float, now: float, rules: Rules) -> bool:
    # No gap is shorter than the window: mostly that is all there is to look at.
    return now < last or (now - last > UP_WINDOW_S and now - last > gap_s(rules))


def _up(need: int, mean: float, current: int, rules: Rules, room: int) -> Decision:
    reason = f"{_load(mean, rules)}: {need} needed"
    wanted = min(need, rules.maximum)
    if wanted < need:
        reason += f", the maximum is {rules.maximum}"
    # A pool without nodes gets one for a pod that waits, and for nothing else: the first is asked for in any case.
    most = current + max(room, 0 if current else 1)
    if wanted > most:
        wanted = most
        reason += f", room is for {wanted}"
    return Decision(wanted, reason)


def _mean(memory: Memory) -> float:
    return memory.total / len(memory.samples)


def _load(mean: float, rules: Rules) -> str:
    return f"{mean:.1f} requests at once, {rules.target * 100:g} % of {rules.max_concurrent} per replica"
