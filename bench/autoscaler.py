"""The autoscaler's process against a real API server, with many endpoints whose load changes all the time.

Routers' reports come from this process; Deployments, pods and nodes are objects that nobody runs. Measured are the time
from the report that asks for more replicas until the API server tells that `scale` was written, and what the process
costs meanwhile. `--quick`: 300 endpoints with 5 replicas each; else 1,000 with 10.

    ./bench/run autoscaler [--quick] [--json]
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from bench import control_plane as plane
from bench.harness import ROOT, Bench, bench, machine, progress, run_bench, versions

from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.kubernetes import SETTINGS_VARIABLE
from aks_inference_runtime.kubernetes import reports
from aks_inference_runtime.router.model import VersionKey, VersionLoad

TO_REACH = {"load_to_scale_p99_ms": 300, "cpu_of_a_core": 0.30}
ROUTER, ME = "127.0.0.9", "127.0.0.20"
NODES = 40
TARGET = 0.7
CHANGING = 10
"""One endpoint of so many has other figures in each report."""
SPACING_S = 0.12
"""Between two endpoints that need more."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Routers:
    """What a router would tell, and when it told what was asked for."""

    def __init__(self, names: list[str], busy: int) -> None:
        self.loads = {VersionKey(name, "blue"): VersionLoad(busy, 0, busy + 1) for name in names}
        self.names = names
        self.told: dict[str, float] = {}
        self._asked: set[str] = set()
        self._busy = busy
        self._rounds = count()

    def ask(self, name: str) -> None:
        """From the next report on it needs more: so much that the mean of the last second says it at once."""
        self.loads[VersionKey(name, "blue")] = VersionLoad(self._busy, 10 * self._busy, self._busy + 1)
        self._asked.add(name)

    def now(self) -> Mapping[VersionKey, VersionLoad]:
        """The figures of the report that is being written."""
        number = next(self._rounds)
        for name in self.names[number % CHANGING :: CHANGING]:
            if name not in self._asked and name not in self.told:
                busy = self._busy - number // CHANGING % 2
                self.loads[VersionKey(name, "blue")] = VersionLoad(busy, 0, self._busy + 1)
        at = time.perf_counter()
        self.told |= dict.fromkeys(self._asked - self.told.keys(), at)
        return self.loads


async def measure(*, quick: bool) -> dict[str, Any]:
    """The whole measurement."""
    described = machine()
    endpoints, replicas = (300, 5) if quick else (1_000, 10)
    seconds, samples = (6.0, 60) if quick else (20.0, 300)
    with tempfile.TemporaryDirectory(prefix="aksb-") as folder:
        async with bench() as started, plane.control_plane(Path(folder) / "plane") as there:
            names = [f"svc-{number:04}" for number in range(endpoints)]
            progress(f"autoscaler: {endpoints} endpoints with {replicas} replicas each are declared")
            await objects(there, names, replicas)
            routers = Routers(names, busy=int(replicas * TARGET))
            async with telling(routers) as port:
                process = start(started, there, port)
                await ready(port, process)
                await settled(there, routers)
                progress("autoscaler: measured")
                cost = await used(process.pid, seconds)
                times = await scaled(there, routers, names[:samples], replicas)
    result: dict[str, Any] = {
        "name": "autoscaler",
        "load_to_scale_p99_ms": round(percentile(times, 0.99), 1),
        "load_to_scale_p50_ms": round(percentile(times, 0.5), 1),
        "cpu_of_a_core": round(cost[0], 3),
        "memory_mb": round(cost[1], 1),
        "endpoints": endpoints,
        "replicas": endpoints * replicas,
        "scalings": len(times),
    }
    return result | {
        "to_reach": TO_REACH,
        "reached": {key: result[key] <= limit for key, limit in TO_REACH.items()},
        "quick": quick,
        "machine": described,
        "versions": versions("aiohttp", "pydantic"),
    }


