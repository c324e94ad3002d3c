"""Bounds and settings of AKS's cluster autoscaler (aks-rules 9)."""

import re
from collections.abc import Iterator

from aks_inference.cluster_rules.model import Cluster, Pool
from aks_inference.cluster_rules.pools import MOST_PER_POOL
from aks_inference.cluster_rules.rulebook import RuleFinding, error
from aks_inference.findings import Severity, did_you_mean

_DOC = "Doc cluster-autoscaler.md; Spec 2025-09-01"
BOUNDS = error("9a", "both bounds, in order, within the pool's limits", _DOC)
ONLY_WITH = error("9b", "bounds only with the autoscaler", _DOC)
PROVISIONING_MODE = error("9f", "node provisioning is Manual or Auto", "Spec 2025-09-01 nodeProvisioningProfile")
PROVISIONING = error("9c", "not with node auto-provisioning", _DOC)
PROFILE = error("9e", "settings of the autoscaler: names and values", _DOC)
COUNT = error("9d", "the first number of nodes lies between the bounds", _DOC)

PROVISIONING_MODES = ("Manual", "Auto")
_TIME = (re.compile(r"[0-9]+(s|m|h)"), "a time such as 10s, 15m or 1h")
_MINUTES = (re.compile(r"[0-9]+m"), "a time in whole minutes, such as 10m")
_SECONDS = (re.compile(r"[0-9]+s?"), "a time in seconds, such as 10s")
_NUMBER = (re.compile(r"[0-9]+"), "a whole number")
_PERCENT = (re.compile(r"[0-9]|[1-9][0-9]|100"), "a percentage from 0 to 100")
_SHARE = (re.compile(r"0(\.[0-9]+)?|1(\.0+)?"), "a share from 0 to 1")
_FLAG = (re.compile(r"true|false"), "true or false")
_EXPANDER = (re.compile(r"least-waste|most-pods|priority|random"), "one of least-waste, most-pods, priority, random")
SETTINGS: dict[str, tuple[re.Pattern[str], str]] = {
    "balance_similar_node_groups": _FLAG,
    "daemonset_eviction_for_empty_nodes": _FLAG,
    "daemonset_eviction_for_occupied_nodes": _FLAG,
    "expander": _EXPANDER,
    "ignore_daemonsets_utilization": _FLAG,
    "max_empty_bulk_delete": (re.compile(r"[1-9][0-9]*"), "a whole number above 0"),
    "max_graceful_termination_sec": _NUMBER,
    "max_node_provision_time": _MINUTES,
    "max_total_unready_percentage": _PERCENT,
    "new_pod_scale_up_delay": _TIME,
    "ok_total_unready_count": _NUMBER,
    "scale_down_delay_after_add": _MINUTES,
    "scale_down_delay_after_delete": _MINUTES,
    "scale_down_delay_after_failure": _MINUTES,
    "scale_down_unneeded_time": _MINUTES,
    "scale_down_unready_time": _MINUTES,
    "scale_down_utilization_threshold": _SHARE,
    "scan_interval": _SECONDS,
    "skip_nodes_with_local_storage": _FLAG,
    "skip_nodes_with_system_pods": _FLAG,
}
"""Spec 2025-09-01 autoScalerProfile: "no unit of time other than minutes (m) is supported" where so."""


def check_autoscaling(cluster: Cluster) -> Iterator[RuleFinding]:
    """All of section 9."""
    yield from _profile(cluster)
    mode = cluster.node_provisioning
    if mode not in PROVISIONING_MODES:
        close = {word.lower(): word for word in PROVISIONING_MODES}.get(mode.lower())
        yield PROVISIONING_MODE.broken(
            (*cluster.path, "node_provisioning"),
            mode,
            "is neither Manual nor Auto",
            f'write "{close}"' if close else "write one of them, or leave it out",
        )
    for pool in cluster.pools:
        yield from _pool(pool)
        if pool.autoscale and cluster.node_provisioning == "Auto":
            yield PROVISIONING.broken(
                (*pool.path, "autoscale"),
                True,
                'does not go with @node_provisioning "Auto", which scales nodes itself',
                "turn off one of them",
            )


def _profile(cluster: Cluster) -> Iterator[RuleFinding]:
    path = (*cluster.path, "autoscaler_profile")
    for name, value in cluster.autoscaler_profile:
        if name not in SETTINGS:
            yield PROFILE.broken((*path, name), value, "is no setting of the autoscaler", did_you_mean(name, SETTINGS))
            continue
        form, says = SETTINGS[name]
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not form.fullmatch(text):
            yield PROFILE.broken((*path, name), value, f"must be {says}", "correct it, or leave it out")
    if cluster.autoscaler_profile and not any(pool.autoscale for pool in cluster.pools):
        yield PROFILE.broken(
            path, None, "no pool has @autoscale", "turn it on for a pool, or leave the profile out", Severity.WARNING
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
