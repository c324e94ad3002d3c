"""Node pools: names, sizes, counts, spot, zones, surge, GPUs (aks-rules 2.13, 6, 7, 8)."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from aks_inference.cluster_rules.kinds import max_pods, network_kind, parse_amount, surge_nodes
from aks_inference.cluster_rules.model import Cluster, Pool
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning
from aks_inference.facts import region_named, size_note
from aks_inference.findings import Severity

_PLAN = "Doc concepts-network-ip-address-planning.md 2026-04-16"
_SYSTEM = "Doc use-system-pools.md; quotas-skus-regions.md 2026-08-03"
_SPOT = "Doc spot-node-pool.md"
_UPGRADE = "Doc upgrade-aks-node-pools-rolling.md; Spec 2025-09-01 AgentPoolUpgradeSettings"
_GPU = "Doc use-nvidia-gpu.md"
NAME = error("6a", "pool names", "Spec 2025-09-01; Doc use-system-pools.md")
SYSTEM_POOL = error("7a", "a system pool, on Linux, not spot, never empty", _SYSTEM)
SYSTEM_NODES = warning("7b", "two or three nodes in the system pool", _SYSTEM)
SYSTEM_SIZE = error("7c", "system pool: 2 vCPU and 4 GiB at least, no B series", _SYSTEM)
USER_SIZE = error("7d", "user pool: 2 vCPU and 2 GiB at least", "Doc quotas-skus-regions.md 2026-08-03")
COUNTS = error(
    "7e", "nodes per pool and cluster, number of pools", "Doc use-system-pools.md, free-standard-pricing-tiers.md"
)
RETIRING = warning("7f", "sizes that Azure retires", "azure-compute-docs sizes/retirement/retired-sizes-list.md")
WINDOWS = error("7g", "pools are Linux", "the serving runtime is Linux; Doc create-node-pools.md")
ARM = warning("7h", "sizes with an Arm processor", "microsoft/aspire AksNodeVmSizes.Generated.cs 2026-06-23")
SPOT = error("7i", "spot: user pools only, price, eviction, no surge", f"{_SPOT}; github.com/Azure/bicep issue 14517")
SPOT_WARNING = warning("7j", "spot nodes can go at any time", _SPOT)
ZONES = error("7k", "zones that the region has", "Doc availability zones; subscription locations of 2026-04-02")
NODE_SETTINGS = error("7l", "bounds of disk size, drain and soak time", "Spec 2025-09-01 AgentPoolUpgradeSettings")
MAX_PODS = error("2c", "pods per node: 10 to 250, room for 30", _PLAN)
SURGE = error("2.13", "surge and unavailable nodes", _UPGRADE)
GPU_SIZE = error("8a", "GPU sizes that AKS offers", _GPU)
GPU_DRIVER = error("8b", "driver mode and instance profile only with a GPU", _GPU)
GPU_TAINT = warning("8c", "GPU pools keep other pods away", _GPU)

LINUX_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
MOST_PER_POOL, MOST_POOLS, MOST_NODES = 1000, 100, 5000
FREE_TIER_NODES = 10
RETIRES_SOON = timedelta(days=730)
GPU_PROFILES = ("MIG1g", "MIG2g", "MIG3g", "MIG4g", "MIG7g")
_B_SERIES = re.compile(r"standard_b[0-9]")
_NVV4 = re.compile(r"standard_nv[0-9]+as_v4")
_DECIMALS = 5
_HIGHEST_PRICE = 10_000


def check_pools(cluster: Cluster) -> Iterator[RuleFinding]:
    """All findings about pools."""
    yield from _together(cluster)
    for pool in cluster.pools:
        yield from _name(pool)
        yield from _counts(pool)
        yield from _size(pool)
        yield from _retirement(cluster, pool)
        yield from _system(pool)
        yield from _spot(pool)
        yield from _zones(cluster, pool)
        yield from _pods(cluster, pool)
        yield from _surge(pool)
        yield from _gpu(pool)
        yield from _settings(pool)


def _together(cluster: Cluster) -> Iterator[RuleFinding]:
    pools = cluster.pools
    if not pools:
        return
    if not cluster.existing and not any(pool.mode == "System" for pool in pools):
        yield SYSTEM_POOL.broken(
            ("pools",), None, "a cluster needs a pool of @mode System, and there is none", "add one"
        )
    for name, times in Counter(pool.name for pool in pools).items():
        if times > 1:
            second = [pool for pool in pools if pool.name == name][1]
            yield NAME.broken((*second.path, "name"), name, f"{times} pools have this name", "give each its own")
    if len(pools) > MOST_POOLS:
        yield COUNTS.broken(("pools",), len(pools), f"a cluster has at most {MOST_POOLS} pools", "use several clusters")
    nodes = sum(pool.most_nodes for pool in pools)
    if cluster.tier == "Free" and nodes > MOST_PER_POOL:
        yield COUNTS.broken(
            ("pools",),
            None,
            f'the pools may have {nodes:,} nodes, and @tier "Free" allows {MOST_PER_POOL:,}',
            'use @tier "Standard"',
        )
    elif nodes > MOST_NODES:
        yield COUNTS.broken(
            ("pools",),
            None,
            f"the pools may have {nodes:,} nodes, and a cluster has at most {MOST_NODES:,}",
            "use several clusters",
        )
    elif cluster.tier == "Free" and nodes > FREE_TIER_NODES:
        yield COUNTS.broken(
            (*cluster.path, "tier"),
            "Free",
            f"the pools may have {nodes} nodes; without an agreed uptime AKS recommends at most {FREE_TIER_NODES}",
            'use @tier "Standard"',
            Severity.WARNING,
        )


def _name(pool: Pool) -> Iterator[RuleFinding]:
    if not LINUX_NAME.fullmatch(pool.name):
        fixed = re.sub(r"^[^a-z]+", "", re.sub(r"[^a-z0-9]", "", pool.name.lower()))[:12]
        yield NAME.broken(
            (*pool.path, "name"),
            pool.name,
            "must be 1 to 12 lower-case letters and digits, the first a letter",
            f'for example "{fixed}"' if fixed else 'for example "inference"',
        )


def _counts(pool: Pool) -> Iterator[RuleFinding]:
    least = 1 if pool.mode == "System" else 0
    if pool.autoscale:
        return  # bounds are autoscaling rules
    if not least <= pool.count <= MOST_PER_POOL:
        yield COUNTS.broken(
            (*pool.path, "count"),
            pool.count,
            f"a {pool.mode.lower()} pool has {least} to {MOST_PER_POOL:,} nodes",
            f"use {least if pool.count < least else MOST_PER_POOL}",
        )


def _size(pool: Pool) -> Iterator[RuleFinding]:
    path, size = (*pool.path, "vm_size"), pool.size
    if pool.mode == "System" and _B_SERIES.match((pool.vm_size or "").lower()):
        yield SYSTEM_SIZE.broken(
            path,
            pool.vm_size,
            "B sizes are not supported in a system pool",
            "use a D size: Standard_D4s_v5",
            Severity.WARNING,
        )
    if size is None:
        return
    shown = f"{size.vcpus} vCPU and {size.memory_gib:g} GiB"
    if pool.mode == "System":
        if size.vcpus < 2 or size.memory_gib < 4:
            yield SYSTEM_SIZE.broken(
                path,
                pool.vm_size,
                f"has {shown}; a system pool needs 2 vCPU and 4 GiB",
                "use Standard_D4s_v5 or larger",
            )
        elif size.vcpus < 4:
            yield SYSTEM_SIZE.broken(
                path,
                pool.vm_size,
                f"has {shown}; AKS recommends 4 vCPU for a system pool",
                "use Standard_D4s_v5 or larger",
                Severity.WARNING,
            )
    elif size.vcpus < 2 or size.memory_gib < 2:
        yield USER_SIZE.broken(
            path, pool.vm_size, f"has {shown}; a pool needs 2 vCPU and 2 GiB", "use a size with 2 vCPU or more"
        )


def _retirement(cluster: Cluster, pool: Pool) -> Iterator[RuleFinding]:
    if pool.vm_size is None:
        return
    note, path = size_note(pool.vm_size), (*pool.path, "vm_size")
    if note.arm64:
        yield ARM.broken(
            path,
            pool.vm_size,
            "has an Arm processor: images must be built for arm64",
            "use such images, or an x86 size",
        )
    if note.retirement is None or cluster.today is None:
        return
    current = "Standard_NC4as_T4_v3" if pool.vm_size.lower().startswith("standard_n") else "Standard_D4s_v5"
    if cluster.today >= note.retirement:
        yield RETIRING.broken(
            path,
            pool.vm_size,
            f"Azure retired this size on {note.retirement}",
            f"use a current one: {current}",
            Severity.ERROR,
        )
    elif note.retirement - cluster.today <= RETIRES_SOON:
        yield RETIRING.broken(
            path, pool.vm_size, f"Azure retires this size on {note.retirement}", f"use a current one: {current}"
        )


def _system(pool: Pool) -> Iterator[RuleFinding]:
    if pool.mode not in {"System", "User"}:
        yield SYSTEM_POOL.broken((*pool.path, "mode"), pool.mode, "is neither System nor User", "write one of them")
    if pool.os_type != "Linux":
        says = "a system pool is Linux" if pool.mode == "System" else "the serving runtime runs on Linux"
        yield WINDOWS.broken((*pool.path, "os_type"), pool.os_type, says, 'write "Linux", or leave it out')
    if pool.mode == "System" and 1 <= pool.least_nodes < 3:
        yield SYSTEM_NODES.broken(
            (*pool.path, "min_count" if pool.autoscale else "count"),
            pool.least_nodes,
            "with fewer than 3 nodes in the system pool, the loss of one can stop DNS and other parts of the cluster",
            "use 3, in three zones where the region has them",
        )


def _spot(pool: Pool) -> Iterator[RuleFinding]:
    price = pool.spot_max_price
    if not pool.spot:
        for name, value in (("spot_max_price", price), ("eviction_policy", pool.eviction_policy)):
            if value is not None:
                shown = str(value) if isinstance(value, Decimal) else value
                yield SPOT.broken(
                    (*pool.path, name), shown, "goes only with @spot, which is off", "turn it on, or leave it out"
                )
        return
    if pool.mode == "System":
        yield SPOT.broken((*pool.path, "spot"), True, "a system pool cannot be spot", "use a user pool for spot nodes")
    if pool.max_surge is not None:
        yield SPOT.broken(
            (*pool.path, "max_surge"),
            pool.max_surge,
            "spot pools have no nodes while upgrading beyond their own, and the API refuses it",
            "leave it out",
        )
    if price is not None and not _is_price(price):
        rounded = round(price, _DECIMALS) if price.is_finite() and 0 < price < _HIGHEST_PRICE else Decimal(0)
        yield SPOT.broken(
            (*pool.path, "spot_max_price"),
            str(price),
            f"must be -1 (up to the pay-as-you-go price) or a positive price with at most {_DECIMALS} decimals",
            f"write {rounded}" if rounded > 0 else "write -1",
        )
    if pool.eviction_policy not in {None, "Delete", "Deallocate"}:
        yield SPOT.broken(
            (*pool.path, "eviction_policy"),
            pool.eviction_policy,
            "is neither Delete nor Deallocate",
            "write one of them",
        )
    elif pool.eviction_policy == "Deallocate":
        yield SPOT_WARNING.broken(
            (*pool.path, "eviction_policy"),
            "Deallocate",
            "evicted nodes stay and keep their quota, which can hinder scaling and upgrades",
            "use Delete (the default)",
        )


def _is_price(price: Decimal) -> bool:
    if not price.is_finite():
        return False
    decimals = -int(price.normalize().as_tuple().exponent)
    return price == -1 or (price > 0 and decimals <= _DECIMALS)


def _zones(cluster: Cluster, pool: Pool) -> Iterator[RuleFinding]:
    path = (*pool.path, "zones")
    wrong = [zone for zone in pool.zones if zone not in {"1", "2", "3"}]
    if wrong or len(set(pool.zones)) != len(pool.zones):
        yield ZONES.broken(path, list(pool.zones), "zones are 1, 2 and 3, each once", 'write ["1", "2", "3"]')
        return
    region = region_named(cluster.location) if cluster.location else None
    if pool.zones and region is not None and region.zones is False:
        yield ZONES.broken(
            path,
            list(pool.zones),
            f"@location {region.name} has no availability zones",
            "leave it out, or use another region",
        )


def _pods(cluster: Cluster, pool: Pool) -> Iterator[RuleFinding]:
    if pool.max_pods is not None and not 10 <= pool.max_pods <= 250:
        yield MAX_PODS.broken(
            (*pool.path, "max_pods"),
            pool.max_pods,
            "must be from 10 to 250",
            f"use {10 if pool.max_pods < 10 else 250}",
        )
        return
    each = max_pods(pool, network_kind(cluster.network))
    nodes = pool.most_nodes
    # An empty user pool is fine; a pool with nodes must be able to hold AKS's own pods.
    if nodes > 0 and each * nodes < 30 and (pool.mode == "System" or pool.max_pods is not None):
        yield MAX_PODS.broken(
            (*pool.path, "max_pods"),
            each,
            f"{nodes} node{'s' if nodes > 1 else ''} × {each} pods = {each * nodes}; a pool must have room for 30 pods",
            f"use {-(-30 // nodes)}, or {-(-30 // each)} nodes",
        )


def _surge(pool: Pool) -> Iterator[RuleFinding]:
    for name, text in (("max_surge", pool.max_surge), ("max_unavailable", pool.max_unavailable)):
        if text is not None and parse_amount(text, 1) is None:
            yield SURGE.broken(
                (*pool.path, name), text, "is neither a number of nodes nor a percentage", 'write "1" or "33%"'
            )
        elif text is not None and text.endswith("%") and int(text[:-1]) > 100:
            yield SURGE.broken((*pool.path, name), text, "is more than 100 %", 'write "33%"')
    unavailable = parse_amount(pool.max_unavailable, 100) or 0
    if pool.max_surge is not None and parse_amount(pool.max_surge, 100) == 0 and unavailable == 0:
        yield SURGE.broken(
            (*pool.path, "max_surge"),
            pool.max_surge,
            "with @max_unavailable 0 an upgrade could never begin",
            'write "1" or "33%", or give @max_unavailable',
        )
    if pool.mode == "System" and unavailable:
        yield SURGE.broken(
            (*pool.path, "max_unavailable"),
            pool.max_unavailable,
            "cannot be set on a system pool",
            "leave it out, and use @max_surge",
        )
    nodes, surge = pool.most_nodes, surge_nodes(pool)
    if nodes <= MOST_PER_POOL < nodes + surge:
        yield SURGE.broken(
            (*pool.path, "max_surge"),
            pool.max_surge or "10%",
            f"{nodes} nodes and {surge} while upgrading are more than the {MOST_PER_POOL:,} that a scale set holds; "
            "upgrades will be refused",
            f'use at most "{MOST_PER_POOL - nodes}"'
            if nodes < MOST_PER_POOL
            else "use fewer nodes, or @max_unavailable",
            Severity.WARNING,
        )


def _gpu(pool: Pool) -> Iterator[RuleFinding]:
    size = (pool.vm_size or "").lower()
    if _NVV4.fullmatch(size):
        yield GPU_SIZE.broken(
            (*pool.path, "vm_size"),
            pool.vm_size,
            "the NVv4 sizes (AMD) are not supported by AKS",
            "use Standard_NC4as_T4_v3 or larger",
        )
    has_gpu = pool.size.gpus > 0 if pool.size is not None else None
    if pool.gpu_driver not in {None, "Install", "None"}:
        yield GPU_DRIVER.broken(
            (*pool.path, "gpu_driver"), pool.gpu_driver, "is neither Install nor None", _one_of(pool.gpu_driver)
        )
    if pool.gpu_instance_profile is not None and pool.gpu_instance_profile not in GPU_PROFILES:
        yield GPU_DRIVER.broken(
            (*pool.path, "gpu_instance_profile"),
            pool.gpu_instance_profile,
            "is not known to AKS",
            f"use one of {', '.join(GPU_PROFILES)}",
        )
    if has_gpu is False:
        for name, value in (("gpu_driver", pool.gpu_driver), ("gpu_instance_profile", pool.gpu_instance_profile)):
            if value is not None:
                yield GPU_DRIVER.broken(
                    (*pool.path, name), value, f"goes only with a GPU, and @vm_size {pool.vm_size} has none",
                    "leave it out, or use a GPU size",
                )  # fmt: skip
    if has_gpu and pool.mode == "User" and not pool.taints:
        yield GPU_TAINT.broken(
            (*pool.path, "taints"),
            None,
            f"{pool.vm_size} has a GPU, and without a taint pods that need none fill its nodes",
            'add "sku=gpu:NoSchedule"; taints cannot be left for later where the autoscaler starts from 0',
        )


def _one_of(driver: str) -> str:
    close = {word.lower(): word for word in ("Install", "None")}.get(driver.lower())
    return f'write "{close}"' if close else "write one of them"


def _settings(pool: Pool) -> Iterator[RuleFinding]:
    bounds = (
        ("os_disk_size_gb", pool.os_disk_size_gb, 0, 2048),
        ("drain_timeout_minutes", pool.drain_timeout_minutes, 1, 1440),
        ("node_soak_minutes", pool.node_soak_minutes, 0, 30),
    )
    for name, value, low, high in bounds:
        if value is not None and not low <= value <= high:
            yield NODE_SETTINGS.broken(
                (*pool.path, name), value, f"must be from {low} to {high:,}", f"use {low if value < low else high}"
            )