async def objects(there: plane.Plane, names: list[str], replicas: int) -> None:
    """Nodes, endpoints, Deployments and pods."""
    scaling = {"autoscaleEnabled": True, "autoscaleMinReplicas": 1, "autoscaleMaxReplicas": 4 * replicas}
    space = f"namespaces/{plane.NAMESPACE}"
    nodes = [f"node-{number}" for number in range(NODES)]
    await there.make("/api/v1/nodes", map(plane.node, nodes))
    for name in nodes:
        await there.status(f"/api/v1/nodes/{name}", dict(plane.node(name)["status"]))
        # The API server's own taint, which a controller takes away from a node that is ready.
        await there.api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
    declared = [plane.endpoint(name, scaling=scaling) for name in names]
    await there.make(f"/apis/{API_VERSION}/{space}/scoringendpoints", declared)
    await there.make(f"/apis/apps/v1/{space}/deployments", (plane.deployment(name, replicas) for name in names))
    pods = (plane.replica(name, n, nodes[(i + n) % NODES]) for i, name in enumerate(names) for n in range(replicas))
    await there.make(f"/api/v1/{space}/pods", pods)
    await there.make(f"/api/v1/{space}/pods", [plane.router_pod("router-0")])
    await there.status(f"/api/v1/{space}/pods/router-0", plane.running(ROUTER))


class telling:
    """The router's side of the reports, until the block ends; gives the port."""

    def __init__(self, routers: Routers) -> None:
        app = web.Application()
        generations: dict[str, int] = dict.fromkeys(routers.names, 1)

        async def load(request: web.Request) -> web.StreamResponse:
            return await reports.stream(request, lambda: reports.Told(routers.now(), generations))

        app.add_routes([web.get(reports.PATH, load)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> int:
        await self._runner.setup()
        site = web.TCPSite(self._runner, ROUTER, 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def start(started: Bench, there: plane.Plane, port: int) -> Any:
    """The autoscaler's process."""
    settings = started.directory / "settings.json"
    settings.write_text(json.dumps({"namespace": plane.NAMESPACE, "agentPort": port}))
    environment = {
        **os.environ,
        "KUBECONFIG": str(there.kubeconfig),
        "POD_NAME": "autoscaler-0",
        "POD_IP": ME,
        SETTINGS_VARIABLE: str(settings),
    }
    environment.pop("KUBERNETES_SERVICE_HOST", None)
    command = [sys.executable, "-m", "aks_inference_runtime.kubernetes.autoscaler"]
    log = (started.directory / "autoscaler.log").open("wb")
    return started.start(*command, env=environment, cwd=ROOT, stdout=log, stderr=log)


async def ready(port: int, process: Any) -> None:
    """Waits until it has read everything and leads."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the autoscaler ended with {process.returncode}")
            try:
                async with session.get(f"http://{ME}:{port}/metrics") as answer:
                    if "aks_inference_autoscaler_leader 1" in await answer.text():
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def settled(there: plane.Plane, routers: Routers) -> None:
    """Waits until the state of each endpoint was written once: at the beginning they all are."""
    async with asyncio.timeout(120):
        while True:
            found, _ = await there.api.list(f"/apis/{API_VERSION}/scoringendpoints")
            if sum("status" in one for one in found) == len(routers.names):
                return
            await asyncio.sleep(0.5)


async def used(pid: int, seconds: float) -> tuple[float, float]:
    """Share of a core over some seconds, and resident MB afterwards."""
    before, began = _ticks(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (_ticks(pid) - before) / TICKS_PER_S / (time.perf_counter() - began)
    return share, _resident_mb(pid)


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def scaled(there: plane.Plane, routers: Routers, names: list[str], replicas: int) -> list[float]:
    """Milliseconds from the report until the API server tells of more replicas, for each of these."""
    path = "/apis/apps/v1/deployments"
    _, version = await there.api.list(path)
    seen: dict[str, float] = {}
    more = asyncio.Event()

    async def watch() -> None:
        async for _, found in there.api.watch(path, version):
            name = found["metadata"]["name"].removesuffix("-blue")
            if found["spec"]["replicas"] > replicas:
                seen.setdefault(name, time.perf_counter())
                more.set()

    watching = asyncio.create_task(watch())
    try:
        for name in names:
            routers.ask(name)
            await asyncio.sleep(SPACING_S)
        async with asyncio.timeout(30):
            while len(seen) < len(names):
                await more.wait()
                more.clear()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return [1000 * (seen[name] - routers.told[name]) for name in names]


def percentile(values: list[float], share: float) -> float:
    """Of unsorted values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    keys = ("endpoints", "replicas", "scalings", "load_to_scale_p50_ms", *TO_REACH, "memory_mb")
    goals = {key: f"   to reach {goal}" for key, goal in TO_REACH.items()}
    return "\n".join(f"{key:24}{result[key]}{goals.get(key, '')}" for key in keys)


def main() -> None:
    """The command."""
    run_bench("autoscaler", "What the autoscaler costs, and how soon it scales.", measure, table)


if __name__ == "__main__":
    main()
