"""Bounds of AKS's cluster autoscaler (aks-rules 9)."""

from collections.abc import Iterator

from aks_inference.cluster_rules.model import Cluster, Pool
from aks_inference.cluster_rules.pools import MOST_PER_POOL
from aks_inference.cluster_rules.rulebook import RuleFinding, error

_DOC = "Doc cluster-autoscaler.md; Spec 2025-09-01"
BOUNDS = error("9a", "both bounds, in order, within the pool's limits", _DOC)
ONLY_WITH = error("9b", "bounds only with the autoscaler", _DOC)
PROVISIONING = error("9c", "not with node auto-provisioning", _DOC)
COUNT = error("9d", "the first number of nodes lies between the bounds", _DOC)


def check_autoscaling(cluster: Cluster) -> Iterator[RuleFinding]:
    """All of section 9."""
    for pool in cluster.pools:
        yield from _pool(pool)
        if pool.autoscale and cluster.node_provisioning == "Auto":
            yield PROVISIONING.broken(
                (*pool.path, "autoscale"),
                True,
                'does not go with @node_provisioning "Auto", which scales nodes itself',
                "turn off one of them",
            )


def _pool(pool: Pool) -> Iterator[RuleFinding]:
    low, high = pool.min_count, pool.max_count
    if not pool.autoscale:
        for name, value in (("min_count", low), ("max_count", high)):
            if value is not None:
                yield ONLY_WITH.broken(
                    (*pool.path, name), value, "goes only with @autoscale, which is off", "turn it on, or use @count"
                )
        return
    for name, value in (("min_count", low), ("max_count", high)):
        if value is None:
            yield BOUNDS.broken((*pool.path, name), None, "is needed with @autoscale", "give @min_count and @max_count")
    if low is None or high is None:
        return
    least = 1 if pool.mode == "System" else 0
    if low < least:
        yield BOUNDS.broken(
            (*pool.path, "min_count"), low, f"a {pool.mode.lower()} pool has at least {least} nodes", f"use {least}"
        )
    if not 1 <= high <= MOST_PER_POOL:
        yield BOUNDS.broken(
            (*pool.path, "max_count"),
            high,
            f"must be from 1 to {MOST_PER_POOL:,}",
            f"use {1 if high < 1 else MOST_PER_POOL}",
        )
    if low > high:
        yield BOUNDS.broken(
            (*pool.path, "min_count"),
            low,
            f"is more than @max_count {high}",
            f"use @min_count {high}, or @max_count {low}",
        )
    elif not low <= pool.count <= high:
        yield COUNT.broken(
            (*pool.path, "count"),
            pool.count,
            f"lies outside @min_count {low} and @max_count {high}",
            f"use {min(max(pool.count, low), high)}, or leave it out",
        )
