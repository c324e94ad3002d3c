"""What nodes leave to pods, and whether the pods fit."""

# ruff: noqa: E501 (a case is a line)

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference.cluster_rules import (
    Cluster,
    Network,
    NodeGroup,
    Pool,
    Resources,
    Security,
    Service,
    Verdict,
    Workload,
    allocatable,
    fit_services,
    for_workloads,
    pack,
)
from aks_inference.cluster_rules.capacity import cpu_reserved_m, daemon_requests, memory_reserved_mib
from aks_inference.cluster_rules.kinds import NetworkKind
from aks_inference.cluster_rules.packing import may_run_on
from aks_inference.vm_sizes import VmSize, find_size

D3 = VmSize("Standard_D3_v2", 4, 14, 0)


@pytest.mark.parametrize(
    ("vcpus", "reserved"), [(1, 60), (2, 100), (4, 140), (8, 180), (16, 260), (32, 420), (64, 740), (96, 1060)]
)
def test_cpu_reservation_is_the_documented_table(vcpus: int, reserved: int) -> None:
    assert cpu_reserved_m(vcpus) == reserved


@pytest.mark.parametrize(
    ("memory_gib", "pods", "reserved"), [(8, 30, 650), (16, 110, 2250), (32, 250, 5050), (4, 70, 1024), (16, 250, 4096)]
)
def test_memory_reservation(memory_gib: float, pods: int, reserved: int) -> None:
    assert memory_reserved_mib(memory_gib, pods) == reserved


@pytest.mark.parametrize(("memory_gib", "reserved"), [(4, 1024), (8, 1843), (16, 2662), (128, 9543), (256, 12165)])
def test_memory_reservation_before_1_29(memory_gib: float, reserved: int) -> None:
    assert memory_reserved_mib(memory_gib, 110, (1, 28)) == reserved


@pytest.mark.parametrize(
    ("pods", "overhead", "memory"), [(110, 0.075, 10_910), (110, 0.0, 11_986), (30, 0.075, 12_510)]
)
def test_allocatable_of_the_original_size(pods: int, overhead: float, memory: int) -> None:
    assert allocatable(D3, pods, vm_overhead=overhead) == Resources(3860, memory, 0, pods)


def test_tiny_size_has_nothing_left() -> None:
    assert allocatable(VmSize("tiny", 1, 0.5, 0), 110).memory_mib >= 0
    assert for_workloads(Pool("p"), NetworkKind.OVERLAY) is None


@given(st.integers(1, 416), st.floats(0.5, 4096), st.integers(10, 250))
def test_never_more_than_the_size(vcpus: int, memory_gib: float, pods: int) -> None:
    left = allocatable(VmSize("x", vcpus, memory_gib, 0), pods)
    assert 0 <= left.cpu_m < vcpus * 1000
    assert 0 <= left.memory_mib < memory_gib * 1024
    optimistic = allocatable(VmSize("x", vcpus, memory_gib, 0), pods, vm_overhead=0.0)
    assert optimistic.memory_mib >= left.memory_mib


@pytest.mark.parametrize(
    ("security", "cpu", "memory", "pods"),
    [
        (Security(), 370, 490, 7),
        (Security(container_insights=True), 520, 1040, 8),
        (Security(container_insights=True, managed_prometheus=True), 670, 1590, 9),
        (Security(defender=True), 460, 586, 9),
    ],
)
def test_daemons_of_the_add_ons_count(security: Security, cpu: int, memory: int, pods: int) -> None:
    assert daemon_requests(Cluster(security=security)) == Resources(cpu, memory, 0, pods)


def pod(cpu: int = 0, memory: int = 0, gpus: int = 0) -> Resources:
    return Resources(cpu, memory, gpus, 1)


def node(cpu: int = 4000, memory: int = 8000, gpus: int = 0, pods: int = 30) -> Resources:
    return Resources(cpu, memory, gpus, pods)


