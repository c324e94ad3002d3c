"""A replica that runs, accepts connections, and answers nothing any more."""

import asyncio
import os
import signal

import pytest

from aks_inference_runtime.router.gate.admission import Admission, Ticket


async def ask(replica, headers: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(replica.address))
    writer.write(b"GET /score HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
    try:
        async with asyncio.timeout(15):
            return await reader.readline()
    finally:
        writer.transport.abort()


async def status_line(replica) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(replica.control))
    writer.write(b'{"op": "status"}\n')
    try:
        async with asyncio.timeout(15):
            return await reader.readline()
    finally:
        writer.close()


async def test_a_replica_that_never_comes_back_from_a_score_is_hung(bed):
    replica = await bed.replica(scoringTimeoutMs=200, hungAfterMs=300)
    os.kill(replica.stub.pid, signal.SIGSTOP)
    assert (await ask(replica)).startswith(b"HTTP/1.1 504")
    # It had its scoring timeout, and has some more time from here on.
    assert not (await replica.status()).hung

    async def hung() -> bool:
        return (await replica.status()).hung

    await bed.until(hung)
    assert b'"hung":true' in await status_line(replica)
    os.kill(replica.stub.pid, signal.SIGCONT)

    async def back() -> bool:
        status = await replica.status()
        return not status.hung and status.running == 0

    await bed.until(back)
    # Agents of earlier releases refuse what they do not know.
    assert b"hung" not in await status_line(replica)
    assert (await ask(replica)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("settings", [{}, {"hungAfterMs": 1, "scoringTimeoutMs": 60_000}], ids=["never", "in time"])
async def test_a_long_score_whose_caller_left_is_no_hang(bed, settings):
    replica = await bed.replica(**({"scoringTimeoutMs": 100} | settings))
    asking = asyncio.create_task(ask(replica, b"x-sleep-ms: 800\r\n"))

    async def at_the_replica() -> bool:
        return (await replica.stats())["running"] == 1

    await bed.until(at_the_replica)
    asking.cancel()
    seen = []

    async def over() -> bool:
        status = await replica.status()
        seen.append(status.hung)
        return status.served_total == 1

    await bed.until(over)
    assert not any(seen)


def test_a_replica_with_other_work_is_not_hung():
    admission = Admission(2, lambda: None)
    first, second = Ticket(lambda: None), Ticket(lambda: None)
    assert not admission.hung
    assert admission.enter(first)
    first.overdue = True
    assert admission.hung
    assert admission.enter(second)
    assert not admission.hung
    admission.finish(second)
    assert admission.hung
    admission.finish(first)
    assert not admission.hung
