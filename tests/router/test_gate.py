"""The gate alone, over its real sockets."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gate_clients import Connection

from aks_inference_runtime.api.errors import RuntimeUnavailable

pytestmark = pytest.mark.usefixtures("closed_connections")
SCORE = b"GET /score HTTP/1.1\r\nhost: x\r\n"


class Client(Connection):
    async def ask(self, headers: bytes = b"", *, timeout: float = 15) -> tuple[bytes, bytes]:
        self.writer.write(SCORE + headers + b"\r\n")
        return await self.answer(timeout)

    async def rest(self, timeout: float = 15) -> bytes:
        async with asyncio.timeout(timeout):
            return await self.reader.read()


class Control:
    """The control socket of a gate."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, replica) -> "Control":
        return cls(*await asyncio.open_unix_connection(str(replica.control)))

    def send(self, line: str) -> None:
        self.writer.write(line.encode() + b"\n")

    async def line(self, timeout: float = 5) -> dict:
        async with asyncio.timeout(timeout):
            return json.loads(await self.reader.readline())

    def close(self) -> None:
        self.writer.close()


async def counts(bed, replica, running: int, waiting: int) -> None:
    """Waits until the gate has this many requests."""

    async def seen() -> bool:
        status = await replica.status()
        return (status.running, status.waiting) == (running, waiting)

    await bed.until(seen)


async def test_one_request_a_connection_and_counts(bed):
    replica = await bed.replica()
    for _ in range(3):
        client = await Client.to(replica)
        head, _ = await client.ask()
        assert head.startswith(b"HTTP/1.1 200")
        assert b"x-aks-inference-version: A" in head
        assert b"connection: close" in head
        assert await client.rest() == b""
    status = await replica.status()
    assert (status.running, status.orphans, status.served_total, status.ready) == (0, 0, 3, True)


async def test_a_full_gate_lets_wait_in_order_and_refuses_at_the_deadline(bed):
    replica = await bed.replica(queueTimeoutMs=2_000)
    clients = [await Client.to(replica) for _ in range(4)]
    first = asyncio.create_task(clients[0].ask(b"x-sleep-ms: 1200\r\nx-id: 0\r\n"))
    await counts(bed, replica, 1, 0)
    tasks = []
    for number, client in enumerate(clients[1:], 1):
        slow = b"x-sleep-ms: 3000\r\n" if number == 2 else b""
        tasks.append(asyncio.create_task(client.ask(slow + b"x-id: %d\r\n" % number)))
        await counts(bed, replica, 1, number)
    assert (await first)[0].startswith(b"HTTP/1.1 200")
    assert (await tasks[0])[0].startswith(b"HTTP/1.1 200")
    head, _ = await tasks[2]
    assert head.startswith(b"HTTP/1.1 503")
    assert b"x-aks-inference-reason: queue-timeout" in head
    assert (await tasks[1])[0].startswith(b"HTTP/1.1 200")
    stats = await replica.stats()
    assert [i for i, _ in stats["began"]] == ["0", "1", "2"]
    assert stats["most"] == 1
    for client in clients:
        client.close()


async def test_who_leaves_the_line_is_never_passed_on(bed):
    replica = await bed.replica(queueTimeoutMs=5_000)
    first, second, third = [await Client.to(replica) for _ in range(3)]
    running = asyncio.create_task(first.ask(b"x-sleep-ms: 1000\r\nx-id: 0\r\n"))
    await counts(bed, replica, 1, 0)
    second.writer.write(SCORE + b"x-id: 1\r\n\r\n")
    await counts(bed, replica, 1, 1)
    waits = asyncio.create_task(third.ask(b"x-id: 2\r\n"))
    await counts(bed, replica, 1, 2)
    second.close()
    assert (await running)[0].startswith(b"HTTP/1.1 200")
    assert (await waits)[0].startswith(b"HTTP/1.1 200")
    assert [i for i, _ in (await replica.stats())["began"]] == ["0", "2"]
    first.close()
    third.close()


