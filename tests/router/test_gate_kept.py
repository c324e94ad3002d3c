"""Connections that a router keeps for its next request: which are, what ends them, and what a killed gate costs."""

import asyncio
import contextlib
import os
import signal
from dataclasses import replace

import pytest
from gate_clients import Connection

from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.process import sockets_directory

pytestmark = pytest.mark.usefixtures("closed_connections")
KEEP = b"x-aks-inference-keep: 1\r\n"


class Client(Connection):
    async def ask(self, headers: bytes = KEEP, body: bytes = b"", version: bytes = b"1.1") -> bytes:
        length = b"content-length: %d\r\n" % len(body)
        self.writer.write(b"POST /score HTTP/%b\r\nhost: x\r\n" % version + length + headers + b"\r\n" + body)
        head, _ = await self.answer()
        return head

    async def ended(self) -> bool:
        async with asyncio.timeout(15):
            with contextlib.suppress(ConnectionResetError):
                assert await self.reader.read() == b""
        return True


async def test_a_kept_connection_carries_one_request_after_the_other(bed):
    replica = await bed.replica()
    client = await Client.to(replica)
    for number in range(5):
        head = await client.ask(KEEP + b"x-id: %d\r\n" % number, b"x" * number * 10_000)
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" not in head
    stats = await replica.stats()
    assert stats["bodies"] == [0, 10_000, 20_000, 30_000, 40_000]
    assert "x-aks-inference-keep" not in stats["last_headers"]
    assert (await replica.status()).served_total == 5


@pytest.mark.parametrize(
    ("headers", "version"),
    [(b"", b"1.1"), (KEEP + b"connection: close\r\n", b"1.1"), (KEEP, b"1.0")],
    ids=["not asked for", "refused", "1.0"],
)
async def test_what_is_not_kept(bed, headers, version):
    client = await Client.to(await bed.replica())
    assert (await client.ask(headers, version=version)).startswith(b"HTTP/1.1 200")
    assert await client.ended()


async def test_a_stream_is_kept_too_and_its_end_is_its_own(bed):
    client = await Client.to(await bed.replica())
    client.writer.write(b"GET /score HTTP/1.1\r\nhost: x\r\nx-stream: 3,5\r\n" + KEEP + b"\r\n")
    async with asyncio.timeout(15):
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert (await client.reader.readuntil(b"0\r\n\r\n")).count(b"data:") == 3
    assert (await client.ask()).startswith(b"HTTP/1.1 200")


async def test_an_answer_before_the_whole_body_ends_the_connection(bed):
    """What still comes of the body is no request."""
    client = await Client.to(await bed.replica(maxBodyBytes=10))
    client.writer.write(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n" + KEEP + b"\r\n" + b"x" * 20)
    assert (await client.answer())[0].startswith(b"HTTP/1.1 413")
    client.writer.write(b"x" * 30 + b"GET /score HTTP/1.1\r\nhost: x\r\n" + KEEP + b"\r\n")
    client.writer.write_eof()
    assert await client.ended()


async def test_a_second_request_before_the_answer_is_given_to_nobody(bed):
    replica = await bed.replica()
    client = await Client.to(replica)
    one = b"GET /score HTTP/1.1\r\nhost: x\r\n" + KEEP
    client.writer.write(one + b"x-sleep-ms: 200\r\n\r\n" + one + b"\r\n")
    assert await client.ended()

    async def done() -> bool:
        return (await replica.stats())["running"] == 0

    await bed.until(done)
    assert (await replica.stats())["served"] <= 1


async def test_a_doubted_replica_ends_the_connections_without_a_request(bed):
    replica = await bed.replica()
    kept, fresh, lost = [await Client.to(replica) for _ in range(3)]
    assert (await kept.ask()).startswith(b"HTTP/1.1 200")
    assert (await lost.ask(KEEP + b"x-end: early\r\n")).startswith(b"HTTP/1.1 502")
    assert await kept.ended()
    # Its first request may be on its way: that is handed back.
    assert (await fresh.ask()).startswith(b"HTTP/1.1 425")
    assert await fresh.ended()


async def test_a_gate_that_is_to_end_keeps_none(bed):
    replica = await bed.replica(maxConcurrent=2)
    idle, busy = [await Client.to(replica) for _ in range(2)]
    assert (await idle.ask()).startswith(b"HTTP/1.1 200")
    assert (await busy.ask()).startswith(b"HTTP/1.1 200")
    running = asyncio.create_task(busy.ask(KEEP + b"x-sleep-ms: 500\r\n"))

    async def runs() -> bool:
        return (await replica.status()).running == 1

    await bed.until(runs)
    os.kill(replica.gate.pid, signal.SIGTERM)
    assert await idle.ended()
    assert (await running).startswith(b"HTTP/1.1 200")
    assert await busy.ended()
    assert await asyncio.to_thread(replica.gate.wait, 10) == 0


async def test_the_router_uses_connections_again(bed, make_state):
    replica = await bed.replica()
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    for _ in range(20):
        assert (await bed.ask()).status == 200
    connect, reuse = await _connections(bed)
    assert connect <= 2
    assert reuse >= 18


@pytest.mark.parametrize("again", [True, False])
async def test_what_a_killed_gate_had_is_sent_again_where_the_endpoint_allows_it(bed, make_state, again):
    """On client's connections that were used before, where HAProxy could leave the client without an answer."""
    lost, other = [await bed.replica("A") for _ in range(2)]
    router = await bed.router()
    state = make_state({"A": (10_000, [lost, other])}, max_request_wait_time=5_000)
    endpoint = replace(state.endpoints["svc"], retry_lost_requests=again)
    await router.apply(replace(state, endpoints={"svc": endpoint}))
    assert {(await bed.ask()).status for _ in range(4)} == {200}
    running = [asyncio.create_task(bed.ask(x_sleep_ms="700", x_id=f"long-{n}")) for n in range(2)]
    await bed.counts(router, busy=2)
    lost.gate.kill()
    answers = await asyncio.gather(*running)
    wanted = [(200, None)] * 2 if again else [(200, None), (502, "replica-lost")]
    assert sorted((a.status, a.reason) for a in answers) == wanted
    assert len([i for i, _ in (await other.stats())["began"] if i.startswith("long")]) == 1 + again


async def _connections(bed) -> tuple[int, int]:
    """New ones and those used again, to all replicas."""
    text = await AdminSocket(sockets_directory(bed.directory / "router") / "p0.admin").run("show stat")
    names, *rows = [line.split(",") for line in text.splitlines() if line]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    of_replicas = [row for row in found if row["svname"].startswith("r")]
    return sum(int(row["connect"]) for row in of_replicas), sum(int(row["reuse"]) for row in of_replicas)
