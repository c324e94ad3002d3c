"""A replica or a router that nobody hears any more, and whose connections do not end: its machine, or the way to it, is
lost. What it has in hand is not waited for until HAProxy's own timeout."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router import gates, neighbours
from aks_inference_runtime.router.gate import GateStatus
from aks_inference_runtime.router.gates import GateWatch
from aks_inference_runtime.router.model import Peer, RouterState
from aks_inference_runtime.router.neighbours import Neighbours
from aks_inference_runtime.router.peers import Cluster
from testbed.processes import free_ports

Make = Callable[..., RouterState]
SOON_S = 20.0
"""Far below `scoring_timeout_ms`, which is a minute."""


@pytest.mark.parametrize(
    ("again", "status", "reason"),
    [(True, 200, None), pytest.param(False, 502, "replica-lost", marks=pytest.mark.long)],
)
async def test_what_a_silent_gate_has_is_not_waited_for(
    bed: Any, make_state: Make, monkeypatch: pytest.MonkeyPatch, again: bool, status: int, reason: str | None
) -> None:
    monkeypatch.setattr(gates, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(gates, "LOST_TRIES", 1)
    replicas = [await bed.replica(queueTimeoutMs=10_000) for _ in range(2)]
    router = await bed.router()
    state = make_state({"A": (10_000, replicas)}, max_request_wait_time=10_000)
    endpoint = replace(state.endpoints["svc"], retry_lost_requests=again)
    await router.apply(RouterState({"svc": endpoint}))
    asked = asyncio.create_task(bed.ask(x_sleep_ms="1000"))
    async with asyncio.timeout(15):
        while not (busy := [one for one in replicas if (await one.status()).running]):
            await asyncio.sleep(0.01)
    busy[0].gate.send_signal(signal.SIGSTOP)
    answer = await asked
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.seconds < SOON_S
    # The other one serves, and this one does as well when it goes on.
    assert (await bed.ask()).status == 200
    busy[0].gate.send_signal(signal.SIGCONT)

    async def both() -> bool:
        load = next(iter(router.load().values()), None)
        return load is not None and load.ready_replicas == 2

    await bed.until(both)
    assert (await bed.ask()).status == 200
    assert [(await one.stats())["most"] for one in replicas] == [1, 1]


async def test_an_agent_that_stood_still_gives_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(gates, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(gates, "ASK_SECONDS", 0.02)
    counts = {"max_concurrent": 1, "running": 0, "orphans": 0, "waiting": 0, "served_total": 0}
    line = GateStatus(replica_id="r1", port=0, ready=True, **counts).model_dump_json(by_alias=True).encode() + b"\n"
    speaks, served = True, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        # The agent may have given the connection up while something was written to it.
        with suppress(ConnectionError):
            while asked := await reader.readline():
                if speaks and "op" in json.loads(asked):
                    writer.write(line)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        served -= 1

    async def act(_: str) -> None:
        lost.append(watch.lost)

    lost: list[bool] = []
    server = await asyncio.start_unix_server(serve, str(tmp_path / "gate"))
    watch = GateWatch("r1", tmp_path / "gate", act)
    try:
        await watch.first(15)
        for _ in range(3):
            time.sleep(0.4)
            assert not watch.lost
            async with asyncio.timeout(15):
                while watch.status is None:
                    assert not watch.lost
                    await asyncio.sleep(0)
        speaks = False
        async with asyncio.timeout(15):
            while not watch.lost:
                await asyncio.sleep(0.01)
        speaks = True
        async with asyncio.timeout(15):
            while watch.lost:
                await asyncio.sleep(0.01)
    finally:
        await watch.close()
        server.close()
        async with asyncio.timeout(15):
            while served:
                await asyncio.sleep(0.01)


class Fleet:
    """Of a router that shares the work; remembers what HAProxy was told."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.further: frozenset[int] = frozenset()
        self.told: list[str] = []
        self.hangs_after: int | None = None
        """Commands, when it answers no more."""

    def dead(self) -> list[str]:
        return []

    def admin(self, _: int) -> Any:
        return SimpleNamespace(run=self.run)

    def first(self) -> Any:
        return self.admin(0)

    async def run(self, command: str) -> str:
        if self.hangs_after is not None and len(self.told) >= self.hangs_after:
            raise RuntimeUnavailable("it does not answer")
        self.told.append(command)
        return ""

    @property
    def given_up(self) -> list[str]:
        return [command for command in self.told if command.startswith("shutdown sessions")]