async def test_the_answer_waits_for_the_watcher(bed):
    """At the scoring deadline the watcher hears of the orphan before the client hears of the timeout."""
    replica = await bed.replica(scoringTimeoutMs=300)
    watcher = await Control.of(replica)
    watcher.send('{"op": "watch"}')
    assert (await watcher.line())["orphans"] == 0
    client = await Client.to(replica)
    asking = asyncio.create_task(client.ask(b"x-sleep-ms: 1500\r\n"))
    told = await watcher.line()
    assert (told["running"], told["orphans"]) == (1, 1)
    assert not asking.done()
    watcher.send(json.dumps({"ack": told["seq"]}))
    head, _ = await asking
    assert head.startswith(b"HTTP/1.1 504")
    # The next request waits until the replica is done.
    client.close()
    client = await Client.to(replica)
    head, _ = await client.ask(b"x-sleep-ms: 0\r\n")
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))
    told = await watcher.line()
    assert told["orphans"] == 0
    assert (await replica.stats())["most"] == 1
    watcher.close()
    client.close()


async def test_a_watcher_that_is_silent_delays_an_answer_only_a_little(bed):
    replica = await bed.replica(scoringTimeoutMs=200)
    watcher = await Control.of(replica)
    watcher.send('{"op": "watch"}')
    await watcher.line()
    client = await Client.to(replica)
    loop = asyncio.get_running_loop()
    began = loop.time()
    head, _ = await client.ask(b"x-sleep-ms: 3000\r\n")
    assert head.startswith(b"HTTP/1.1 504")
    assert loop.time() - began < 2.8
    watcher.close()
    client.close()


@pytest.mark.parametrize("line", ["nonsense", "3", '{"op": "other"}', '{"ack": "x"}', "[" * 200, "x" * 100_000])
async def test_bad_control_lines(bed, line):
    replica = await bed.replica()
    control = await Control.of(replica)
    control.send(line)
    with contextlib.suppress(ConnectionResetError):
        assert "error" in await control.line()
        assert await control.reader.read() == b""
    control.close()
    assert (await replica.status()).ready


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET /score HTTP/1.1\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /score HTTP/1.1\r\nno colon\r\n\r\n",
    ],
    ids=["nonsense", "both lengths", "two lengths", "large header", "long path", "no colon"],
)
async def test_malformed_requests(bed, request_bytes):
    replica = await bed.replica()
    client = await Client.to(replica)
    client.writer.write(request_bytes)
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"x-aks-inference-reason: bad-request" in answer
    assert (await replica.stats())["began"] == []
    client.close()


