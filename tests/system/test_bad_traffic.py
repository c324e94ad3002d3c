"""Clients that do wrong, before the whole system. `test_bad_input.py` has the table of all that is bad."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest

MEGABYTE = b"x" * 1_000_000


@pytest.fixture
def send(system: Any) -> Iterator[Callable[[float], socket.socket]]:
    """Sends a request that takes so many seconds and does not wait for the answer."""
    clients: list[socket.socket] = []

    def one(seconds: float) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", system.port))
        clients.append(client)
        content = json.dumps({"sleep": seconds}).encode()
        client.sendall(head(len(content)) + content)
        return client

    yield one
    for client in clients:
        client.close()


async def is_idle(system: Any) -> None:
    await system.until(lambda s: (s.versions[0].busy, s.versions[0].queued) == (0, 0), seconds=15)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_leaving_while_a_request_runs(system: Any, send: Any, reset: bool) -> None:
    """Its replica is not given to the next one before it has finished."""
    await is_idle(system)
    began = time.monotonic()
    leaving = [send(2) for _ in range(2)]
    await system.until(lambda s: s.versions[0].busy == 2)
    for client in leaving:
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert (await system.score()).status == 200
    assert time.monotonic() - began > 2


async def test_leaving_while_requests_wait(system: Any, send: Any) -> None:
    """Their requests keep their places and are run (HAProxy could drop them only by freeing running ones' slots too,
    and a slot that is freed early breaks the cap): those who come later are served after them, and nothing is left."""
    await is_idle(system)
    running = [send(3) for _ in range(2)]
    await system.until(lambda s: s.versions[0].busy == 2)
    waiting = [send(0.01) for _ in range(20)]
    await system.until(lambda s: s.versions[0].queued == 20)
    for client in waiting:
        client.close()
    assert (await system.score()).status == 200
    await is_idle(system)
    for client in running:
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def head(length: int | None) -> bytes:
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return (
        b"POST /api/v1/service/steady/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer primary-one\r\n"
        b"content-type: application/json\r\n" + framing + b"\r\n\r\n"
    )


@pytest.mark.parametrize("length", [101 * len(MEGABYTE), None], ids=["with a length", "chunked"])
async def test_a_body_of_101_megabytes(system: Any, length: int | None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    answer = asyncio.ensure_future(reader.read(4096))
    writer.write(head(length))
    with contextlib.suppress(ConnectionError):
        for _ in range(101):
            writer.write(MEGABYTE if length else b"%x\r\n%b\r\n" % (len(MEGABYTE), MEGABYTE))
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.wait([drained, answer], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                drained.cancel()
                break
    async with asyncio.timeout(30):
        text = await answer
    writer.transport.abort()
    assert text.startswith(b"HTTP/1.1 413 ")
    assert b"x-aks-inference-reason: too-large" in text
    assert (await system.score()).status == 200


@pytest.mark.long
async def test_a_slow_loris(system: Any) -> None:
    """400 connections that send a byte now and then hold nobody up, and are closed."""
    slow = [await asyncio.open_connection("127.0.0.1", system.port) for _ in range(400)]
    try:
        for number, (_, writer) in enumerate(slow):
            unfinished = b"POST /api/v1/service/steady/score HTTP/1.1\r\nhost: x\r\n"
            writer.write(unfinished if number % 2 else head(1000) + b"{")
        answers = [asyncio.ensure_future(reader.read(1000)) for reader, _ in slow]
        async with system.load(2, "primary-one") as load, asyncio.timeout(40):
            while not all(answer.done() for answer in answers):
                for (_, writer), answer in zip(slow, answers, strict=True):
                    if not answer.done():
                        writer.write(b"x")
                await load.more(1)
                await asyncio.sleep(1)
    finally:
        for _, writer in slow:
            writer.transport.abort()
    assert load.failed == {}
    assert load.slowest_s < 10, "as long as the slow ones"
    assert {answer.result()[:13] for answer in answers} == {b"HTTP/1.1 408 "}


async def test_ten_thousand_wrong_keys(system: Any) -> None:
    async def guess(first: int) -> set[tuple[int, str | None]]:
        seen = set()
        async with aiohttp.ClientSession() as session:
            for number in range(first, 10_000, 20):
                headers = {"authorization": f"Bearer primary-{number}"}
                async with session.post(system.uri(), json={}, headers=headers) as answer:
                    seen.add((answer.status, answer.headers.get("x-aks-inference-reason")))
        return seen

    async with system.load(1, "primary-one") as load:
        answers = await asyncio.gather(*(guess(first) for first in range(20)))
    assert set().union(*answers) == {(401, "auth")}
    assert load.failed == {}
    logs = [*system.run_directories()[0].rglob("*.log"), system.state / "supervisor.log"]
    assert not any("primary-" in log.read_text() for log in logs)
