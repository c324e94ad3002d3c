"""How many routers, of how many cores, and when there are to be more. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aks_inference.findings import Finding
from aks_inference.values import Read
from aks_inference_runtime.api.kubernetes import ROUTER_CORES, RuntimeSettings, router_lanes

if TYPE_CHECKING:
    from aks_inference.inference_runtime.spec import InferenceRuntimeSpec

DEV_TEST = "DevTest"
ROUTERS = 3
"""Of azureml-fe on a cluster for production (source document 002)."""
MOST_ROUTERS = 8
MOST_CORES = 2.0
MEMORY_GIB = 0.25
"""That a router's pod asks for."""
LANE_MEMORY_GIB = 0.125
"""The same for each lane that it may come to have after the first. Two processes take 40 MiB before any connection."""


@dataclass(frozen=True)
class RoutersPlan:
    """The routers' bounds."""

    least: int
    most: int
    cores: float
    most_cores: float
    threshold_ms: float
    down_delay_s: int

    @property
    def scales(self) -> bool:
        """Whether there is anything to decide for the autoscaler."""
        return self.most > self.least or self.most_cores > self.cores

    @property
    def settings(self) -> dict[str, float]:
        """As the autoscaler is told."""
        return {
            "router_min_pods": self.least,
            "router_max_pods": self.most,
            "router_min_cores": self.cores,
            "router_max_cores": self.most_cores,
            "router_latency_threshold_ms": self.threshold_ms,
            "router_scale_down_delay_s": self.down_delay_s,
        }

    @property
    def lanes(self) -> int:
        """Of each pod, at most."""
        return router_lanes(round(self.most_cores * 1000))

    @property
    def memory_gib(self) -> float:
        """That each pod asks for."""
        return MEMORY_GIB + LANE_MEMORY_GIB * (self.lanes - 1)

    @property
    def asks(self) -> tuple[str, str]:
        """CPU and memory that a new pod asks for."""
        return f"{round(self.cores * 1000)}m", f"{round(self.memory_gib * 1024)}Mi"


def plan_routers(spec: "InferenceRuntimeSpec") -> RoutersPlan:
    """With the defaults. Bounds that contradict each other are told by `router_findings`."""
    one = spec.cluster_purpose == DEV_TEST
    told = RuntimeSettings()
    least = spec.router_replicas or (1 if one else ROUTERS)
    cores = spec.router_cores or ROUTER_CORES
    return RoutersPlan(
        least=least,
        most=spec.router_max_replicas or (least if one else max(least, MOST_ROUTERS)),
        cores=cores,
        most_cores=spec.router_max_cores or (cores if one else max(cores, MOST_CORES)),
        threshold_ms=spec.router_latency_threshold_ms or told.router_latency_threshold_ms,
        down_delay_s=spec.router_scale_down_delay_seconds or round(told.router_scale_down_delay_s),
    )


def router_findings(got: "Read[InferenceRuntimeSpec]") -> Iterator[Finding]:
    """What contradicts each other."""
    spec = got.spec
    if not got.whole("cluster_purpose"):
        return
    if spec.cluster_purpose == DEV_TEST:
        rule, mend = "DevTest has one router, which does not scale itself", "leave it out, or use FastProd"
        cores = spec.router_cores or ROUTER_CORES
        if spec.router_replicas not in (None, 1):
            yield Finding(("router_replicas",), rule, mend, spec.router_replicas)
        if spec.router_max_replicas not in (None, 1):
            yield Finding(("router_max_replicas",), rule, mend, spec.router_max_replicas)
        if spec.router_max_cores not in (None, cores):
            yield Finding(("router_max_cores",), rule, mend, spec.router_max_cores)
        return
    plan = plan_routers(spec)
    if plan.most < plan.least and got.whole("router_replicas", "router_max_replicas"):
        least = "@router_replicas" if spec.router_replicas else "the default of @router_replicas"
        rule, mend = f"is below {least} = {plan.least}", "raise it, or lower @router_replicas"
        yield Finding(("router_max_replicas",), rule, mend, plan.most)
    if plan.most_cores < plan.cores and got.whole("router_cores", "router_max_cores"):
        least = "@router_cores" if spec.router_cores else "the default of @router_cores"
        rule, mend = f"is below {least} = {plan.cores:g}", "raise it, or lower @router_cores"
        yield Finding(("router_max_cores",), rule, mend, plan.most_cores)


def describe_routers(plan: RoutersPlan) -> list[str]:
    """The bounds, and what they may ask of the nodes."""
    if not plan.scales:
        return []
    first, at_most = plan.least * plan.cores, plan.most * plan.most_cores
    memory, most_memory = plan.least * plan.memory_gib, plan.most * plan.memory_gib
    return [
        f"routers scale themselves: {_between(plan.least, plan.most)} pods of {_between(plan.cores, plan.most_cores)} "
        f"cores, which ask the nodes for {first:g} cores and {memory:g} GiB at first and for "
        f"{at_most:g} cores and {most_memory:g} GiB at most, as far as there is room; up when routing takes "
        f"more than {plan.threshold_ms:g} ms, down after {plan.down_delay_s} s with less use of CPU"
    ]


def _between(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
