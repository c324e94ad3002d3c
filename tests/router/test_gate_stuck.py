"""A replica that stops reading a large body."""

import asyncio
import io
import os
import signal
from typing import Any

import pytest
from gate_clients import Connection

pytestmark = pytest.mark.usefixtures("closed_connections")
LARGE = 8_000_000
"""More than system and gate take for a replica that takes nothing."""


def send(connection: Connection) -> None:
    head = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % LARGE
    connection.writer.write(head + b"x" * LARGE)


@pytest.mark.parametrize("client_timeout_ms", [50, 60_000])
async def test_it_is_answered_at_the_scoring_timeout_and_counts_as_hung(bed: Any, client_timeout_ms: int) -> None:
    replica = await bed.replica(scoringTimeoutMs=400, hungAfterMs=300, clientTimeoutMs=client_timeout_ms)

    async def hung() -> bool:
        return (await replica.status()).hung

    async def free() -> bool:
        status = await replica.status()
        return (status.hung, status.running) == (False, 0)

    os.kill(replica.stub.pid, signal.SIGSTOP)
    connection = await Connection.to(replica)
    send(connection)
    head, _ = await connection.answer()
    assert head.startswith(b"HTTP/1.1 504")
    assert b"scoring-timeout" in head
    await bed.until(hung)
    os.kill(replica.stub.pid, signal.SIGCONT)
    await bed.until(free)


async def test_a_client_that_was_held_up_by_it_is_not_too_slow(bed: Any) -> None:
    replica = await bed.replica(clientTimeoutMs=300)
    os.kill(replica.stub.pid, signal.SIGSTOP)
    connection = await Connection.to(replica)
    send(connection)
    # Longer than a client may pause.
    await asyncio.wait([asyncio.ensure_future(connection.reader.read(1))], timeout=1)
    os.kill(replica.stub.pid, signal.SIGCONT)
    async with asyncio.timeout(15):
        while (await replica.status()).served_total == 0:
            await asyncio.sleep(0.01)
    assert (await replica.stats())["bodies"] == [LARGE]


async def test_through_haproxy_too(bed: Any, make_state: Any) -> None:
    replica = await bed.replica(scoringTimeoutMs=500)
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, scoring_timeout_ms=500))
    os.kill(replica.stub.pid, signal.SIGSTOP)
    answer = await bed.ask(data=io.BytesIO(b"x" * LARGE))
    assert (answer.status, answer.reason) == (504, "scoring-timeout")