async def test_http_1_0_and_head(bed):
    replica = await bed.replica()
    old = await Client.to(replica)
    old.writer.write(b"GET /score HTTP/1.0\r\nx-stream: 2,1\r\n\r\n")
    answer = await old.rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"chunked" not in answer
    assert answer.endswith(b"data: 0\ndata: 1\n")
    old.close()
    head = await Client.to(replica)
    head.writer.write(b"HEAD /score HTTP/1.1\r\nhost: x\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await head.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await head.rest() == b""
    head.close()


async def test_a_large_answer_to_a_slow_reader_does_not_fill_the_gate(bed):
    replica = await bed.replica(sleep_ms=0)
    client = await Client.to(replica)
    client.reader._limit = 1  # type: ignore[attr-defined]  # asyncio's own reader stops the socket at twice this
    client.writer.write(SCORE + b"x-bytes: 200000000\r\n\r\n")
    looks: list[int] = []

    async def stands() -> bool:
        """Nothing more is read here, and the gate holds what it holds."""
        if client.writer.transport.is_reading():
            return False
        looks.append(int(Path(f"/proc/{replica.gate.pid}/statm").read_text().split()[1]) * 4096)
        return len(looks) > 50 and len(set(looks[-50:])) == 1

    await bed.until(stands)
    assert max(looks) < 150_000_000
    client.close()


async def test_a_replica_that_is_gone(bed):
    """The request that finds it out is handed back; further ones are refused before anything of them was sent."""
    replica = await bed.replica()
    replica.stub.kill()
    replica.stub.wait()
    client = await Client.to(replica)
    head, _ = await client.ask()
    assert head.startswith(b"HTTP/1.1 425")
    assert b"x-aks-inference-reason: replica-lost" in head
    assert not (await replica.status()).ready
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await Client.to(replica)
    client.close()


async def test_a_lost_request_is_answered_after_the_gate_has_closed(bed):
    """Who hears of the lost one can send no other there; when the replica answers again, it can."""
    replica = await bed.replica()
    waiting = await Client.to(replica)
    client = await Client.to(replica)
    head, _ = await client.ask(b"x-end: early\r\n")
    assert head.startswith(b"HTTP/1.1 502")
    assert b"x-aks-inference-reason: replica-lost" in head
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await Client.to(replica)
    # A connection from before is no way past the closed door.
    head, _ = await waiting.ask()
    assert head.startswith(b"HTTP/1.1 425")

    async def ready() -> bool:
        return (await replica.status()).ready

    await bed.until(ready)
    again = await Client.to(replica)
    assert (await again.ask())[0].startswith(b"HTTP/1.1 200")
    for one in (waiting, client, again):
        one.close()


async def test_what_nobody_read_is_handed_back(bed):
    """A server that goes with connections in its backlog resets them: nobody has seen those requests."""
    replica = await bed.replica()
    os.kill(replica.stub.pid, signal.SIGSTOP)
    client = await Client.to(replica)
    asking = asyncio.create_task(client.ask())

    async def running() -> bool:
        return (await replica.status()).running == 1

    await bed.until(running)
    upstream = str(bed.directory / f"{replica.id}.app")

    async def in_the_backlog() -> bool:
        # Columns of a Unix socket: 5 is its state, 2 is a connection that was not accepted; 7 its path.
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return any(line[5] == "02" and line[7:] == [upstream] for line in lines)

    await bed.until(in_the_backlog)
    replica.stub.kill()
    assert (await asking)[0].startswith(b"HTTP/1.1 425")
    client.close()


@pytest.mark.parametrize("answer", ["nonsense", "large head", "garbage after"])
async def test_a_malformed_answer_keeps_the_slot_until_the_replica_is_done(bed, answer):
    replica = await bed.replica(queueTimeoutMs=5_000)
    client, second = await Client.to(replica), await Client.to(replica)
    head, _ = await client.ask(b"x-malformed: %b,700\r\n" % answer.encode())
    if answer == "garbage after":
        assert head.startswith(b"HTTP/1.1 200")
    else:
        assert head.startswith(b"HTTP/1.1 502")
        assert b"x-aks-inference-reason: replica-lost" in head
        status = await replica.status()
        assert (status.running, status.orphans, status.ready) == (1, 1, True)
    assert (await second.ask())[0].startswith(b"HTTP/1.1 200")
    stats = await replica.stats()
    assert stats["most"] == 1
    assert (await replica.status()).orphans == 0
    client.close()
    second.close()


async def test_sigterm_lets_what_runs_finish(bed):
    replica = await bed.replica()
    client = await Client.to(replica)
    asking = asyncio.create_task(client.ask(b"x-sleep-ms: 700\r\n"))
    await counts(bed, replica, 1, 0)
    replica.gate.send_signal(signal.SIGTERM)
    assert (await asking)[0].startswith(b"HTTP/1.1 200")
    assert await asyncio.to_thread(replica.gate.wait, 5) == 0
    with pytest.raises(RuntimeUnavailable):
        await replica.status()
    assert not replica.control.exists()
    client.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "No such file"),
        ("{", "JSON"),
        ("{}", "replicaId"),
        ('{"replicaId": "r", "version": "A", "upstreamPort": 0, "control": "/x"}', "upstreamPort"),
        ('{"replicaId": "r", "version": "A", "upstreamPort": 1, "control": "/x", "more": 1}', "more"),
    ],
    ids=["missing", "no JSON", "empty", "out of range", "unknown"],
)
def test_settings_that_cannot_be_used(tmp_path, settings, said):
    path = tmp_path / "gate.json"
    if settings is not None:
        path.write_text(settings)
    done = subprocess.run(
        [sys.executable, "-m", "aks_inference_runtime.router.gate", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
