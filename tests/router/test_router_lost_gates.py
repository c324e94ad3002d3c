"""Gates that do not answer, many of them: they hold up nobody who does, and are given up in time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aks_inference_runtime.router import doors, gates
from aks_inference_runtime.router.gate import GateStatus
from aks_inference_runtime.router.gates import GateWatch

LOST = 20
COUNTS = {"max_concurrent": 1, "running": 0, "orphans": 0, "waiting": 0, "served_total": 0}


class Network:
    """At `there` somebody answers, or only takes connections and ends them; nobody does anywhere else."""

    def __init__(self, folder: Path) -> None:
        self.there, self.gone = folder / "there", folder / "gone"
        self.speaks = True
        self.tries: Counter[str] = Counter()
        self.connections: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = GateStatus(replica_id="r", port=0, ready=True, **COUNTS).model_dump_json(by_alias=True).encode()
        self.connections.add(writer)
        try:
            while self.speaks and await reader.readline():
                writer.write(status + b"\n")
        except ConnectionError:
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    def breaks(self) -> None:
        for writer in tuple(self.connections):
            writer.transport.abort()


@pytest_asyncio.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    made, loop = Network(tmp_path), asyncio.get_running_loop()
    connect = loop.create_unix_connection

    async def tried(protocol: Callable[[], Any], path: str) -> Any:
        made.tries[Path(path).name] += 1
        if path == str(made.gone):
            await asyncio.Event().wait()
        return await connect(protocol, path)

    monkeypatch.setattr(loop, "create_unix_connection", tried)
    server = await asyncio.start_unix_server(made.serve, str(made.there))
    try:
        yield made
    finally:
        server.close()


@pytest.fixture
def one_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(gates, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(gates, "SILENCE_SECONDS", 0.05)


async def nothing(_: str) -> None:
    pass


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.usefixtures("one_door")
async def test_a_gate_whose_connection_breaks_does_not_wait_behind_lost_ones(network: Network) -> None:
    watches = [GateWatch(f"gone{number}", network.gone, nothing) for number in range(LOST)]
    well = GateWatch("well", network.there, nothing)
    try:
        await until(lambda: well.status is not None and network.tries["gone"] > 2 * LOST)
        before, network.tries["there"] = network.tries["gone"], 0
        network.breaks()
        await until(lambda: network.tries["there"] > 0)
        assert network.tries["gone"] - before < LOST / 2
        await until(lambda: well.status is not None)
    finally:
        for watch in (*watches, well):
            await watch.close()


@pytest.mark.usefixtures("one_door")
async def test_lost_ones_are_given_up_though_each_is_tried_seldom(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "LOST_SECONDS", 0.5)
    watches = [GateWatch(f"gone{number}", network.gone, nothing) for number in range(LOST)]
    try:
        await until(lambda: all(watch.lost for watch in watches))
        assert network.tries["gone"] <= 3 * LOST
    finally:
        for watch in watches:
            await watch.close()


async def test_time_in_which_the_agent_stood_still_counts_for_nobody_s_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "LOST_SECONDS", 2.0)
    monkeypatch.setattr(gates, "RETRY_SECONDS", 0.01)
    watch = GateWatch("r", tmp_path / "nobody", nothing)
    try:
        await until(lambda: watch._silences > 5)
        assert not watch.lost
        # The whole loop, its timers among it.
        time.sleep(2.5)
        for _ in range(10):
            await asyncio.sleep(0.01)
            assert not watch.lost
        await until(lambda: watch.lost)
    finally:
        await watch.close()


async def test_a_watch_whose_connection_ended_before_its_first_word_ends_whole(network: Network) -> None:
    network.speaks = False
    watch = GateWatch("r", network.there, nothing)
    # It was connected, and is about to try again.
    await until(lambda: watch._silences > 0)
    await watch.close()
    left = [task for task in asyncio.all_tasks() if "GateWatch" in repr(task.get_coro())]
    assert left == []
