"""The purpose of a cluster and the rule of 12 vCPU (azureml-v1.md 1.2; docs/decisions.md 3)."""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from aks_inference.cluster_rules.model import Pool
from aks_inference.cluster_rules.rulebook import error, warning
from aks_inference.findings import Finding, Path
from aks_inference.vm_sizes import VmSize, closest, table_date

_SOURCE = "azureml-v1 1.2 (source documents 000, 002, 004)"
VCPU = error("vcpu", "12 vCPU for inference, unless for development", _SOURCE)
NODES = warning(
    "nodes", "three nodes for inference, unless for development", "ML v1/how-to-create-attach-kubernetes.md"
)
DEV_TEST = warning("devtest", "DevTest is not for production; 2 vCPU at least", _SOURCE)
SIZE = warning("size", "the size is in the compiled table", "microsoft/aspire AksNodeVmSizes.Generated.cs 2026-06-23")
SIZE_WORD = error("size-vcpus", "one's own word about vCPU does not contradict the table", SIZE.source)
PURPOSE_RULES = (VCPU, NODES, DEV_TEST, SIZE, SIZE_WORD)

PRODUCTION_VCPU = 12
"""What a production cluster needs (source documents 000, 002, 004)."""
PRODUCTION_NODES = 3
"""Later documentation: fewer nodes leave a service without a spare."""
DEV_TEST_VCPU = 2
"""Recommended for DevTest."""


class Purpose(StrEnum):
    """What a cluster is for."""

    FAST_PROD = "FastProd"
    DENSE_PROD = "DenseProd"
    DEV_TEST = "DevTest"


def vcpu_check(pools: Sequence[Pool], purpose: Purpose, flat: bool) -> tuple[list[str], list[Finding]]:
    """The rule of 12 over the pools for inference: its sentence with the figures, and what is wrong.

    Spot nodes do not count: Azure can take all of them back. An autoscaled pool counts with its minimum.
    `flat`: one pool, declared by `agent_count` and `vm_size`.
    """
    lasting = [pool for pool in pools if not pool.spot]
    if any(pool.size is None for pool in lasting):
        return ["vCPU check: not possible, the size is not known"], []
    nodes = sum(pool.least_nodes for pool in lasting)
    total = sum(pool.least_nodes * pool.size.vcpus for pool in lasting if pool.size)
    path: Path = ("agent_count",) if flat else ("pools",)
    sum_text = _sum(lasting, flat, total)
    if purpose is Purpose.DEV_TEST:
        return [f"vCPU check: {sum_text}; DevTest has no minimum: ok"], list(_dev_test(path, nodes, total))
    rule = f"{purpose.value} needs at least {PRODUCTION_VCPU}"
    if total >= PRODUCTION_VCPU:
        return [f"vCPU check: {sum_text}; {rule}: ok"], list(_few_nodes(path, nodes, purpose))
    each = max((pool.size.vcpus for pool in lasting if pool.size), default=4)
    more = -(-(PRODUCTION_VCPU - total) // each)
    counts = f"@agent_count ≥ {-(-PRODUCTION_VCPU // each)}" if flat else f"{more} more node{'s' * (more > 1)}"
    if not flat and len(lasting) < len(pools):
        counts += " that are not spot"
    if any(pool.autoscale for pool in lasting):
        counts += " (an autoscaled pool counts with its @min_count)"
    mend = f"use {counts}, a larger @vm_size, or @cluster_purpose DevTest"
    return [], [VCPU.broken(path, None, f"{sum_text}; {rule}", mend)]


def _sum(pools: Sequence[Pool], flat: bool, total: int) -> str:
    parts = [
        f"{'@agent_count' if flat else pool.name} {pool.least_nodes} × {pool.vm_size} ({pool.size.vcpus} vCPU)"
        for pool in pools
        if pool.size
    ]
    return f"{' + '.join(parts) or 'no pool but spot'} = {total} vCPU"


def _dev_test(path: Path, nodes: int, total: int) -> Iterator[Finding]:
    rule = "DevTest is not for production: no fault tolerance, and requests may take longer"
    yield DEV_TEST.broken(("cluster_purpose",), None, rule, "use FastProd for production")
    if total < DEV_TEST_VCPU:
        rule = f"{total} vCPU; at least {DEV_TEST_VCPU} are recommended for DevTest"
        yield DEV_TEST.broken(path, nodes, rule, "use a larger @vm_size")


def _few_nodes(path: Path, nodes: int, purpose: Purpose) -> Iterator[Finding]:
    if nodes < PRODUCTION_NODES:
        rule = f"{purpose.value} on fewer than {PRODUCTION_NODES} nodes: the loss of one takes much of the capacity"
        yield NODES.broken(path, nodes, rule, f"use {PRODUCTION_NODES} or more")


def size_findings(path: Path, name: str, size: VmSize | None, vcpus: int | None) -> Iterator[Finding]:
    """A size that is not in the table, and the user's own word about one that is. `path`: of the pool."""
    if not name:
        yield Finding((*path, "vm_size"), "must not be empty", "give a size, such as Standard_D4s_v5", name)
    elif size is None:
        said = f"taken as {vcpus} vCPU" if vcpus else "its vCPU are not checked"
        rule = f"is not in the table of {table_date()}: {said}"
        mends = [mend for mend in (closest(name), "" if vcpus else "@vcpus_per_node says how many") if mend]
        yield SIZE.broken((*path, "vm_size"), name, rule, " ".join(mends))
    elif vcpus is not None and vcpus != size.vcpus:
        yield SIZE_WORD.broken((*path, "vcpus_per_node"), vcpus, f"{name} has {size.vcpus} vCPU", "leave it out")