@pytest.mark.parametrize(
    ("nodes", "workloads", "verdict", "pending"),
    [
        (3, [Workload("a", pod(1000, 1000), 12)], Verdict.FITS, []),
        (3, [Workload("a", pod(1000, 1000), 13)], Verdict.CANNOT_FIT, ["a: unschedulable at 12 of 13 replicas: CPU"]),
        (3, [Workload("a", pod(100, 2500), 10)], Verdict.CANNOT_FIT, ["a: unschedulable at 9 of 10 replicas: memory"]),
        (3, [Workload("a", pod(1, 1), 91)], Verdict.CANNOT_FIT, ["a: unschedulable at 90 of 91 replicas: pods per node"]),
        (3, [Workload("a", pod(1, 1, 1), 1)], Verdict.CANNOT_FIT, ["a: unschedulable at 0 of 1 replicas: GPU"]),
        (0, [Workload("a", pod(1, 1), 1)], Verdict.CANNOT_FIT, ["a: unschedulable at 0 of 1 replicas: no node for its selector and taints"]),
        (3, [Workload("a", pod(9000, 9000), 1)], Verdict.CANNOT_FIT, ["a: unschedulable at 0 of 1 replicas: CPU and memory"]),
        # Three pods of 3 cores leave one core on each node: 3 in all, none of them together.
        (3, [Workload("a", pod(3000), 3), Workload("b", pod(1500), 2)], Verdict.MAY_NOT_FIT, ["b: unschedulable at 0 of 2 replicas: CPU"]),
        (3, [Workload("a", pod(3000), 3), Workload("b", pod(500), 6)], Verdict.FITS, []),
        (3, [Workload("a", pod(3000), 3), Workload("b", pod(1500), 3)], Verdict.CANNOT_FIT, ["b: unschedulable at 0 of 3 replicas: CPU"]),
        (3, [Workload("a", pod(9000), 0)], Verdict.FITS, []),
    ],
)  # fmt: skip
def test_pack(nodes: int, workloads: list[Workload], verdict: Verdict, pending: list[str]) -> None:
    packing = pack([NodeGroup("n", nodes, node())], workloads)
    assert [one.text() for one in packing.pending] == pending
    assert packing.verdict is verdict


def test_gpus_are_used_up() -> None:
    packing = pack(
        [NodeGroup("gpu", 1, node(gpus=2))], [Workload("a", pod(1, 1, 1), 2), Workload("b", pod(1, 2, 1), 1)]
    )
    assert packing.pending[0].reason == "GPU"
    assert packing.verdict is Verdict.CANNOT_FIT
    mixed = [Workload("a", pod(100, 100, 1), 1), Workload("b", pod(90, 90, 2), 1)]
    assert pack([NodeGroup("gpu", 1, node(gpus=3))], mixed).verdict is Verdict.FITS


def test_gpu_pods_go_to_gpu_nodes_and_others_stay_away() -> None:
    groups = [
        NodeGroup("gpu", 1, node(gpus=1), {"kind": "gpu"}, ("sku=gpu:NoSchedule",)),
        NodeGroup("cpu", 1, node()),
    ]
    wanted = [
        Workload("model", pod(1000, 1000, 1), 1, tolerations=("sku=gpu:NoSchedule",)),
        Workload("a", pod(3000), 1),
    ]
    assert pack(groups, wanted).nodes_used == {"gpu": 1, "cpu": 1}
    greedy = pack(groups, [Workload("a", pod(3000), 2)])
    assert (greedy.verdict, greedy.pending[0].placed) == (Verdict.CANNOT_FIT, 1)
    pinned = pack(groups, [Workload("a", pod(1), 1, {"kind": "gpu"})])
    assert pinned.pending[0].reason == "no node for its selector and taints"


@pytest.mark.parametrize(
    ("taint", "toleration", "runs"),
    [
        ("sku=gpu:NoSchedule", "sku=gpu:NoSchedule", True),
        ("sku=gpu:NoSchedule", "sku:NoSchedule", True),
        ("sku=gpu:NoSchedule", "sku", True),
        ("sku=gpu:NoSchedule", "sku=fpga:NoSchedule", False),
        ("sku=gpu:NoSchedule", "sku=gpu:NoExecute", False),
        ("sku=gpu:NoSchedule", "other", False),
        ("sku=gpu:PreferNoSchedule", "other", True),
        ("alone:NoExecute", "alone:NoExecute", True),
    ],
)
def test_taints(taint: str, toleration: str, runs: bool) -> None:
    group = NodeGroup("n", 1, node(), taints=(taint,))
    assert may_run_on(Workload("w", pod(), 1, tolerations=(toleration,)), group) is runs


SMALL_NODES = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)), min_size=1, max_size=3)
SMALL_PODS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 2), st.booleans()), min_size=1, max_size=3
)


@settings(max_examples=300)
@given(SMALL_NODES, SMALL_PODS)
def test_verdicts_against_every_placement(
    nodes: list[tuple[int, int, int]], pods: list[tuple[int, int, int, bool]]
) -> None:
    """Small clusters of single nodes, all placements tried: "fits" and "cannot fit" are never wrong."""
    groups = [
        NodeGroup(f"n{index}", 1, Resources(cpu, memory, 0, room), {"index": str(index)})
        for index, (cpu, memory, room) in enumerate(nodes)
    ]
    workloads = [
        Workload(f"w{index}", pod(cpu, memory), replicas, {"index": "0"} if pinned else {})
        for index, (cpu, memory, replicas, pinned) in enumerate(pods)
    ]
    packing = pack(groups, workloads)
    each = [workload for workload in workloads for _ in range(workload.replicas)]
    exists = any(holds(groups, each, places) for places in product(range(len(groups)), repeat=len(each)))
    if packing.verdict is Verdict.FITS:
        assert exists
        assert not packing.pending
    elif packing.verdict is Verdict.CANNOT_FIT:
        assert not exists
    assert all(0 <= one.placed < one.replicas for one in packing.pending)


