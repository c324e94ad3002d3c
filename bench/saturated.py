"""Two router pods with as many requests as they take: what one costs of their HAProxy processes.

Replicas with Python's gates would be what is saturated. So one process that answers at once stands in for those of an
endpoint, as in `bench.scale`: for routers they are gates like any others, with their claims, counts and kept copies.
"""

import asyncio
from typing import Any

from bench import control_plane as plane
from bench.chaos_bed import READY_S, ROUTERS, Chaos
from bench.rated import per_core, ticks
from bench.router import wrk
from bench.scale import ask, become_ready, gates

from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.router.ownership import owner_of
from testbed.routers import KEY

NAME = "fast"
MOST = 64
"""Requests at once at each replica: more than there are connections, so that none waits."""
CONNECTIONS = (16, 64)


async def saturated(bed: Chaos, rounds: int, seconds: float) -> dict[str, Any]:
    """`rps_per_core`: the best round, with the connections with which it is the least; None: wrk is not installed."""
    owner = owner_of(NAME, ROUTERS)
    front = next(name for name in ROUTERS if name != owner)
    where = f"{ROUTERS[front]}:{bed.bed.http_port}/api/v1/service/{NAME}/score"
    pids = [bed.haproxy(front, "p0"), bed.haproxy(str(owner), "p1")]
    rows: dict[str, list[float]] = {}
    async with gates(MOST) as ports:
        bed.bed.endpoint(NAME, requests={"replicaMaxConcurrentRequests": MOST})
        await become_ready(bed.there, [NAME], ports)
        async with asyncio.timeout(READY_S):
            while await ask(bed.session, bed.bed.url(front, NAME)) != 200:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                before = sum(map(ticks, pids))
                told = await wrk(where, connections, seconds, f"authorization: Bearer {KEY}")
                if told:
                    spent = sum(map(ticks, pids)) - before
                    rows.setdefault(f"{connections} connections", []).append(
                        round(per_core({**told, "failed": 0}, spent))
                    )
        await bed.there.api.delete(f"/apis/{API_VERSION}/namespaces/{plane.NAMESPACE}/scoringendpoints/{NAME}")
    return {"rps_per_core": min(map(max, rows.values())) if rows else None, "saturated": rows}
