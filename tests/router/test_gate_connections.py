"""Which connections to the replica the gate uses again: never one that a request was only half sent on."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from aks_inference_runtime.router.gate.address import Address
from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings

HALF = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n" + b"x" * 1_000
WHOLE = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"


class EarlyReplica:
    """Answers before it has read the body, or when the body broke off, and keeps the connection."""

    def __init__(self, *, waits_for_end: bool) -> None:
        self.connections = 0
        self.open = 0
        self._waits_for_end = waits_for_end

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                if self._waits_for_end:
                    with contextlib.suppress(asyncio.IncompleteReadError):
                        await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                if not self._waits_for_end:
                    await reader.readexactly(length)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1


@contextlib.asynccontextmanager
async def listening(replica: "EarlyReplica | SlowReplica") -> AsyncIterator[int]:
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        async with asyncio.timeout(10):
            while replica.open:
                await asyncio.sleep(0.01)


async def ask(gate: Gate, request: bytes) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    writer.write(request)
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n"), writer


async def until_free(gate: Gate) -> None:
    async with asyncio.timeout(10):
        while gate.admission.running:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["answered early", "caller left"])
async def test_the_next_request_is_not_taken_for_the_rest_of_a_body(tmp_path, how):
    async with listening(EarlyReplica(waits_for_end=how == "caller left")) as port:
        settings = GateSettings(
            replica_id="r", version="A", upstream_port=port, control=tmp_path / "gate", scoring_timeout_ms=2_000
        )
        async with serving(settings) as gate:
            writers = []
            if how == "answered early":
                head, writer = await ask(gate, HALF)
                assert head.startswith(b"HTTP/1.1 200")
                writers.append(writer)
            else:
                _, leaving = await asyncio.open_connection("127.0.0.1", gate.port)
                leaving.write(HALF)
                async with asyncio.timeout(10):
                    while not gate.admission.running:
                        await asyncio.sleep(0.01)
                leaving.transport.abort()
            await until_free(gate)
            for _ in range(2):
                head, writer = await ask(gate, WHOLE)
                assert head.startswith(b"HTTP/1.1 200")
                writers.append(writer)
                await until_free(gate)
            for writer in writers:
                writer.close()


async def test_a_connection_whose_request_was_whole_is_used_again(tmp_path):
    replica = EarlyReplica(waits_for_end=True)
    async with listening(replica) as port:
        settings = GateSettings(
            replica_id="r", version="A", upstream_port=port, health_port=1, control=tmp_path / "gate"
        )
        async with serving(settings) as gate:
            for _ in range(3):
                _, writer = await ask(gate, WHOLE)
                writer.close()
            assert replica.connections == 1


async def test_an_early_answer_says_that_its_connection_is_not_kept(tmp_path):
    """HAProxy would send its next request to where only the rest of the body is read and dropped."""
    async with listening(EarlyReplica(waits_for_end=False)) as port:
        settings = GateSettings(replica_id="r", version="A", upstream_port=port, control=tmp_path / "gate")
        async with serving(settings) as gate:
            head, writer = await ask(gate, HALF.replace(b"host: x", b"host: x\r\nx-aks-inference-keep: 1"))
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in head
            head, whole = await ask(gate, WHOLE.replace(b"host: x", b"host: x\r\nx-aks-inference-keep: 1"))
            assert b"connection: close" not in head
            for one in (writer, whole):
                one.close()
            await until_free(gate)


async def test_a_request_that_was_held_up_does_not_hold_up_the_next_one(tmp_path):
    """A replica that answers with some of the body untaken says nothing more of it."""
    replica = SlowReplica(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    async with listening(replica) as port:
        settings = GateSettings(
            replica_id="r", version="A", upstream_port=port, health_port=1, control=tmp_path / "gate"
        )
        async with serving(settings) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            async with asyncio.timeout(10):
                for _ in range(2):
                    writer.write(WHOLE.replace(b"host: x", b"host: x\r\nx-aks-inference-keep: 1"))
                    while not gate.admission.running:
                        await asyncio.sleep(0.01)
                    (connection,) = gate.connections
                    connection.hold("replica", True)
                    replica.go.release()
                    assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
            writer.close()
            await until_free(gate)


async def test_a_full_backlog_is_no_connection(tmp_path):
    """Which the loop would take it for: what was never sent would be lost instead of handed back."""
    address = Address(tmp_path / "app")
    opened: list[socket.socket] = []

    async def fill() -> None:
        for _ in range(10):
            opened.append(await address.connect())

    with address.listen(0):
        with pytest.raises(BlockingIOError):
            await fill()
        for each in opened:
            each.close()


class SlowReplica:
    """Sends an answer piece by piece, each when it is told to."""

    def __init__(self, *pieces: bytes) -> None:
        self.open = 0
        self.go = asyncio.Semaphore(0)
        self.sent = asyncio.Semaphore(0)
        self._pieces = pieces

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        await reader.readuntil(b"\r\n\r\n")
        for piece in self._pieces:
            await self.go.acquire()
            writer.write(piece)
            await writer.drain()
            self.sent.release()
        await reader.read()
        writer.close()
        self.open -= 1


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        (b"content-length: 4", [b"", b"ab", b"cd"]),
        (b"transfer-encoding: chunked", [b"", b"2\r\nab\r\n", b"2\r\ncd\r\n", b"0\r\n\r\n"]),
    ],
)
async def test_a_slow_answer_goes_out_before_it_is_whole(tmp_path, head, pieces):
    """Held for a moment only: then whoever asked sees what there is."""
    replica = SlowReplica(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head, *pieces[1:])
    async with listening(replica) as port, asyncio.timeout(10):
        settings = GateSettings(
            replica_id="r", version="A", upstream_port=port, health_port=1, control=tmp_path / "gate"
        )
        async with serving(settings) as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write(b"GET /score HTTP/1.1\r\nhost: x\r\n\r\n")
            for number, piece in enumerate(pieces):
                replica.go.release()
                await replica.sent.acquire()
                said = await reader.readexactly(len(piece)) if number else await reader.readuntil(b"\r\n\r\n")
                assert said == piece if number else said.startswith(b"HTTP/1.1 200 OK")
            writer.close()


async def test_an_answer_that_breaks_off_at_once_is_no_answer(tmp_path):
    """Head without body, then the end: nothing of it went out, so it can still be told as lost."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    settings = GateSettings(replica_id="r", version="A", upstream_port=port, health_port=1, control=tmp_path / "gate")
    async with server, serving(settings) as gate:
        head, writer = await ask(gate, WHOLE)
        assert head.startswith(b"HTTP/1.1 502")
        assert b"replica-lost" in head
        writer.close()