def holds(groups: list[NodeGroup], each: list[Workload], places: tuple[int, ...]) -> bool:
    for index, group in enumerate(groups):
        here = [workload for workload, place in zip(each, places, strict=True) if place == index]
        if not all(may_run_on(workload, group) for workload in here) or len(here) > group.each.pods:
            return False
        if sum(one.each.cpu_m for one in here) > group.each.cpu_m:
            return False
        if sum(one.each.memory_mib for one in here) > group.each.memory_mib:
            return False
    return True


COUNTS = st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 4000), st.integers(0, 60)), min_size=1, max_size=12)


@given(st.integers(0, 40), COUNTS)
def test_equal_nodes_at_once_are_as_one_by_one(nodes: int, pods: list[tuple[int, int, int]]) -> None:
    """A bin with a count gives what as many single nodes give."""
    workloads = [Workload(f"w{index}", pod(cpu, memory), count) for index, (cpu, memory, count) in enumerate(pods)]
    together = pack([NodeGroup("n", nodes, node())], workloads)
    single = pack([NodeGroup(f"n{index}", 1, node()) for index in range(nodes)], workloads)
    assert together.pending == single.pending
    assert together.nodes_used.get("n", 0) == len(single.nodes_used)
    assert together.verdict is single.verdict


def cluster(count: int = 3, **more: object) -> Cluster:
    size = find_size("Standard_D3_v2")
    assert size is not None
    return Cluster(
        pools=(replace(Pool("inference", size.name, size, count=count), **more),),
        network=Network(plugin="azure", plugin_mode="overlay"),
    )


def test_report_of_minimum_and_maximum() -> None:
    service = Service(Workload("iris", pod(1000, 2000), 1), least=2, most=12)
    report = fit_services(cluster(), [service])
    assert report.at_least.verdict is Verdict.FITS
    assert report.at_most.verdict is Verdict.CANNOT_FIT
    assert report.at_most.pending[0].placed == 9
    assert report.lines() == (
        "at the services' minimum: fits; nodes in use: inference 1",
        "at the services' maximum: cannot fit; nodes in use: inference 3",
        "  iris: unschedulable at 9 of 12 replicas: CPU",
    )


def test_autoscaled_pools_count_at_their_maximum() -> None:
    service = Service(Workload("iris", pod(1000, 2000), 1), least=1, most=12)
    report = fit_services(cluster(autoscale=True, min_count=1, max_count=4), [service])
    assert report.at_most.verdict is Verdict.FITS
    assert report.at_most.nodes_needed == (("inference", 4),)


def test_between_the_safe_and_the_hopeful_bound_nothing_is_ruled_out() -> None:
    # 14 GiB with 250 pods: 9,576 MiB surely, 10,652 MiB at best, less 490 MiB of DaemonSets.
    service = Service(Workload("big", pod(100, 9500), 1), least=1, most=1)
    report = fit_services(cluster(), [service])
    assert report.at_least.verdict is Verdict.MAY_NOT_FIT
    assert report.at_least.pending[0].reason == "memory"


def test_unknown_size_is_said_and_rules_nothing_out() -> None:
    unknown = Pool("new", "Standard_New_v9", None, count=1)
    declared = replace(cluster(), pools=(*cluster().pools, unknown))
    report = fit_services(declared, [Service(Workload("iris", pod(3000), 1), least=9, most=9)])
    assert report.unknown_pools == ("new",)
    assert report.at_most.verdict is Verdict.MAY_NOT_FIT
    assert report.lines()[-1] == "not counted, size unknown: new"


def test_spot_nodes_take_only_those_who_bear_them() -> None:
    spot = cluster(spot=True)
    plain = Service(Workload("iris", pod(100), 1), 1, 1)
    bearing = Service(replace(plain.workload, tolerations=("kubernetes.azure.com/scalesetpriority",)), 1, 1)
    assert fit_services(spot, [plain]).at_least.verdict is Verdict.CANNOT_FIT
    assert fit_services(spot, [bearing]).at_least.verdict is Verdict.FITS


def test_reported_daemons_warn_but_rule_nothing_out() -> None:
    service = Service(Workload("iris", pod(3600), 1), least=1, most=1)
    assert fit_services(cluster(), [service]).at_least.verdict is Verdict.MAY_NOT_FIT
    known = Resources(300, 0, 0, 1)
    assert fit_services(cluster(), [service], daemons=known).at_least.verdict is Verdict.CANNOT_FIT
