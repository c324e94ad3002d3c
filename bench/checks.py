"""How long all checks of a preview take: a cluster with 10 pools, and 200 services fitted on it.

    ./bench/run checks [--json] [--quick]

`checks_ms` is the median over the rounds of one run, everything loaded: arguments converted, rules of AKS, address
budgets, cost, required hosts and the scheduling simulation at the services' minima and maxima.
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from bench.harness import machine, save, versions

from aks_inference.aks_cluster.capacity import fit_findings
from aks_inference.aks_cluster.hosts import hosts_of
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.findings import Severity
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.target import KubernetesTarget, format_target

POOLS, SERVICES = 10, 200
ROUNDS, QUICK_ROUNDS = 200, 40
TO_REACH_MS = 50.0
TODAY = date(2026, 11, 21)


def cluster() -> dict[str, Any]:
    """Ten pools of several kinds in a subnet."""
    pools: list[dict[str, Any]] = [
        {"name": f"cpu{i}", "vm_size": "Standard_D16s_v5", "autoscale": True, "min_count": 2, "max_count": 20}
        for i in range(POOLS - 2)
    ]
    pools.append({"name": "gpu", "vm_size": "Standard_NC24ads_A100_v4", "count": 4})
    pools.append({"name": "spot", "vm_size": "Standard_D8s_v5", "spot": True, "count": 5})
    subnet = "/subscriptions/1/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/main/subnets/nodes"
    network = {"plugin_mode": "overlay", "dataplane": "cilium", "policy": "cilium", "subnet_id": subnet}
    ranges = {"subnet_cidr": "10.1.0.0/22", "service_cidr": "10.0.0.0/16", "dns_service_ip": "10.0.0.10"}
    return {"location": "westeurope", "pools": pools, "network": {**network, **ranges, "pod_cidr": "10.128.0.0/12"}}


def service(index: int, folder: Path, target: str) -> dict[str, Any]:
    """Of one of many sizes."""
    return {
        "target": target,
        "inference_config": {"entry_script": "score.py", "source_directory": str(folder)},
        "image": "registry.example/models:1",
        "autoscale_enabled": True,
        "cpu_cores": 0.1 * (1 + index % 10),
        "memory_gb": 0.5 * (1 + index % 6),
        "autoscale_min_replicas": 1 + index % 3,
        "autoscale_max_replicas": 4 + index % 7,
    }


def checked(declared: dict[str, Any], services: dict[int, Any]) -> int:
    """All checks once; how many findings."""
    plan, findings = plan_cluster("prod", declared, TODAY)
    assert isinstance(plan, ClusterPlan), [finding for finding in findings if finding.severity is Severity.ERROR]
    return len(findings) + len(list(fit_findings(plan, services))) + len(hosts_of(plan, ()))


def measure(rounds: int) -> dict[str, Any]:
    """The figures."""
    target = format_target(KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
        begun = time.perf_counter()
        services = {}
        for index in range(SERVICES):
            plan, findings = plan_service(f"svc-{index}", service(index, folder, target))
            assert plan is not None, findings
            services[index] = plan
        services_ms = (time.perf_counter() - begun) * 1000
        declared = cluster()
        checked(declared, services)
        times = []
        for _ in range(rounds):
            begun = time.perf_counter()
            checked(declared, services)
            times.append((time.perf_counter() - begun) * 1000)
    return {
        "checks_ms": round(statistics.median(times), 2),
        "checks_p95_ms": round(statistics.quantiles(times, n=20)[-1], 2),
        "service_files_ms": round(services_ms, 1),
        "pools": POOLS,
        "services": SERVICES,
        "rounds": rounds,
        "to_reach_ms": TO_REACH_MS,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench/run checks", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    figures = measure(QUICK_ROUNDS if given.quick else ROUNDS)
    result = {**figures, "machine": machine(), "versions": versions("pydantic", "pulumi")}
    if not given.quick:
        save("checks", result)
    if given.json:
        print(json.dumps(result))
        return
    print(f"all checks of {POOLS} pools and {SERVICES} services: {figures['checks_ms']} ms (median of "
          f"{figures['rounds']}; 95 %: {figures['checks_p95_ms']} ms); to reach: {TO_REACH_MS:g} ms")  # fmt: skip
    print(
        f"reading and checking the {SERVICES} services' own arguments and files, once: {figures['service_files_ms']} ms"
    )


if __name__ == "__main__":
    main()
