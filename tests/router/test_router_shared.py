"""Two lanes on the same socket: each takes connections, one goes or dies, none of those that still wait is lost."""

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from aks_inference_runtime.api.errors import Conflict
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.fleet import end_left
from aks_inference_runtime.router.model import Peer, RouterState
from aks_inference_runtime.router.ownership import AWAY, Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.shared import SharedSockets
from testbed.processes import free_ports

Make = Callable[..., RouterState]


class Lanes:
    """Two of one agent; the second one owns the endpoint."""

    def __init__(self, bed: Any) -> None:
        self.bed = bed
        self.port, *self.owner_ports = free_ports(3)
        self.directory = Path(tempfile.mkdtemp(prefix="aksl-"))
        self.sockets = SharedSockets("127.0.0.1", [self.port])
        self.routers = [
            HaproxyRouter(
                self.directory / str(number),
                port=self.port,
                cluster=Cluster(owner_host="127.0.0.1", owner_port=port, sockets=self.sockets.files),
            )
            for number, port in enumerate(self.owner_ports)
        ]

    async def serve(self, state: RouterState, number: int, tenure: Tenure, owner: str | None) -> None:
        """One of them, from now on."""
        endpoint = replace(state.endpoints["svc"], owner=owner, tenure=tenure)
        other = 1 - number
        peers = {f"lane-{other}": Peer("127.0.0.1", self.owner_ports[other])}
        await self.routers[number].apply(RouterState({"svc": endpoint}, peers))

    def pid(self, number: int, process: str = "p0") -> int:
        return int(json.loads((self.directory / str(number) / f"{process}.json").read_bytes())["pid"])

    async def started_again(self, number: int, before: int) -> None:
        async with asyncio.timeout(20):
            while self.pid(number) == before:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.sockets.close()
        for router in self.routers:
            await router.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest_asyncio.fixture
async def lanes(bed: Any, make_state: Make) -> AsyncIterator[Lanes]:
    lanes = Lanes(bed)
    try:
        for router in lanes.routers:
            await router.start()
        replica = await bed.replica(cap=8)
        state = make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000)
        await lanes.serve(state, 0, AWAY, "lane-1")
        await lanes.serve(state, 1, Tenure(Phase.HOLDING, Epoch(1, "lane-1")), None)
        yield lanes
    finally:
        await lanes.close()


class Clients:
    """Each request has a connection of its own, unless they are kept."""

    def __init__(self, lanes: Lanes, count: int, *, kept: bool = False) -> None:
        self.answers: Counter[int] = Counter()
        self._headers = {} if kept else {"connection": "close"}
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._client(lanes)) for _ in range(count)]

    async def _client(self, lanes: Lanes) -> None:
        while not self._stop.is_set():
            try:
                self.answers[(await lanes.bed.ask(port=lanes.port, **self._headers)).status] += 1
            except aiohttp.ClientError:
                self.answers[0] += 1

    async def more(self, count: int = 40) -> None:
        before = self.answers[200]
        async with asyncio.timeout(30):
            while self.answers[200] < before + count:
                await asyncio.sleep(0.005)

    async def end(self) -> Counter[int]:
        self._stop.set()
        await asyncio.gather(*self._tasks)
        return self.answers


async def test_a_lane_is_ended_again_whatever_is_left_of_it(lanes: Lanes) -> None:
    async with asyncio.timeout(30):
        for _ in range(2):
            await lanes.routers[0].finish()
            await lanes.routers[0].stop()


async def test_a_lane_that_ends_loses_no_connection(lanes: Lanes) -> None:
    clients, others = Clients(lanes, 6), Clients(lanes, 6, kept=True)
    await clients.more()
    await others.more()
    # The front that does not own it; its requests finish, and the other one takes what comes.
    async with asyncio.timeout(30):
        await lanes.routers[0].finish()
    await clients.more()
    await lanes.routers[0].stop()
    await clients.more()
    await others.more()
    for some in (clients, others):
        assert await some.end() == {200: some.answers.total()}
    # An agent that died alone: the next one has no socket of its processes, and ends them.
    pids = [lanes.pid(1, name) for name in ("p0", "p1")]
    await lanes.routers[1].detach()
    lanes.sockets.close()
    with pytest.raises(Conflict):
        SharedSockets("127.0.0.1", [lanes.port])
    await end_left(lanes.directory / "1")
    assert not any(psutil.pid_exists(pid) for pid in pids)
    SharedSockets("127.0.0.1", [lanes.port]).close()


@pytest.mark.long
async def test_a_lane_whose_front_dies_takes_nothing_with_it_but_what_it_had(lanes: Lanes) -> None:
    clients = Clients(lanes, 4)
    await clients.more()
    killed, other = lanes.pid(0), lanes.pid(1)
    os.kill(killed, signal.SIGKILL)
    await clients.more()
    await lanes.started_again(0, killed)
    await clients.more()
    answers = await clients.end()
    assert set(answers) <= {0, 200}, answers
    assert answers[0] <= 4, "more than what was under way"
    assert lanes.pid(1) == other


@pytest.mark.long
async def test_without_any_front_connections_wait_for_the_next_one(lanes: Lanes) -> None:
    before = [lanes.pid(number) for number in range(2)]
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    answers = [lanes.bed.ask(port=lanes.port, connection="close") for _ in range(20)]
    assert {answer.status for answer in await asyncio.gather(*answers)} == {200}


def test_a_port_that_somebody_has_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} on 127.0.0.1 is in use"):
            SharedSockets("127.0.0.1", [*free_ports(1), port])
