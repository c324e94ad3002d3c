"""Two router pods with as many requests as they take: what one costs of their HAProxy processes.

Replicas with Python's gates would be what is saturated: see `at_once`. In the same rounds two bare HAProxy processes in
a row in front of the same: forwarding alone, and with a copy of each request kept for a second try, as both hops must.
No configuration of two hops over HTTP/1.1 can cost less on this machine.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench import control_plane as plane
from bench.chaos_bed import READY_S, ROUTERS, Chaos
from bench.contenders import forwarder
from bench.harness import Bench, bench
from bench.rated import per_core, ticks
from bench.router import wrk
from bench.scale import ask, become_ready, gates

from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.router.ownership import owner_of
from testbed.routers import KEY, own_address

NAME = "fast"
MOST = 64
"""Requests at once at each replica: more than there are connections, so that none waits."""
CONNECTIONS = (16, 64)


BARE = {"bare": (), "bare, with second tries": ("retry-on conn-failure empty-response",)}
"""What two bare processes are told beside."""


@dataclass(frozen=True)
class AtOnce:
    """An endpoint whose replicas answer at once, reached by the router that does not own it."""

    gate: str
    """host:port of them all."""
    router: str
    path: str
    pids: Sequence[int]
    """The HAProxy processes that a request goes through."""


@asynccontextmanager
async def at_once(bed: Chaos) -> AsyncIterator[AtOnce]:
    """One process stands in for the gates, as in `bench.scale`: for routers they are gates like any others, with their
    claims, counts and kept copies. Python's would take most of this machine."""
    owner = str(owner_of(NAME, ROUTERS))
    front = next(name for name in ROUTERS if name != owner)
    async with gates(MOST) as ports:
        bed.bed.endpoint(NAME, requests={"replicaMaxConcurrentRequests": MOST})
        await become_ready(bed.there, [NAME], ports)
        async with asyncio.timeout(READY_S):
            while await ask(bed.session, bed.bed.url(front, NAME)) != 200:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        router, path = f"{ROUTERS[front]}:{bed.bed.http_port}", f"/api/v1/service/{NAME}/score"
        yield AtOnce(f"{own_address()}:{ports[0]}", router, path, [bed.haproxy(front, "p0"), bed.haproxy(owner, "p1")])
        await bed.there.api.delete(f"/apis/{API_VERSION}/namespaces/{plane.NAMESPACE}/scoringendpoints/{NAME}")


async def saturated(fast: AtOnce, rounds: int, seconds: float) -> dict[str, Any]:
    """`rps_per_core`: the best round, with the connections with which it is the least, and `bare_rps_per_core` likewise
    with second tries; None: wrk is not installed."""
    found: dict[str, dict[str, list[float]]] = {}
    async with bench() as started:
        ways = {"routers": (fast.router + fast.path, fast.pids)}
        for name, options in BARE.items():
            address, processes = await in_a_row(started, f"bare{len(options)}", fast.gate, options)
            ways[name] = (address + fast.path, processes)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for name, (where, processes) in ways.items():
                    rows = found.setdefault(name, {})
                    if rate := await turn(where, processes, connections, seconds):
                        rows.setdefault(f"{connections} connections", []).append(rate)
    best = {name: min(map(max, rows.values())) if rows else None for name, rows in found.items()}
    return {
        "rps_per_core": best["routers"],
        "bare_rps_per_core": best["bare, with second tries"],
        "saturated": found,
    }


async def in_a_row(started: Bench, name: str, gate: str, options: Sequence[str]) -> tuple[str, list[int]]:
    """Where two processes, one behind the other, are reached, and their pids."""
    second, second_pid = await forwarder(started, f"{name}-second", gate, *options)
    first, first_pid = await forwarder(started, f"{name}-first", f"127.0.0.1:{second}", *options)
    return f"127.0.0.1:{first}", [first_pid, second_pid]


async def turn(where: str, pids: Sequence[int], connections: int, seconds: float) -> float | None:
    """Requests per CPU second of these processes."""
    before = sum(map(ticks, pids))
    told = await wrk(where, connections, seconds, f"authorization: Bearer {KEY}")
    if not told:
        return None
    return round(per_core({**told, "failed": 0}, sum(map(ticks, pids)) - before))
