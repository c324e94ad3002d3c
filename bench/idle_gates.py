"""The replicas of endpoints that nobody asks: their gates in one process, which all pass on to one server."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aks_inference_runtime.api.kubernetes import GATE_VARIABLE, REPLICA_VARIABLE
from aks_inference_runtime.kubernetes import gate
from aks_inference_runtime.router.ownership import owner_of

if TYPE_CHECKING:
    from testbed.processes import Running


@dataclass
class IdleGate:
    """One endpoint's only replica."""

    endpoint: str
    address: str
    ports: list[int]
    """Data, control, readiness."""

    @property
    def uid(self) -> str:
        """Of its pod."""
        return f"{self.endpoint}-0"


def named(number: int, routers: dict[str, str]) -> Iterator[str]:
    """Names of endpoints that the routers own by turns."""
    names = (f"idle-{each}" for each in count())
    for router in islice(cycle(routers), number):
        yield next(name for name in names if owner_of(name, routers) == router)


def start(gates: list[IdleGate], folder: Path) -> "list[Running]":
    """Their process, and the server's."""
    # The process itself has no test bed on its path.
    from testbed.processes import Running, free_ports
    from testbed.routers import STUB

    (upstream,) = free_ports(1)
    settings, made = folder / "idle.json", []
    for one in gates:
        data, control, ready = one.ports
        told = {"version": "blue", "listenHost": one.address, "listenPort": data, "upstreamPort": upstream}
        made.append({"uid": one.uid, "gate": {**told, "maxConcurrent": 1}, "control": control, "ready": ready})
    settings.write_text(json.dumps(made))
    stub = [sys.executable, STUB, "--port", str(upstream), "--sleep-ms", "0"]
    own = [sys.executable, "-m", "bench.idle_gates", settings]
    here = {"cwd": Path(__file__).parents[1]}
    return [Running(name, what, folder / f"{name}.log", **here) for name, what in (("stub", stub), ("idle", own))]


async def serve(told: list[dict[str, Any]], folder: Path) -> None:
    """All gates, until the process ends."""
    async with asyncio.TaskGroup() as all_of_them:
        for one in told:
            environment = {GATE_VARIABLE: json.dumps(one["gate"]), REPLICA_VARIABLE: one["uid"]}
            settings = gate.settings_of(environment, folder / f"{one['uid']}.sock")
            all_of_them.create_task(gate.run(settings, one["control"], one["ready"]))


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[1]).parent))
