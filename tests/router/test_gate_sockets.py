"""The gate's connections from the router, with epoll and without: large bodies, slow readers, who leaves."""

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings

LARGE = 20_000_000


@pytest.fixture(params=["epoll", "loop"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop watches each socket where the system has no epoll."""
    if request.param == "loop":
        monkeypatch.delattr(select, "epoll")
    elif not hasattr(select, "epoll"):
        pytest.skip("no epoll here")


class Replica:
    """Reads a body and answers with its length, or with as many bytes as the path's query says; `?early` at once."""

    def __init__(self) -> None:
        self.open = 0
        self.go = asyncio.Event()
        self.go.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked = head.split(b" ")[1].partition(b"?")[2]
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
                if asked != b"early":
                    await reader.readexactly(length)
                await self.go.wait()
                body = b"x" * int(asked) if asked.isdigit() else b"%d" % length
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1


@contextlib.asynccontextmanager
async def gate_of(replica: Replica, folder: Path) -> AsyncIterator[Gate]:
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    settings = GateSettings(
        replica_id="r",
        version="A",
        upstream_port=port,
        health_port=1,
        control=folder / "gate",
        listen_path=folder / "in",
    )
    try:
        async with asyncio.timeout(30):
            async with serving(settings) as gate:
                yield gate
            server.close()
            while replica.open:
                await asyncio.sleep(0.01)
    finally:
        server.close()


async def until(holds: object) -> None:
    async with asyncio.timeout(10):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.01)


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.setblocking(False)
        yield made


def request(query: str = "", length: int = 0) -> bytes:
    return f"POST /score?{query} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


async def test_a_large_body_is_passed_on_whole(tmp_path: Path) -> None:
    async with gate_of(Replica(), tmp_path):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "in"))
        writer.write(request(length=LARGE) + b"x" * LARGE)
        assert (await reader.read()).endswith(b"\r\n\r\n%d" % LARGE)
        writer.close()


async def test_a_slow_reader_gets_all_of_a_large_answer(tmp_path: Path, raw: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    async with gate_of(Replica(), tmp_path) as gate:
        await loop.sock_connect(raw, str(tmp_path / "in"))
        await loop.sock_sendall(raw, request(str(LARGE)))
        (connection,) = await _connections(gate)
        await until(lambda: connection._full)  # type: ignore[attr-defined]
        got = 0
        while piece := await loop.sock_recv(raw, 100_000):
            got += len(piece)
            await asyncio.sleep(0)
        assert LARGE < got < LARGE + 1_000
        await until(lambda: not gate.connections and not gate.admission.running)


async def _connections(gate: Gate) -> tuple[object, ...]:
    await until(lambda: gate.connections)
    return tuple(gate.connections)


@pytest.mark.parametrize("how", ["closes", "ends its side", "is held and closes"])
async def test_who_leaves_while_the_request_runs_is_noticed(tmp_path: Path, raw: socket.socket, how: str) -> None:
    loop = asyncio.get_running_loop()
    replica = Replica()
    replica.go.clear()
    async with gate_of(replica, tmp_path) as gate:
        await loop.sock_connect(raw, str(tmp_path / "in"))
        await loop.sock_sendall(raw, request())
        (connection,) = await _connections(gate)
        await until(lambda: gate.admission.running)
        if how == "is held and closes" and hasattr(select, "epoll"):
            connection.hold("test", True)  # type: ignore[attr-defined]
        if how == "ends its side":
            raw.shutdown(socket.SHUT_WR)
        else:
            raw.close()
        await until(lambda: gate.admission.orphans == 1)
        replica.go.set()
        await until(lambda: not gate.admission.running)
        assert not gate.connections


async def test_an_answer_before_the_body_is_seen_and_the_rest_is_dropped(tmp_path: Path, raw: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    async with gate_of(Replica(), tmp_path) as gate:
        await loop.sock_connect(raw, str(tmp_path / "in"))
        await loop.sock_sendall(raw, request("early", 3_000_000) + b"x" * 1_000)
        assert (await loop.sock_recv(raw, 1_000)).startswith(b"HTTP/1.1 200")
        await loop.sock_sendall(raw, b"x" * 2_999_000)
        raw.close()
        await until(lambda: not gate.connections)


async def test_what_comes_after_the_request_gets_no_answer(tmp_path: Path, raw: socket.socket) -> None:
    """One request a connection: a second one behind it ends both, as nobody can be answered in order any more."""
    loop = asyncio.get_running_loop()
    replica = Replica()
    replica.go.clear()
    async with gate_of(replica, tmp_path) as gate:
        await loop.sock_connect(raw, str(tmp_path / "in"))
        await loop.sock_sendall(raw, request() + request())
        with contextlib.suppress(ConnectionResetError):
            assert await loop.sock_recv(raw, 1_000) == b""
        replica.go.set()
        await until(lambda: not gate.admission.running)
