"""Who does not read an answer holds a replica no longer than is documented: at the gate, and with HAProxy between."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.router import readers
from aks_inference_runtime.router.gate.reading import READ_BYTES_PER_SECOND, Reading
from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings
from aks_inference_runtime.router.slots import Slot

LARGE = 30_000_000
"""More than the system keeps of an answer that nobody reads."""
PATH = "/api/v1/service/svc/score"


def asked(size: int, path: str = "/score") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\nx-bytes: {size}\r\ncontent-length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("steps", "left_s"),
    [
        # (seconds, bytes taken then); None: it has caught up, and something waits again after so many seconds.
        ([], 10),
        ([(4, 0)], 6),
        ([(4, 1)], 6 + 1 / READ_BYTES_PER_SECOND),
        ([(4, 10 * READ_BYTES_PER_SECOND)], 10),
        ([(9, 1), (9, 1)], -8 + 2 / READ_BYTES_PER_SECOND),
        # What the reader had to wait for counts for nobody.
        ([(4, 1), (None, 100.0)], 6 + 1 / READ_BYTES_PER_SECOND),
        ([(4, 1), (None, 100.0), (7, 1)], -1 + 2 / READ_BYTES_PER_SECOND),
        # Who was quick before may not pause longer for it.
        ([(1, 1_000_000_000), (11, 0)], -1),
    ],
)
def test_the_rule(steps: list[tuple[float | None, float]], left_s: float) -> None:
    now = 1_000.0
    reading = Reading(10, now)
    for seconds, amount in steps:
        if seconds is None:
            reading.caught_up(now)
            now += amount
            reading.waits(now)
        else:
            now += seconds
            reading.took(int(amount), now)
    assert reading.left_s(now) == pytest.approx(left_s)


class Replica:
    """Answers with as many bytes as it is asked for, whole or in chunks, and counts who is at it."""

    def __init__(self) -> None:
        self.open = 0
        self.served = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.partition(b"x-bytes: ")[2].partition(b"\r")[0] or 2)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
                await writer.drain()
                self.served += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def gate_of(replica: Replica, folder: Path, lines: list[str], **more: Any) -> AsyncIterator[Gate]:
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    settings = GateSettings(
        replica_id="r",
        version="A",
        upstream_port=port,
        health_port=1,
        control=folder / "gate",
        listen_path=folder / "in",
        access_log=True,
        **more,
    )
    try:
        async with asyncio.timeout(60):
            async with serving(settings) as gate:
                gate.telemetry._log = lines.append
                yield gate
            server.close()
            await until(lambda: not replica.open)
    finally:
        server.close()


@contextmanager
def client(where: Path | int) -> Iterator[socket.socket]:
    """Takes little at once, so that the system keeps little for it."""
    with socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        made.connect(str(where) if isinstance(where, Path) else ("127.0.0.1", where))
        made.setblocking(False)
        yield made


async def until(holds: Any, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


async def quick(folder: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(folder / "in"))
    writer.write(asked(2))
    answer = await reader.read()
    writer.close()
    return answer


async def drip(raw: socket.socket, gap_s: float = 0.02) -> None:
    """Reads a little now and then, until the other side has closed."""
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(raw, 100):
        await asyncio.sleep(gap_s)


@pytest.mark.parametrize("reads", [False, True], ids=["nothing", "drop by drop"])
async def test_a_reader_that_is_too_slow_is_cut_and_the_slot_is_free(tmp_path: Path, reads: bool) -> None:
    loop = asyncio.get_running_loop()
    replica, lines = Replica(), list[str]()
    async with gate_of(replica, tmp_path, lines, reader_timeout_ms=500, queue_timeout_ms=30_000) as gate:
        with client(tmp_path / "in") as raw:
            await loop.sock_sendall(raw, asked(LARGE))
            dripping = asyncio.create_task(drip(raw)) if reads else None
            await until(lambda: gate.admission.running)
            # It waits at the gate until the slot is free.
            assert (await quick(tmp_path)).startswith(b"HTTP/1.1 200")
            assert (gate.admission.running, gate.admission.orphans, replica.served) == (0, 0, 2)
            if dripping is not None:
                dripping.cancel()
        await until(lambda: not gate.connections)
        assert gate.telemetry.answers == {(200, "client-timeout"): 1, (200, ""): 1}
        first = json.loads(lines[0])
        assert (first["status"], first["reason"]) == (200, "client-timeout")


async def test_the_end_of_an_answer_is_no_exception(tmp_path: Path) -> None:
    """The replica is done, the rest waits at the gate: told when it is decided, not before."""
    loop = asyncio.get_running_loop()
    replica, lines = Replica(), list[str]()
    async with gate_of(replica, tmp_path, lines, reader_timeout_ms=1_000) as gate:
        with client(tmp_path / "in") as raw:
            # More than the system takes, less than the gate keeps.
            await loop.sock_sendall(raw, asked(260_000))
            await until(lambda: replica.served and not gate.admission.running)
            assert not lines
            assert gate.connections
            await until(lambda: not gate.connections)
        assert [json.loads(line)["reason"] for line in lines] == ["client-timeout"]
        with client(tmp_path / "in") as raw:
            await loop.sock_sendall(raw, asked(260_000))
            await until(lambda: replica.served == 2 and not gate.admission.running)
            assert len(lines) == 1
            got = 0
            while piece := await loop.sock_recv(raw, 65_536):
                got += len(piece)
            assert got > 260_000
        await until(lambda: len(lines) == 2)
        assert "reason" not in json.loads(lines[1])
        with client(tmp_path / "in") as raw:
            await loop.sock_sendall(raw, asked(260_000))
            await until(lambda: replica.served == 3 and not gate.admission.running)
        await until(lambda: len(lines) == 3)
        assert (json.loads(lines[2])["status"], json.loads(lines[2])["reason"]) == (499, "client-left")


async def test_a_replica_that_is_slow_itself_costs_its_reader_nothing(bed: Any, tmp_path: Path) -> None:
    replica = await bed.replica(reader_timeout_ms=100)
    reader, writer = await asyncio.open_unix_connection(str(replica.address))
    writer.write(b"POST /score HTTP/1.1\r\nhost: x\r\nx-stream: 10,60\r\ncontent-length: 0\r\n\r\n")
    async with asyncio.timeout(20):
        assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()


STREAM = "0x27955b70: proto=tcpv4 src=127.0.0.1:42818 fe=public be={be} srv={srv} ts=00 age=5s calls=2 rate=0 \
rq[f=1840000h,i=0,an=8000h,ax=] rp[f=80070101h,i=13323,an=4000000h,ax=] scf=[8,482h,fd=9,rex=,wex={wex}] \
scb=[8,1211h,fd=10,rex=,wex=] exp=35s rc=0 c_exp="


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (STREAM.format(be="s7", srv="r0", wex="35s"), [("0x27955b70", Slot(1, 7), "r0")]),
        (STREAM.format(be="s7", srv="r0", wex=""), []),
        (STREAM.format(be="s7", srv="<none>", wex="35s"), []),
        (STREAM.format(be="hop1", srv="next", wex="35s"), []),
    ],
)
def test_who_is_looked_at(line: str, found: list[Any]) -> None:
    assert readers.blocked(line, 1) == found


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(LARGE, id="cut by the gate"),
        pytest.param(180_000, id="whole for the gate", marks=pytest.mark.long),
    ],
)
async def test_with_haproxy_between(
    bed: Any, make_state: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Neither the gate's slot nor HAProxy's is held by who reads a little now and then."""
    caplog.set_level(logging.INFO, readers.__name__)
    monkeypatch.setattr(readers, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(readers, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(readers, "STILL_SECONDS", 0.3)
    replica = await bed.replica(reader_timeout_ms=500)
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=60_000))
    loop = asyncio.get_running_loop()

    def held() -> list[object]:
        return [held for version in router._versions.values() for held in version.held(router._observed)]

    async def read(raw: socket.socket) -> None:
        """As slowly as can be; where nobody is held by it, on to the next of many answers."""
        while True:
            await loop.sock_recv(raw, 100 if size == LARGE or held() else 50_000)
            await asyncio.sleep(0.2)

    requests = LARGE // size
    with client(bed.port) as raw:
        # One after the other: one of them finds no room, as nobody reads those before.
        await loop.sock_sendall(raw, asked(size, PATH) * requests)
        reading = asyncio.create_task(read(raw))
        await until(lambda: "is let go" in caplog.text, 50)
        assert (await bed.ask(timeout=20)).status == 200
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := await loop.sock_recv(raw, 1_000_000):
                got += len(piece)
        assert got < size * requests
    assert (await replica.stats())["most"] == 1
    status = await replica.status()
    assert (status.running, status.orphans) == (0, 0)
