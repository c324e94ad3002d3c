"""One endpoint's queue, however long it may be, leaves the others of its router room."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from router_pair import Pair

from aks_inference_runtime.router import rooms
from aks_inference_runtime.router.config import PUBLIC
from aks_inference_runtime.router.model import Peer, RouterState, VersionKey
from aks_inference_runtime.router.ownership import AWAY
from aks_inference_runtime.router.peers import OWNER_LAYOUT
from aks_inference_runtime.router.slots import DEFAULT_LAYOUT
from aks_inference_runtime.router.tls import Tls
from testbed.processes import free_ports

CONNECTIONS = 1_000
"""Of each process, so that a test fills it."""
WAITING = rooms.waiting(CONNECTIONS, OWNER_LAYOUT)
MORE = 150


@pytest_asyncio.fixture
async def small(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr(rooms, "MOST_CONNECTIONS", CONNECTIONS)
    pair = Pair(free_ports(4))
    await pair.start()
    try:
        yield pair
    finally:
        await pair.stop()


async def test_others_are_served_while_more_wait_than_a_process_holds(
    bed: Any, small: Pair, make_state: Callable[..., RouterState]
) -> None:
    cold = make_state({"A": (10_000, [])}, scaled_to_zero=True, max_queued_requests=20_000).endpoints["svc"]
    other = make_state({"A": (10_000, [await bed.replica(cap=2)])}).endpoints["svc"]
    tenure = small.tenure(name="b")
    owned = {"svc": replace(cold, tenure=tenure), "other": replace(other, name="other", tenure=tenure)}
    passed = {name: replace(endpoint, owner="b", tenure=AWAY) for name, endpoint in owned.items()}
    peers = {name: Peer("127.0.0.1", port) for name, port in small.owner_ports.items()}
    await small.routers["b"].apply(RouterState(owned, {"a": peers["a"]}))
    await small.routers["a"].apply(RouterState(passed, {"b": peers["b"]}))
    ways = list(small.ports.values())
    told: Counter[tuple[int, str | None, bool]] = Counter()

    async def ask(number: int) -> None:
        # Every tenth has more than fits a buffer.
        data = bytes(40_000) if number % 10 == 0 else b"{}"
        answer = await bed.ask(port=ways[number % 2], data=data, timeout=120)
        told[answer.status, answer.reason, "retry-after" in answer.headers] += 1

    asked = [asyncio.create_task(ask(number)) for number in range(WAITING + MORE)]

    async def all_wait_or_are_told() -> bool:
        load = small.routers["b"].load().get(VersionKey("svc", "A"))
        return load is not None and load.queued + told.total() == len(asked)

    try:
        await bed.until(all_wait_or_are_told, timeout_s=60)
        assert set(told) == {(429, "queue-full", True)}
        assert told.total() >= MORE
        for port in ways:
            assert (await bed.ask("other", port=port)).status == 200
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_who_has_waited_takes_nobodys_room(bed: Any, small: Pair, make_state: Callable[..., RouterState]) -> None:
    replica = await bed.replica(cap=50)
    cold, warm = (
        make_state({"A": (10_000, served)}, scaled_to_zero=not served, max_request_wait_time=60_000)
        for served in ([], [replica])
    )
    await small.give_to("b", cold)
    ways = list(small.ports.values())
    asked = [asyncio.create_task(bed.ask(port=ways[number % 2])) for number in range(WAITING + MORE)]

    async def all_wait_or_are_told() -> bool:
        load = small.routers["b"].load().get(VersionKey("svc", "A"))
        return load is not None and load.queued + sum(task.done() for task in asked) == len(asked)

    await bed.until(all_wait_or_are_told)
    await small.give_to("b", warm)
    assert {answer.status for answer in await asyncio.gather(*asked)} == {200, 429}
    slow = [bed.ask(port=small.ports["a"], x_sleep_ms="500") for _ in range(80)]
    assert {answer.status for answer in await asyncio.gather(*slow)} == {200}


async def test_clients_take_no_connections_that_others_need(
    bed: Any, make_state: Callable[..., RouterState], monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setattr(rooms, "MOST_CONNECTIONS", CONNECTIONS)
    router = await bed.router(tls=Tls(unused_port))
    await router.apply(make_state({"A": (10_000, [await bed.replica()])}))
    idle = [socket.create_connection(("127.0.0.1", unused_port)) for _ in range(CONNECTIONS)]
    try:

        async def full() -> bool:
            text = await router._fleet.first().run("show stat")
            head, *lines = (line.split(",") for line in text.splitlines())
            now = next(line[head.index("scur")] for line in lines if line[:2] == [PUBLIC, "FRONTEND"])
            return int(now) == rooms.clients(CONNECTIONS, DEFAULT_LAYOUT)

        await bed.until(full)
        # Where load balancers ask.
        answer = await bed.ask(method="GET", data=None, path="/", timeout=5)
        assert (answer.status, answer.body) == (200, b"Healthy")
    finally:
        for one in idle:
            one.close()
