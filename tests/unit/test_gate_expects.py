"""What is about to come is waited for without a pause, for a moment and no longer."""

import asyncio
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from aks_inference_runtime.router.gate import sockets as module
from aks_inference_runtime.router.gate.sockets import Sockets

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")


class Told:
    def __init__(self, connection: socket.socket, then: Callable[[], None]) -> None:
        self._connection = connection
        self._then = then

    def readable(self) -> None:
        self._connection.recv(100)
        self._then()

    def writable(self) -> None:
        raise AssertionError

    def hung_up(self) -> None:
        raise AssertionError


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(2)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


async def _run(pairs: list[tuple[socket.socket, socket.socket]], yields_until_it_comes: int) -> list[str]:
    """The first socket's handler expects something; it comes at the second one after so many looks."""
    came: list[str] = []
    clock = [0.0]
    looks = [0]

    def give_way() -> None:
        looks[0] += 1
        clock[0] += module.EXPECTED_SECONDS / 10
        if looks[0] == yields_until_it_comes:
            pairs[1][1].send(b"x")

    loop = asyncio.get_running_loop()
    watching = Sockets(loop, lambda: clock[0], give_way)

    def first() -> None:
        came.append("first")
        loop.call_soon(came.append, "next round")
        watching.expect()

    for (connection, _), then in zip(pairs, (first, lambda: came.append("second")), strict=True):
        watching.watch(connection.fileno(), Told(connection, then), reading=True, writing=False)
    pairs[0][1].send(b"x")
    try:
        async with asyncio.timeout(10):
            while len(came) < 2:
                await asyncio.sleep(0)
    finally:
        for connection, _ in pairs:
            watching.forget(connection.fileno())
        watching.close()
    came.append(str(looks[0]))
    return came


async def test_what_comes_in_time_is_read_in_the_same_round(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    assert (await _run(pairs, 3))[:2] == ["first", "second"]


async def test_it_is_not_waited_for_longer_than_that(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    came = await _run(pairs, 1_000)
    assert came[:2] == ["first", "next round"]
    assert 10 <= int(came[-1]) <= 11
