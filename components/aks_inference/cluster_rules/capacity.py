"""What a node leaves to pods (aks-rules 14: node-resource-reservations.md 2026-06-11)."""

import math
from dataclasses import dataclass

from aks_inference.cluster_rules.kinds import NetworkKind, max_pods
from aks_inference.cluster_rules.model import Cluster, Pool
from aks_inference.vm_sizes import VmSize

EVICTION_MIB, EVICTION_OLD_MIB = 100, 750
"""Kept free by the kubelet; the second before Kubernetes 1.29."""
VM_OVERHEAD = 0.075
"""Part of a size's memory that the machine itself may keep: the safe bound of karpenter's Azure provider."""
NEW_RESERVATION = (1, 29)


@dataclass(frozen=True)
class Resources:
    """What a pod asks for or a node gives."""

    cpu_m: int = 0
    """Thousandths of a core."""
    memory_mib: int = 0
    gpus: int = 0
    pods: int = 1

    def times(self, count: int) -> "Resources":
        """Of so many."""
        return Resources(self.cpu_m * count, self.memory_mib * count, self.gpus * count, self.pods * count)

    def plus(self, other: "Resources") -> "Resources":
        """Both together."""
        return Resources(
            self.cpu_m + other.cpu_m, self.memory_mib + other.memory_mib, self.gpus + other.gpus, self.pods + other.pods
        )

    def minus(self, other: "Resources") -> "Resources":
        """What is left; never below nothing."""
        return Resources(
            max(0, self.cpu_m - other.cpu_m),
            max(0, self.memory_mib - other.memory_mib),
            max(0, self.gpus - other.gpus),
            max(0, self.pods - other.pods),
        )


NO_DAEMONS = Resources(pods=0)
DAEMONS: dict[str, Resources] = {
    "azure-ip-masq-agent": Resources(100, 50),
    "cloud-node-manager": Resources(50, 50),
    "csi-azuredisk-node": Resources(30, 60),
    "csi-azurefile-node": Resources(30, 60),
    "kube-proxy or cilium": Resources(100, 0),
    "azure-cns": Resources(40, 250),
    "konnectivity-agent": Resources(20, 20),
}
"""What AKS's own pods ask for on every node. Microsoft publishes no table: the figures are those that `kubectl describe
node` shows in public reports (for example Azure/AKS issues); the last is not on every node and counted to be safe."""
AMA_LOGS = Resources(150, 550)
"""With Container insights. Managed Prometheus's node agent is counted alike."""
DEFENDER = Resources(90, 96, 0, 2)
"""Collector and publisher of Defender for Containers."""


def daemon_requests(cluster: Cluster) -> Resources:
    """What the cluster's DaemonSets take of each node."""
    security = cluster.security
    total = Resources(pods=0)
    for one in DAEMONS.values():
        total = total.plus(one)
    for on, one in (
        (security.container_insights, AMA_LOGS),
        (security.managed_prometheus, AMA_LOGS),
        (security.defender, DEFENDER),
    ):
        total = total.plus(one) if on else total
    return total


def cpu_reserved_m(vcpus: int) -> int:
    """Thousandths of a core for the kubelet: 6 % of the first, 4 % of the second, 2 % of two more, 1 % of the rest."""
    return 60 * min(vcpus, 1) + 40 * min(max(vcpus - 1, 0), 1) + 20 * min(max(vcpus - 2, 0), 2) + 10 * max(vcpus - 4, 0)


def memory_reserved_mib(memory_gib: float, pods: int, version: tuple[int, int] = NEW_RESERVATION) -> int:
    """MiB for the kubelet, without the eviction threshold."""
    if version >= NEW_RESERVATION:
        return math.floor(min(20 * pods + 50, 0.25 * memory_gib * 1024))
    steps = ((4.0, 0.25), (4.0, 0.20), (8.0, 0.10), (112.0, 0.06), (math.inf, 0.02))
    left, reserved = memory_gib, 0.0
    for width, share in steps:
        part = min(left, width)
        reserved += part * share
        left -= part
    return math.floor(reserved * 1024)


def allocatable(
    size: VmSize, pods: int, version: tuple[int, int] = NEW_RESERVATION, vm_overhead: float = VM_OVERHEAD
) -> Resources:
    """What a node of that size gives to pods, DaemonSets included. `vm_overhead` 0: the optimistic bound."""
    memory = size.memory_gib * 1024
    eviction = EVICTION_MIB if version >= NEW_RESERVATION else EVICTION_OLD_MIB
    left = memory - memory * vm_overhead - memory_reserved_mib(size.memory_gib, pods, version) - eviction
    return Resources(
        cpu_m=max(0, size.vcpus * 1000 - cpu_reserved_m(size.vcpus)),
        memory_mib=max(0, math.floor(left)),
        gpus=size.gpus,
        pods=pods,
    )


def for_workloads(
    pool: Pool,
    kind: NetworkKind,
    version: tuple[int, int] = NEW_RESERVATION,
    daemons: Resources = NO_DAEMONS,
    vm_overhead: float = VM_OVERHEAD,
) -> Resources | None:
    """What a node of the pool leaves after DaemonSets; None for a size that is not known."""
    if pool.size is None:
        return None
    return allocatable(pool.size, max_pods(pool, kind), version, vm_overhead).minus(daemons)
