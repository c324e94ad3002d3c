"""Whether pods fit on nodes: first-fit decreasing for what surely fits, a lower bound for what surely does not.

Nodes in the same state are one bin with a count, and the replicas of a service are placed on it at once, so that the
work grows with services and pools, not with pods and nodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from aks_inference.cluster_rules.capacity import Resources


@dataclass(frozen=True)
class Workload:
    """A service, the router or the autoscaler: replicas of one pod."""

    name: str
    each: Resources
    replicas: int
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    """Taints that its pods bear, as `key=value:Effect`, `key:Effect` or `key`."""


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes."""

    name: str
    nodes: int
    each: Resources
    """What a node gives to workloads."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()


class Verdict(StrEnum):
    """What can be said before anything runs."""

    FITS = "fits"
    MAY_NOT_FIT = "may not fit"
    """No placement was found, and none is ruled out."""
    CANNOT_FIT = "cannot fit"


@dataclass(frozen=True)
class Pending:
    """Replicas without a place."""

    name: str
    placed: int
    replicas: int
    reason: str
    """`memory`, `CPU`, `GPU`, `pods per node`, `no node for its selector and taints`."""

    def text(self) -> str:
        """One line."""
        return f"{self.name}: unschedulable at {self.placed} of {self.replicas} replicas: {self.reason}"


@dataclass(frozen=True)
class Packing:
    """The outcome."""

    verdict: Verdict
    pending: tuple[Pending, ...]
    nodes_used: Mapping[str, int]
    """Nodes with at least one pod, by group."""


class _Amounts(NamedTuple):
    """Resources as the inner loop wants them."""

    cpu: int
    memory: int
    gpus: int
    pods: int


@dataclass(slots=True)
class _Bin:
    """Nodes of a group in the same state."""

    group: int
    free: _Amounts
    count: int
    used: bool


_REASONS = ("CPU", "memory", "GPU", "pods per node")


def pack(groups: Sequence[NodeGroup], workloads: Iterable[Workload]) -> Packing:
    """Place the largest pods first, each on the first node that has room (nodes in the order of the groups).

    "fits" means that a placement exists; the scheduler's own, which sees pods in the order of their creation, can
    need a node more. "cannot fit" holds for every scheduler.
    """
    wanted = [workload for workload in workloads if workload.replicas > 0]
    total = _total(groups)
    ordered = sorted(wanted, key=lambda workload: (-_share(workload.each, total), workload.name))
    bins = [_Bin(index, _amounts(group.each), group.nodes, False) for index, group in enumerate(groups) if group.nodes]
    pending = []
    allowed: dict[object, list[bool]] = {}
    for workload in ordered:
        key = (tuple(workload.node_selector.items()), workload.tolerations)
        if key not in allowed:
            allowed[key] = [may_run_on(workload, group) for group in groups]
        placed = _place(workload, allowed[key], bins)
        if placed < workload.replicas:
            pending.append(Pending(workload.name, placed, workload.replicas, _reason(workload, groups, bins)))
    used: dict[str, int] = {}
    for one in bins:
        if one.used:
            used[groups[one.group].name] = used.get(groups[one.group].name, 0) + one.count
    if not pending:
        return Packing(Verdict.FITS, (), used)
    verdict = Verdict.CANNOT_FIT if _ruled_out(groups, wanted) else Verdict.MAY_NOT_FIT
    return Packing(verdict, tuple(pending), used)


def may_run_on(workload: Workload, group: NodeGroup) -> bool:
    """Whether selector and taints allow the group."""
    if any(group.labels.get(key) != value for key, value in workload.node_selector.items()):
        return False
    return all(any(_bears(bearing, taint) for bearing in workload.tolerations) for taint in _hard(group.taints))


def _place(workload: Workload, allowed: Sequence[bool], bins: list[_Bin]) -> int:
    """How many replicas found a place. `allowed`: whether they may run on each group."""
    each, left = _amounts(workload.each), workload.replicas
    index = 0
    while left and index < len(bins):
        one = bins[index]
        # Most nodes are too full: seen without a call.
        room = one.free[0] >= each[0] and one.free[1] >= each[1] and allowed[one.group]
        fit = _fit(one.free, each) if room else 0
        if fit == 0:
            index += 1
            continue
        full, rest = divmod(left, fit)
        if full >= one.count:
            one.free, one.used = _less(one.free, each, fit), True
            left -= fit * one.count
            index += 1
            continue
        split = [_Bin(one.group, _less(one.free, each, fit), full, True)] if full else []
        if rest:
            split.append(_Bin(one.group, _less(one.free, each, rest), 1, True))
        untouched = one.count - full - (1 if rest else 0)
        if untouched:
            split.append(_Bin(one.group, one.free, untouched, one.used))
        bins[index : index + 1] = split
        left = 0
    return workload.replicas - left


def _fit(free: _Amounts, each: _Amounts) -> int:
    """How many of them fit."""
    fit = free.pods // each.pods if each.pods else free.pods
    if each.cpu:
        fit = min(fit, free.cpu // each.cpu)
    if each.memory:
        fit = min(fit, free.memory // each.memory)
    if each.gpus:
        fit = min(fit, free.gpus // each.gpus)
    return fit


def _less(free: _Amounts, each: _Amounts, count: int) -> _Amounts:
    return _Amounts(
        free.cpu - each.cpu * count,
        free.memory - each.memory * count,
        free.gpus - each.gpus * count,
        free.pods - each.pods * count,
    )


def _reason(workload: Workload, groups: Sequence[NodeGroup], bins: list[_Bin]) -> str:
    """What is short on the nodes that are allowed: where one thing alone is missing on some node, that one."""
    each = _amounts(workload.each)
    allowed = [one for one in bins if may_run_on(workload, groups[one.group])]
    if not allowed:
        return "no node for its selector and taints"
    short = [
        [name for name, free, needed in zip(_REASONS, one.free, each, strict=True) if free < needed] for one in allowed
    ]
    fewest = min(short, key=len)
    return " and ".join(fewest)


def _ruled_out(groups: Sequence[NodeGroup], workloads: Sequence[Workload]) -> bool:
    """Whether no placement exists: too few places for one service alone, or too much asked of a set of groups."""
    places = {
        workload.name: frozenset(index for index, group in enumerate(groups) if may_run_on(workload, group))
        for workload in workloads
    }
    for workload in workloads:
        each = _amounts(workload.each)
        room = sum(groups[index].nodes * _fit(_amounts(groups[index].each), each) for index in places[workload.name])
        if room < workload.replicas:
            return True
    for among in set(places.values()):
        have = _total([groups[index] for index in among])
        asked = Resources(pods=0)
        for workload in workloads:
            if places[workload.name] <= among:
                asked = asked.plus(workload.each.times(workload.replicas))
        if any(wants > has for wants, has in zip(_amounts(asked), _amounts(have), strict=True)):
            return True
    return False


def _total(groups: Iterable[NodeGroup]) -> Resources:
    total = Resources(pods=0)
    for group in groups:
        total = total.plus(group.each.times(group.nodes))
    return total


def _share(each: Resources, total: Resources) -> float:
    """The largest part of the cluster that one pod takes, over all resources: what "decreasing" means."""
    pairs = zip(_amounts(each), _amounts(total), strict=True)
    return max((wants / has if has else float(wants > 0) for wants, has in pairs), default=0.0)


def _amounts(resources: Resources) -> _Amounts:
    return _Amounts(resources.cpu_m, resources.memory_mib, resources.gpus, resources.pods)


def _hard(taints: Iterable[str]) -> list[str]:
    return [taint for taint in taints if not taint.endswith(":PreferNoSchedule")]


def _bears(toleration: str, taint: str) -> bool:
    """`sku=gpu:NoSchedule` is borne by itself, by `sku:NoSchedule`, by `sku=gpu` and by `sku`."""
    (key, value, effect), (other_key, other_value, other_effect) = _taint(toleration), _taint(taint)
    return key == other_key and value in {None, other_value} and effect in {None, other_effect}


def _taint(text: str) -> tuple[str, str | None, str | None]:
    front, _, effect = text.partition(":")
    key, equals, value = front.partition("=")
    return key, value if equals else None, effect or None
