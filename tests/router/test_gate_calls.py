"""Gates of replicas that speak gRPC, by what goes over the wire; and the rules that are pure."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gate_clients import Connection
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.router.gate import grpc_wire
from aks_inference_runtime.router.gate.goaways import GoAways
from aks_inference_runtime.router.gate.telemetry import Telemetry

REPLICA = Path(__file__).with_name("grpc_replica.py")
MESSAGE = b"\0\0\0\0\2{}"
HEAD = b"POST /api/v1/service/svc/score?/a.B/C HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n"
OK = [(":status", "200"), ("content-type", "application/grpc")]
ENDED = [("grpc-status", "0"), ("x-last", "1")]

pytestmark = pytest.mark.usefixtures("closed_connections")


# --- what is pure


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(b"1S", 1.0), (b"250m", 0.25), (b"99999999u", 99.999999), (b"2H", 7200.0), (b"5M", 300.0), (b"1n", 1e-9)]
    + [(wrong, None) for wrong in (None, b"", b"S", b"1", b"1s", b"-1S", b"123456789m", b"1.5S")],
)
def test_timeouts(timeout: bytes | None, seconds: float | None) -> None:
    found = grpc_wire.seconds_of(timeout)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_timeout_as_it_is_said(seconds: float) -> None:
    said = grpc_wire.seconds_of(grpc_wire.timeout_of(seconds))
    assert said is not None
    # Never longer than it is, but for the least that can be said.
    assert min(seconds, 99_999_999) * 0.5 <= said <= max(seconds * (1 + 1e-12), 1e-6)


@pytest.mark.parametrize(
    ("message", "encoded"), [("plain: words", b"plain: words"), ("100 %", b"100 %25"), ("ö\n", b"%C3%B6%0A")]
)
def test_messages_of_statuses(message: str, encoded: bytes) -> None:
    assert grpc_wire.encoded(message) == encoded


def test_every_status_of_the_table_has_a_code() -> None:
    from aks_inference_runtime.router.defaults import MESSAGES
    from aks_inference_runtime.router.refusals import Refusal

    assert {refusal.value[0] for refusal in Refusal} | MESSAGES.keys() <= grpc_wire.OF_STATUS.keys()
    assert [grpc_wire.status_of(code) for code in (0, 5, 13, 14, 99)] == [200, 404, 500, 503, 500]
    assert grpc_wire.code_of([(b"grpc-status", b"5")]) == 5
    assert grpc_wire.code_of([(b"grpc-status", b"x"), (b"other", b"5")]) is None


def test_the_line_of_a_call() -> None:
    lines: list[str] = []
    telemetry = Telemetry({"endpoint": "svc"}, lines.append)
    record = grpc_wire.CallRecord(b"id", b"POST", b"/a.B/C", 0.25)
    record.code = 5
    telemetry.answered(record, grpc_wire.status_of(5), "", 0.1, 0.0)
    told = json.loads(lines[0])
    assert (told["path"], told["status"], told["grpc_status"], told["queue_ms"]) == ("/a.B/C", 404, 5, 250.0)
    assert telemetry.answers[404, ""] == 1


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        yield data[at:cut]
        at = cut
    yield data[at:]


@given(st.lists(st.integers(0, 40), max_size=8), st.lists(st.integers(0, 500), max_size=6), st.integers(0, 4))
def test_where_messages_begin_and_end(lengths: list[int], cuts: list[int], more: int) -> None:
    stream = b"".join(b"\1" + length.to_bytes(4, "big") + b"m" * length for length in lengths)
    messages = grpc_wire.Messages()
    largest = max((messages.largest(piece) for piece in pieces(stream, cuts)), default=0)
    assert (largest, messages.begun, messages.midway) == (max(lengths, default=0), len(lengths), False)
    messages.largest(b"\0\0\0\0\5"[: more + 1])
    assert messages.midway


def frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0, 0, 0, 0, 1]) + payload


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 4, 7, 8]), st.binary(min_size=8, max_size=40)), max_size=8),
    st.lists(st.integers(0, 500), max_size=6),
)
def test_goaways_are_taken_out_however_they_come(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(frame(*one) for one in frames)
    goaways = GoAways()
    passed = b"".join(goaways.without(piece) for piece in pieces(stream, cuts))
    assert passed == b"".join(frame(*one) for one in frames if one[0] != 7)
    lasts = [int.from_bytes(payload[:4], "big") & 0x7FFFFFFF for kind, payload in frames if kind == 7]
    assert goaways.last == (lasts[-1] if lasts else None)


# --- over the wire


class Server:
    """What a test says that a server does with each call; health checks get what most servers say: no such method."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.does: Callable[[H2Connection, int], None] = answered
        self.calls = 0
        self.connections = 0
        self.resets: list[int] = []
        self.received = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        protocol.initiate_connection()
        healthy: set[int] = set()
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(protocol.data_to_send())
                data = await reader.read(65_536)
                if not data:
                    break
                for event in protocol.receive_data(data):
                    self.take(protocol, event, healthy)
                    if self.does is gone:
                        writer.close()
                        return
        writer.close()

    def take(self, protocol: H2Connection, event: Event, healthy: set[int]) -> None:
        match event:
            case RequestReceived(stream_id=stream, headers=headers):
                if ("path", "/grpc.health.v1.Health/Check") in [(name[1:], value) for name, value in headers]:
                    healthy.add(stream)
                else:
                    self.calls += 1
            case DataReceived(stream_id=stream, flow_controlled_length=count):
                self.received += count
                protocol.acknowledge_received_data(count, stream)
            case StreamEnded(stream_id=stream) if stream in healthy:
                protocol.send_headers(stream, [*OK, ("grpc-status", "12")], end_stream=True)
            case StreamEnded(stream_id=stream):
                self.does(protocol, stream)
            case StreamReset(error_code=code):
                self.resets.append(int(code))


