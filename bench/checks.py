"""How long all checks of a preview take: a cluster with 10 pools, and 200 services fitted on it.

    ./bench/run checks [--json] [--quick]

`checks_ms` is the median over the rounds of one run, everything loaded: the arguments of the cluster and of all
services (each with a folder of its own, in other sizes each round) converted and checked, their folders looked at,
rules of AKS, address budgets, cost, required hosts and the scheduling simulation at the services' minima and maxima.
`anew_ms`: where all entry scripts have changed and are read and parsed anew. `first_ms`: the first round, which loads.
`check_s` is the whole command `aks-inference check`, as a hook or an editor calls it, over a cluster with three
services; `check_200_s` over all, both with byte code as pip writes it when it installs; `check_source_s` and
`check_200_source_s` where Python may write none (PYTHONDONTWRITEBYTECODE, as in many images), so that a checkout that
has none is compiled each time; `python_s` is Python that does nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from bench.harness import machine, save, versions

from aks_inference.aks_cluster.hosts import hosts_of, service_names
from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.documents import Document, check_documents
from aks_inference.findings import Casing, Severity

POOLS, SERVICES, FEW = 10, 200, 3
ROUNDS, QUICK_ROUNDS = 200, 40
COMMANDS, QUICK_COMMANDS = 15, 5
TO_REACH_MS, COMMAND_TO_REACH_S = 50.0, 0.5
TODAY = date(2026, 11, 21)
SCRIPT = """import os
import joblib

model = None

def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib"))

def run(data):
    return model.predict(data["rows"]).tolist()
"""


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
    network |= {**ranges, "pod_cidr": "10.128.0.0/12"}
    return {"location": "westeurope", "pools": pools, "network": network, "runtime": {"image": "registry.example/r:1"}}


def service(index: int, folder: Path) -> dict[str, Any]:
    """Of one of many sizes."""
    return {
        "target": "prod",
        "inference_config": {"entry_script": "score.py", "source_directory": str(folder)},
        "image": "registry.example/models:1",
        "autoscale_enabled": True,
        "cpu_cores": 0.1 * (1 + index % 10),
        "memory_gb": 0.5 * (1 + index % 6),
        "autoscale_min_replicas": 1 + index % 3,
        "autoscale_max_replicas": 4 + index % 7,
    }


def sources(folder: Path) -> list[Path]:
    """A folder with its entry script for each service."""
    found = []
    for index in range(SERVICES):
        source = folder / f"svc-{index}"
        source.mkdir()
        (source / "score.py").write_text(SCRIPT)
        found.append(source)
    return found


def documents(folders: Sequence[Path], turn: int) -> list[Document]:
    """The cluster and its services, in the sizes of one round."""
    found = [Document("bench", "AksInferenceCluster", "prod", cluster(), Casing.SNAKE)]
    for index, folder in enumerate(folders):
        found.append(Document("bench", "ModelWebService", f"svc-{index}", service(index + turn, folder), Casing.SNAKE))
    return found


def rounds(folders: Sequence[Path], count: int, *, anew: bool) -> list[float]:
    """Milliseconds of each. `anew`: all entry scripts have changed since the one before."""
    found = []
    for turn in range(count):
        declared = documents(folders, turn)
        for folder in folders if anew else ():
            # Another time of change is another content, as far as anybody can tell without reading it.
            os.utime(folder / "score.py", ns=(turn, turn))
        begun = time.perf_counter()
        checked(declared)
        found.append((time.perf_counter() - begun) * 1000)
    return found


def checked(declared: Sequence[Document]) -> None:
    """All checks once. Raises AssertionError where one of them finds something, or did not see everything."""
    outcomes = check_documents(declared, TODAY)
    errors = [finding for one in outcomes for finding in one.findings if finding.severity is Severity.ERROR]
    assert not errors, errors
    plan = outcomes[0].plan
    assert isinstance(plan, ClusterPlan)
    assert hosts_of(plan, ())
    assert service_names(one.plan for one in outcomes[1:]).registries


def took(command: Sequence[str], times: int, environment: Mapping[str, str]) -> float:
    """Seconds of a process, the median."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def environments(byte_code: Path) -> dict[str, dict[str, str]]:
    """Of the command, by what the figure's name ends with. `byte_code`: a folder for it, so that none is left over."""
    none, where = "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"
    given = {key: value for key, value in os.environ.items() if key not in {none, where}}
    return {"_s": given | {where: str(byte_code)}, "_source_s": given | {none: "1"}}


def measure(*, quick: bool) -> dict[str, Any]:
    """The figures."""
    count, commands = (QUICK_ROUNDS, QUICK_COMMANDS) if quick else (ROUNDS, COMMANDS)
    check = [str(Path(sys.executable).with_name("aks-inference")), "check", "--today", TODAY.isoformat()]
    with tempfile.TemporaryDirectory() as name:
        folders = sources(Path(name))
        (first,) = rounds(folders, 1, anew=False)
        usual = rounds(folders, count, anew=False)
        anew = rounds(folders, count, anew=True)
        seconds = {}
        around = environments(Path(name) / "byte-code")
        for services, figure in ((FEW, "check"), (SERVICES, "check_200")):
            file = Path(name) / f"declared-{services}.json"
            some = documents(folders[:services], 0)
            file.write_text(json.dumps([{"component": d.component, "name": d.name, "args": d.args} for d in some]))
            for ending, environment in around.items():
                seconds[f"{figure}{ending}"] = took([*check, str(file)], commands, environment)
        seconds["python_s"] = took([sys.executable, "-c", ""], commands, around["_s"])
    return {
        "checks_ms": round(statistics.median(usual), 2),
        "checks_p95_ms": round(statistics.quantiles(usual, n=20)[-1], 2),
        "anew_ms": round(statistics.median(anew), 2),
        "first_ms": round(first, 1),
        **{figure: round(value, 3) for figure, value in seconds.items()},
        "pools": POOLS,
        "services": SERVICES,
        "rounds": count,
        "to_reach_ms": TO_REACH_MS,
        "check_to_reach_s": COMMAND_TO_REACH_S,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench/run checks", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    figures = measure(quick=given.quick)
    result = {**figures, "machine": machine(), "versions": versions("pydantic", "pulumi")}
    if not given.quick:
        save("checks", result)
    if given.json:
        print(json.dumps(result))
        return
    print(
        f"all checks of {POOLS} pools and {SERVICES} services, their own arguments included: {figures['checks_ms']} ms "
        f"(median of {figures['rounds']}; 95 %: {figures['checks_p95_ms']} ms; to reach: {TO_REACH_MS:g} ms); with all "
        f"entry scripts read anew {figures['anew_ms']} ms, the first time {figures['first_ms']} ms"
    )
    print(
        f"aks-inference check, the whole command: {figures['check_s']} s with {FEW} services, "
        f"{figures['check_200_s']} s with {SERVICES}, without byte code {figures['check_source_s']} and "
        f"{figures['check_200_source_s']} s (Python alone: {figures['python_s']} s); "
        f"to reach: {COMMAND_TO_REACH_S:g} s"
    )


if __name__ == "__main__":
    main()
