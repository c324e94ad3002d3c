"""The pools of a cluster: the system pool, and those for inference, said flat or in a group."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aks_inference.aks_cluster.groups import PoolSpec, SystemPoolSpec
from aks_inference.aks_cluster.network import Network
from aks_inference.cluster_rules.model import KNOWN_LATER, Pool
from aks_inference.cluster_rules.nodes import POOL_LABEL
from aks_inference.findings import Finding, Path, under
from aks_inference.values import is_late, read
from aks_inference.vm_sizes import find_size

GPU_TAINT = "sku=gpu:NoSchedule"
"""Keeps other pods off nodes with a GPU (use-nvidia-gpu.md)."""
POOL_FIXED = (
    "maxPods",
    "availabilityZones",
    "vnetSubnetID",
    "podSubnetID",
    "scaleSetPriority",
    "scaleSetEvictionPolicy",
    "spotMaxPrice",
    "osDiskSizeGB",
    "gpuProfile",
    "enableNodePublicIP",
    "nodePublicIPPrefixID",
)
"""Properties of a pool for life, beside the two that azure-native knows of (vmSize, gpuInstanceProfile): it plans an
update of these, and AKS refuses it. Sources: aks-rules 7, Doc spot-node-pool.md; the last two as azurerm has them."""
FLAT_POOL = "inference"
_SUFFIX = 4
_BASE_LENGTH = 12 - _SUFFIX
_BASE_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")


@dataclass(frozen=True)
class PoolPlan:
    """A pool for inference."""

    pool: Pool
    """As the rules see it."""
    azure_name: str
    spec: PoolSpec
    """As declared; ids may be known only later."""

    @property
    def keeps_name(self) -> bool:
        """Whether a pool that is replaced has the same name, so that the old one has to go first: by the user's word,
        or as an id that is known only later is not in the name."""
        ids = (self.spec.subnet_id, self.spec.pod_subnet_id, self.spec.node_public_ip_prefix_id)
        return self.spec.exact_name or any(map(is_late, ids))


def system_pool(given: Mapping[str, Any] | None, nodes: int) -> tuple[Pool, list[Finding]]:
    """The system pool. `nodes`: default of its count."""
    got = read(SystemPoolSpec, given or {})
    spec, path = got.spec, ("system_pool",)
    pool = Pool(
        name="system",
        vm_size=spec.vm_size,
        size=find_size(spec.vm_size),
        mode="System",
        count=_count(spec.count, spec.autoscale, spec.min_count, nodes),
        autoscale=spec.autoscale,
        min_count=spec.min_count,
        max_count=spec.max_count,
        max_pods=spec.max_pods,
        zones=spec.zones,
        max_surge=spec.max_surge,
        os_disk_size_gb=spec.os_disk_size_gb or None,
        path=path,
    )
    return pool, list(under(path, got.findings))


def flat_pool(vm_size: str, count: int, vcpus: int | None, network: Network) -> PoolPlan:
    """Azure ML's one pool: `agent_count` nodes of `vm_size`."""
    spec = PoolSpec(name=FLAT_POOL, vm_size=vm_size, count=count, vcpus_per_node=vcpus, labels={})
    # This formula is in the names of pools that exist: another would replace them all.
    subnet = network.subnet_id if isinstance(network.subnet_id, str) else ""
    name = f"infer{_digest(f'{vm_size.lower()}|{network.names}|{subnet}')}"
    return PoolPlan(_pool(spec, ()), name, spec)


def group_pools(given: Sequence[Any], network: Network) -> tuple[list[PoolPlan], list[Finding]]:
    """The pools of the group `pools`."""
    plans: list[PoolPlan] = []
    findings: list[Finding] = []
    for index, declared in enumerate(given):
        path: Path = ("pools", index)
        if not isinstance(declared, Mapping):
            findings.append(Finding(path, "is no pool", "write an object with @name and @vm_size", declared))
            continue
        got = read(PoolSpec, declared, ("name", "vm_size"))
        findings += under(path, got.findings)
        findings += under(path, _name(got.spec))
        if got.whole("name", "vm_size"):
            plans.append(PoolPlan(_pool(got.spec, path), _azure_name(got.spec, network), got.spec))
    return plans, findings