async def test_a_router_without_a_voice_is_given_up_when_it_cannot_be_reached_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "PROBE_S", 0.02)
    asked = 0

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    taken = server.sockets[0].getsockname()[1]
    (free,) = free_ports(1)
    fleet = Fleet()
    others = Neighbours(fleet)  # type: ignore[arg-type]
    hangs, gone = Peer("127.0.0.1", taken, alive=False), Peer("127.0.0.1", free, alive=False)
    await others.declare({"hangs": hangs, "gone": gone, "well": Peer("127.0.0.1", free)})
    async with asyncio.timeout(15):
        while not fleet.given_up or asked < 2 * neighbours.PROBES:
            await others.declare({"hangs": hangs, "gone": gone, "well": Peer("127.0.0.1", free)})
            await asyncio.sleep(0.01)
    assert fleet.given_up == [f"shutdown sessions server peer{others.numbers['gone']}/next"]
    # Heard again, and lost again.
    await others.declare({"gone": replace(gone, alive=True)})
    await others.declare({"gone": gone})
    async with asyncio.timeout(15):
        while len(fleet.given_up) < 2:
            await asyncio.sleep(0.01)
    others.close()
    server.close()
    await server.wait_closed()


async def test_what_was_told_half_way_is_told_again() -> None:
    fleet = Fleet()
    others = Neighbours(fleet)  # type: ignore[arg-type]
    one, two = Peer("127.0.0.1", 1), Peer("127.0.0.1", 2)
    await others.declare({"one": one, "two": two})
    fleet.told.clear()
    fleet.hangs_after = 1
    with pytest.raises(RuntimeUnavailable):
        await others.declare({"one": replace(one, alive=False)})
    fleet.hangs_after = None
    fleet.told.clear()
    # Whether or not it did the rest: one is alive after all, and two stays away.
    await others.declare({"one": one})
    numbers = {"one": others.numbers["one"], "two": 1 - others.numbers["one"]}
    assert f"set server peer{numbers['one']}/next state ready" in fleet.told
    assert f"set server peer{numbers['two']}/next state maint" in fleet.told
    fleet.told.clear()
    await others.declare({"one": one})
    assert fleet.told == []
    others.close()


async def test_a_process_that_went_half_way_and_is_there_again_is_told() -> None:
    fleet = Fleet()
    others = Neighbours(fleet)  # type: ignore[arg-type]
    fleet.further = frozenset({2, 3})
    await others.declare({})
    assert fleet.told == ["set server hop2/next state ready", "set server hop3/next state ready"]
    await others.declare({})
    fleet.hangs_after, fleet.further = 3, frozenset()
    with pytest.raises(RuntimeUnavailable):
        await others.declare({})
    fleet.hangs_after, fleet.further = None, frozenset({2})
    await others.declare({})
    assert fleet.told[2:] == ["set server hop2/next state maint", "set server hop2/next state ready"]


async def test_routers_that_leave_take_nobodys_room() -> None:
    """While all are replaced and have long requests there may be more of them than there is room for."""
    fleet: Any = Fleet()
    known = Neighbours(fleet)
    room = fleet.cluster.peers
    old = {f"old-{number}": Peer("10.0.0.1", number) for number in range(room)}
    await known.declare(old)
    leaving = {name: replace(peer, idle=True) for name, peer in old.items() if name != "old-0"}
    new = {f"new-{number}": Peer("10.0.0.2", number) for number in range(room - 2)}
    gone = {"gone": Peer("10.0.0.3", 1, alive=False)}
    await known.declare({**leaving, **gone, "old-0": old["old-0"], **new})
    assert new.keys() | {"old-0"} < known.numbers.keys()
    assert len(known.numbers) == room
    assert "gone" in known.numbers  # it may have something in hand
    # Those that are of use are all needed.
    with pytest.raises(OperationFailed, match="routers"):
        await known.declare({**old, **new})
    known.close()