def answered(protocol: H2Connection, stream: int) -> None:
    protocol.send_headers(stream, OK)
    protocol.send_data(stream, MESSAGE)
    protocol.send_headers(stream, ENDED, end_stream=True)


def going(protocol: H2Connection, stream: int) -> None:
    """As servers end that limit the age of connections: what they have they finish."""
    protocol.send_headers(stream, OK)
    answer = protocol.data_to_send()
    goaway = (8).to_bytes(3, "big") + b"\x07\0\0\0\0\0" + stream.to_bytes(4, "big") + bytes(4)
    protocol.send_data(stream, MESSAGE)
    protocol.send_headers(stream, ENDED, end_stream=True)
    rest = protocol.data_to_send()
    protocol._data_to_send = bytearray(answer + goaway + rest)


def refused(protocol: H2Connection, stream: int) -> None:
    protocol.reset_stream(stream, 0x7)


def broken(protocol: H2Connection, stream: int) -> None:
    protocol.send_headers(stream, OK)
    protocol.send_data(stream, MESSAGE)
    protocol.reset_stream(stream, 0x2)


def silent(protocol: H2Connection, stream: int) -> None:
    """No answer."""


def gone(protocol: H2Connection, stream: int) -> None:
    """The connection ends, and every further one."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "s")
    listening = await asyncio.start_unix_server(made.serve, made.path)
    try:
        yield made
    finally:
        listening.close()


async def whole(connection: Connection) -> bytes:
    """All that comes until the gate closes."""
    async with asyncio.timeout(15):
        return await connection.reader.read()


async def called(replica: Any, *, extra: bytes = b"", body: bytes = MESSAGE) -> bytes:
    connection = await Connection.to(replica)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    connection.writer.write(HEAD + extra + b"transfer-encoding: chunked\r\n\r\n" + chunks)
    return await whole(connection)


@pytest.mark.long
async def test_what_servers_do_with_calls(bed: Any, server: Server) -> None:
    replica = await bed.replica(
        stub=REPLICA, protocol="grpc", healthProtocol="grpc", upstreamPath=str(server.path), cap=1
    )
    said = await called(replica, extra=b"x-request-id: mine\r\n")
    head, _, rest = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id: mine" in head
    assert rest == b"7\r\n" + MESSAGE + b"\r\n0\r\ngrpc-status: 0\r\nx-last: 1\r\n\r\n"
    # One connection for one call after the other.
    before = server.connections
    for _ in range(5):
        assert (await called(replica)).endswith(b"x-last: 1\r\n\r\n")
    assert server.connections == before

    server.does = going
    for _ in range(3):
        assert (await called(replica)).endswith(b"x-last: 1\r\n\r\n")
    assert server.connections >= before + 2, "a connection that ends takes no further call"

    server.does = refused
    said = await called(replica)
    assert b"grpc-status: 14\r\n" in said
    assert b"content-length: 0\r\n" in said
    server.does = broken
    assert b"grpc-status: 13\r\n" in await called(replica)
    # None of it was the end of the replica.
    server.does = answered
    assert (await called(replica)).endswith(b"x-last: 1\r\n\r\n")
    assert (await replica.status()).ready

    # A call past its deadline never reaches it.
    server.does = silent
    calls = server.calls
    since = b"x-aks-inference-turn: 1-1\r\nx-aks-inference-since: 1000+500\r\n"
    assert b"grpc-status" in await called(replica, extra=since + b"grpc-timeout: 0m\r\n")
    assert server.calls == calls

    # Who leaves with the request under way cancels it.
    connection = await Connection.to(replica)
    connection.writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n7\r\n" + MESSAGE + b"\r\n")
    async with asyncio.timeout(15):
        while server.calls == calls:
            await asyncio.sleep(0.01)
        connection.close()
        while not server.resets:
            await asyncio.sleep(0.01)
    assert server.resets == [0x8]
    status = await replica.status()
    assert (status.running, status.orphans) == (0, 0)

    server.does = gone
    said = await called(replica)
    assert b"grpc-status: 14\r\n" in said
    assert b"x-aks-inference-reason: replica-lost" in said


@pytest.mark.long
async def test_a_large_message_goes_as_the_replica_takes_it(bed: Any, server: Server) -> None:
    replica = await bed.replica(stub=REPLICA, protocol="grpc", healthProtocol="grpc", upstreamPath=str(server.path))
    body = b"\0" + (3_000_000).to_bytes(4, "big") + b"x" * 3_000_000
    assert (await called(replica, body=body)).endswith(b"x-last: 1\r\n\r\n")
    assert server.received >= len(body)


@pytest.mark.long
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /x?/a.B/C HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n",
        b"GET /x/swagger.json HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_what_is_no_call(bed: Any, server: Server, request_bytes: bytes) -> None:
    replica = await bed.replica(stub=REPLICA, protocol="grpc", healthProtocol="grpc", upstreamPath=str(server.path))
    connection = await Connection.to(replica)
    connection.writer.write(request_bytes)
    said = await whole(connection)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"speaks gRPC" in said
    assert server.calls == 0
