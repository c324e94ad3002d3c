"""One replica's gate beside Knative's queue-proxy, which is its counterpart: before the same server, at the same rate.

    python -m bench.beside      builds queue-proxy from its Go module into the cache, once (minutes); prints where it is

`bench/run cluster` has it as rows of its own. What cannot be had as a Go module stands there by its published figures.
"""

import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.contenders import free_port, upstream
from bench.harness import ROOT, Bench, bench, listening
from bench.rated import per_core, rated, ticks

from aks_inference_runtime.router.gate.wire import KEEP_HEADER

sys.path.append(str(ROOT / "tests" / "cluster"))
from testbed.build import Program, build, place

QUEUE_PROXY = Program("queue", "knative", "knative.dev/serving/cmd/queue")
RELEASE = "v0.42.2"
"""Of knative.dev/serving, as the module's go.mod pins it: Knative 1.15."""
OWN_PORTS = (8022, 9090, 9091)
"""Of queue-proxy: administration, the autoscaler's figures, those of its users. They cannot be chosen."""
CONCURRENT = 64
PUBLISHED = {
    "KEDA http add-on, interceptor": {
        "p99_ms": 100,
        "at_requests_per_second": 1_000,
        "requests_per_second": 3_000,
        "source": "bounds of the benchmarks in its repository (kedacore/http-add-on, v0.15.0); whole answers, its "
        "server's time included. Its Go module is refused by the module proxy (403), so it does not run here",
    },
    "Knative, activator and queue-proxy": {
        "added_ms_per_hop": "0.5 to 1",
        "requests_per_core": 2_500,
        "source": "OpenShift Serverless 1.34, scalability and performance of Knative Serving",
    },
    "azureml-fe": {
        "mean_ms": 3,
        "p99_ms": 15,
        "source": "Azure ML, inference routing by azureml-fe",
    },
}


@dataclass(frozen=True)
class Sidecar:
    """What stands before one replica."""

    name: str
    port: int
    pid: int
    headers: tuple[str, ...] = ()


async def beside(rate: float, rounds: int, seconds: float) -> dict[str, Any]:
    """What each adds to the server's own time, and the requests of a CPU second; the best of the rounds, in turn."""
    async with bench() as bed:
        server = (await upstream(bed)).port
        async with queue_proxy(bed, server) as found:
            sidecars = [await gate(bed, server)]
            if isinstance(found, Sidecar):
                sidecars.append(found)
            direct: list[dict[str, float]] = []
            seen: dict[str, list[dict[str, float]]] = {one.name: [] for one in sidecars}
            for _ in range(rounds):
                direct.append(await rated(str(server), rate, seconds, "/score"))
                for one in sidecars:
                    before = ticks(one.pid)
                    told = await rated(str(one.port), rate, seconds, "/score", *one.headers)
                    seen[one.name].append({**told, "requests_per_core": per_core(told, ticks(one.pid) - before)})
    rows: dict[str, Any] = {
        name: {
            "added_mean_ms": round(_best(turns, "mean_ms") - _best(direct, "mean_ms"), 3),
            "added_p99_ms": round(_best(turns, "p99_ms") - _best(direct, "p99_ms"), 3),
            "requests_per_core": round(max(turn["requests_per_core"] for turn in turns)),
            "failed": sum(turn["failed"] for turn in turns),
        }
        for name, turns in seen.items()
    }
    if isinstance(found, str):
        rows["Knative queue-proxy"] = found
    return {"requests_per_second": rate, "replicas": 1, "rows": rows, "published": PUBLISHED}


def _best(turns: list[dict[str, float]], what: str) -> float:
    return min(turn[what] for turn in turns)


async def gate(bed: Bench, server: int) -> Sidecar:
    """Ours, asked as a router asks: on connections that are kept."""
    port = free_port()
    before = len(bed.processes)
    await bed.gate("beside", server, listenPath=None, listenPort=port, maxConcurrent=CONCURRENT, endpoint="svc")
    return Sidecar("gate", port, bed.processes[before].pid, (f"{KEEP_HEADER.decode()}: 1",))


@asynccontextmanager
async def queue_proxy(bed: Bench, server: int) -> AsyncIterator[Sidecar | str]:
    """Knative's, with its figures for Prometheus as it has them by default; a text says why it is not there."""
    program = place(QUEUE_PROXY)
    if not program.is_file():
        yield "not built (`python -m bench.beside` builds it, where its Go module can be had)"
        return
    if taken := [port for port in OWN_PORTS if not _free(port)]:
        yield f"not started: its ports cannot be chosen, and {', '.join(map(str, taken))} is in use"
        return
    port = free_port()
    told = {
        "CONTAINER_CONCURRENCY": CONCURRENT,
        "QUEUE_SERVING_PORT": port,
        "QUEUE_SERVING_TLS_PORT": free_port(),
        "USER_PORT": server,
        "REVISION_TIMEOUT_SECONDS": 60,
        "SERVING_LOGGING_CONFIG": "",
        "SERVING_LOGGING_LEVEL": "error",
        "SERVING_NAMESPACE": "default",
        "SERVING_SERVICE": "svc",
        "SERVING_CONFIGURATION": "svc",
        "SERVING_REVISION": "svc-1",
        "SERVING_POD": "svc-1-0",
        "SERVING_POD_IP": "127.0.0.1",
        "SERVING_REQUEST_METRICS_BACKEND": "prometheus",
        "METRICS_DOMAIN": "knative.dev/internal/serving",
        "SYSTEM_NAMESPACE": "knative-serving",
    }
    process = bed.start(str(program), env={**os.environ, **{name: str(value) for name, value in told.items()}})
    try:
        await listening(port, 20)
        yield Sidecar("Knative queue-proxy", port, process.pid)
    except TimeoutError:
        yield f"did not start (exit code {process.poll()})"
    finally:
        process.kill()  # asked to end it would wait for half a minute


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def lines(result: dict[str, Any]) -> list[str]:
    """For people."""
    out = [f"beside, before one replica at {result['requests_per_second']:g} requests/s:"]
    for name, row in result["rows"].items():
        if isinstance(row, str):
            out.append(f"  {name:30}{row}")
            continue
        added = f"adds {row['added_mean_ms']} ms (mean), {row['added_p99_ms']} ms (p99)"
        out.append(f"  {name:30}{added}, {row['requests_per_core']} requests per CPU second, {row['failed']} failed")
    out.append("published by others, measured elsewhere and in other ways:")
    for name, row in result["published"].items():
        figures = ", ".join(f"{key} {value}" for key, value in row.items() if key != "source")
        out.append(f"  {name}: {figures} ({row['source']})")
    return out


def main() -> int:
    """Builds what is missing."""
    if shutil.which("go") is None:
        print("the `go` command is not installed", file=sys.stderr)
        return 1
    if not place(QUEUE_PROXY).is_file():
        build(QUEUE_PROXY)
    print(place(QUEUE_PROXY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
