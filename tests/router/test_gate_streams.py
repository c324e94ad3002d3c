"""An answer without an end whose reader has gone: the replica is told, and its slot is not held for ever."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gate_clients import Connection

UVICORN = Path(__file__).with_name("streaming_replica.py")
pytestmark = pytest.mark.usefixtures("closed_connections")


async def asked(replica: Any, headers: bytes) -> Connection:
    connection = await Connection.to(replica)
    connection.writer.write(b"GET /score HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
    return connection


@pytest.mark.parametrize("how", ["leaves", "leaves before it begins", "reads nothing"])
async def test_a_server_that_watches_for_it_stops(bed: Any, how: str) -> None:
    replica = await bed.replica(stub=UVICORN, readerTimeoutMs=500, scoringTimeoutMs=1_000)

    async def running() -> bool:
        return (await replica.status()).running == 1

    async def free() -> bool:
        status = await replica.status()
        return (status.running, status.orphans, status.served_total) == (0, 0, 1)

    wait = b"x-sleep-ms: 500\r\n" if how == "leaves before it begins" else b""
    size = b"x-bytes: 1000000\r\n" if how == "reads nothing" else b""
    connection = await asked(replica, wait + size)
    if how == "leaves":
        async with asyncio.timeout(15):
            await connection.reader.readuntil(b"xxxxxxxx\r\n")
    if how == "reads nothing":
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
    else:
        await bed.until(running)
        connection.close()
    await bed.until(free)
    # The next one has the slot, and a connection that was not half-closed.
    again = await asked(replica, b"")
    async with asyncio.timeout(15):
        assert (await again.reader.readuntil(b"xxxxxxxx\r\n")).startswith(b"HTTP/1.1 200")


async def test_one_with_an_end_reaches_it(bed: Any) -> None:
    """Told before, its server would drop the connection while the model works on."""
    replica = await bed.replica(stub=UVICORN)
    connection = await asked(replica, b"x-pieces: 30\r\n")
    async with asyncio.timeout(15):
        await connection.reader.readuntil(b"xxxxxxxx\r\n")
    connection.close()

    async def free() -> bool:
        status = await replica.status()
        return (status.running, status.orphans, status.served_total) == (0, 0, 1)

    await bed.until(free)
    head, _ = await (await asked(replica, b"x-pieces: 1\r\n")).answer()
    assert b"x-finished: 1" in head


async def test_one_that_streams_on_for_nobody_is_hung_until_it_ends(bed: Any) -> None:
    """The slot is its own until then: nothing tells that it is through."""
    replica = await bed.replica(scoringTimeoutMs=200, hungAfterMs=300)

    async def hung() -> bool:
        return (await replica.status()).hung

    async def free() -> bool:
        status = await replica.status()
        return not status.hung and status.running == 0

    connection = await asked(replica, b"x-stream: 300,10\r\n")
    async with asyncio.timeout(15):
        await connection.reader.readuntil(b"data: 1")
    connection.close()
    await bed.until(hung)
    status = await replica.status()
    assert (status.running, status.orphans) == (1, 1)
    assert (await replica.stats())["running"] == 1
    await bed.until(free)
    assert (await (await asked(replica, b"")).answer())[0].startswith(b"HTTP/1.1 200")
    assert (await replica.stats())["most"] == 1