def _name(spec: PoolSpec) -> Iterator[Finding]:
    # The general rule of names speaks of 12 characters; a name that breaks it, too, is told by that alone.
    if spec.name and not spec.exact_name and not _BASE_NAME.fullmatch(spec.name) and len(spec.name) <= 12:
        rule = f"has {len(spec.name)} characters; with its suffix a pool's name has {_BASE_LENGTH} to give"
        if len(spec.name) > _BASE_LENGTH:
            yield Finding(("name",), rule, "shorten it, or write @exact_name true", spec.name)


def _azure_name(spec: PoolSpec, network: Network) -> str:
    if spec.exact_name:
        return spec.name or ""
    fixed = (
        (spec.vm_size or "").lower(),
        spec.max_pods,
        spec.zones,
        spec.spot,
        spec.gpu_driver,
        spec.gpu_instance_profile,
        spec.os_disk_size_gb,
        spec.node_public_ip,
        network.names,
        *(value if isinstance(value, str) else "" for value in (spec.subnet_id or network.subnet_id,)),
        *(value if isinstance(value, str) else "" for value in (spec.pod_subnet_id or network.spec.pod_subnet_id,)),
    )
    # Where none of them is given the name is that of pools from before they counted.
    prefix = spec.node_public_ip_prefix_id if isinstance(spec.node_public_ip_prefix_id, str) else None
    rarely = (spec.spot_max_price, spec.eviction_policy, prefix)
    return f"{spec.name}{_digest(repr((fixed, rarely) if any(one is not None for one in rarely) else fixed))}"


def _pool(spec: PoolSpec, path: Path) -> Pool:
    size = find_size(spec.vm_size or "")
    taints = spec.taints if spec.taints is not None else ((GPU_TAINT,) if size and size.gpus else ())
    price = Decimal(repr(spec.spot_max_price)) if spec.spot_max_price is not None else None
    return Pool(
        name=spec.name or "",
        vm_size=spec.vm_size,
        size=size,
        count=_count(spec.count, spec.autoscale, spec.min_count, 1),
        autoscale=spec.autoscale,
        min_count=spec.min_count,
        max_count=spec.max_count,
        max_pods=spec.max_pods,
        spot=spec.spot,
        spot_max_price=price,
        eviction_policy=spec.eviction_policy,
        zones=spec.zones,
        max_surge=spec.max_surge,
        max_unavailable=spec.max_unavailable,
        gpu_driver=spec.gpu_driver,
        gpu_instance_profile=spec.gpu_instance_profile,
        labels=((POOL_LABEL, spec.name or ""), *spec.labels.items()),
        taints=taints,
        os_sku=spec.os_sku,
        os_disk_size_gb=spec.os_disk_size_gb or None,
        node_public_ip=spec.node_public_ip,
        node_public_ip_prefix_id=_text(spec.node_public_ip_prefix_id),
        # What is known only later cannot be compared with the other subnets.
        subnet_id=None if is_late(spec.subnet_id) else spec.subnet_id,
        pod_subnet_id=None if is_late(spec.pod_subnet_id) else spec.pod_subnet_id,
        kubernetes_version=spec.kubernetes_version,
        drain_timeout_minutes=spec.drain_timeout_minutes,
        node_soak_minutes=spec.node_soak_minutes,
        path=path,
    )


def _count(given: int | None, autoscale: bool, least: int | None, default: int) -> int:
    if given is not None:
        return given
    return least if autoscale and least is not None else default


def _text(value: object) -> str | None:
    return KNOWN_LATER if is_late(value) else value if isinstance(value, str) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_SUFFIX]
