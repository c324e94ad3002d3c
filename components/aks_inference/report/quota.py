"""Whether Azure's quota holds what a preview asks for: the usage of a region, as `az vm list-usage` writes it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.cluster_rules.model import Pool
from aks_inference.facts.families import family_of

TOTAL, SPOT = "cores", "lowPriorityCores"
"""Names of Azure's usage: all regular vCPU of a region, and all of spot."""
Plans = Iterable[tuple[ClusterPlan | None, ClusterPlan | None]]


class NotAUsage(ValueError):
    """A file that `az vm list-usage` did not write."""


@dataclass(frozen=True)
class Usage:
    """One line of Azure's usage, vCPU."""

    name: str
    label: str
    in_use: int
    limit: int


@dataclass(frozen=True)
class QuotaEffect:
    """A quota that the preview asks something of, vCPU."""

    label: str
    in_use: int
    further: int
    """What the preview asks for at most beyond what its clusters had at least; a pool of another size stands beside
    the old one for a while."""
    limit: int

    @property
    def missing(self) -> int:
        """How far the limit is too low, at most."""
        return max(0, self.in_use + self.further - self.limit)


def usages_of(content: object) -> list[Usage]:
    """The lines of the file. Raises NotAUsage."""
    if not isinstance(content, list):
        raise NotAUsage("holds no list: write it with `az vm list-usage --location <region> --output json`")
    return [_usage(one) for one in content]


def quota_effects(plans: Plans, usages: Sequence[Usage]) -> tuple[QuotaEffect, ...]:
    """The quotas that are asked for more, in the file's order."""
    further: Counter[str] = Counter()
    for before, after in plans:
        old, new = ({pool.name: pool for pool in plan.cluster.pools} if plan else {} for plan in (before, after))
        for name, pool in new.items():
            there = old.get(name)
            kept = there if there and (there.vm_size, there.spot) == (pool.vm_size, pool.spot) else None
            for quota in _quotas(pool):
                further[quota] += _vcpus(pool, pool.most_nodes) - (_vcpus(kept, kept.least_nodes) if kept else 0)
    return tuple(
        QuotaEffect(one.label, one.in_use, further[one.name.lower()], one.limit)
        for one in usages
        if further[one.name.lower()] > 0
    )


def _quotas(pool: Pool) -> tuple[str, ...]:
    if pool.spot:
        return (SPOT.lower(),)
    family = family_of(pool.vm_size or "")
    return (TOTAL.lower(), *([family.lower()] if family else []))


def _vcpus(pool: Pool, nodes: int) -> int:
    return nodes * pool.size.vcpus if pool.size is not None else 0


def _usage(one: object) -> Usage:
    try:
        given: Mapping[str, Any] = one if isinstance(one, Mapping) else {}
        name = given["name"]
        label = str(name.get("localizedValue") or name["value"])
        return Usage(str(name["value"]), label, int(given["currentValue"]), int(given["limit"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NotAUsage("holds a line without name, currentValue and limit") from None
