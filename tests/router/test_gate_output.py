"""What a gate cannot say (nobody reads it, a full disk, a broken pipe) costs nothing but the line."""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.gate import GateClient, lines
from aks_inference_runtime.router.gate.lines import Lines
from aks_inference_runtime.router.gate.server import Gate
from aks_inference_runtime.router.gate.settings import GateSettings

LONG = "/" + "x" * 8_000
"""A path that makes a line of the access log as long."""
PIPE_BYTES = 4_096


async def until(holds: Any, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reading, writing
    for number in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(number)


def read_on(reading: int) -> list[str]:
    os.set_blocking(reading, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reading, 1 << 20):
            data += piece
    os.set_blocking(reading, True)
    return data.decode().splitlines()


async def test_a_reader_that_stopped_and_goes_on(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_BYTES", 100_000)
    reading, writing = pipe
    log = Lines(writing, "lost {}".format)
    for number in range(10_000):
        log.put(f"line {number} {'x' * 90}")
    assert log.dropped > 8_000
    got: list[str] = []

    def all_there() -> bool:
        got.extend(read_on(reading))
        told = sum(int(line.removeprefix("lost ")) for line in got if line.startswith("lost "))
        return told == log.dropped and sum(line.startswith("line ") for line in got) + told == 10_000

    await until(all_there)
    log.put("after")
    await until(lambda: "after" in got or got.extend(read_on(reading)))
    log.close()


def test_an_end_does_not_wait_for_a_reader(pipe: tuple[int, int]) -> None:
    log = Lines(pipe[1])
    log.put("x" * 100_000)
    log.close(0.05)
    # Its thread must not write into what gets the same number next.
    os.close(pipe[0])
    log._thread.join(30)
    assert not log._thread.is_alive()


def test_all_is_written_at_the_end(pipe: tuple[int, int]) -> None:
    log = Lines(pipe[1])
    for number in range(20):
        log.put(str(number))
    log.close()
    assert read_on(pipe[0]) == [str(number) for number in range(20)]


def test_what_a_full_disk_does_not_take_is_told_later(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was cut ends before the next one begins."""
    write, full = os.write, True

    def written(number: int, data: bytes) -> int:
        if not full:
            return write(number, data)
        if data.startswith(b"one"):
            return write(number, b"one\ntw")
        raise OSError(errno.ENOSPC, "No space left on device")

    log = Lines(pipe[1], "lost {}".format)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", written)
        # As the thread does it, without waiting for it.
        assert log._lost(b"one\ntwo\nthree\n") == 2
        assert log._lost(b"four\n") == 1
        full = False
        assert log._lost(b"five\n") == 0
    log.close()
    assert read_on(pipe[0]) == ["one", "tw", "five"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
async def test_lines_that_cannot_be_written_are_counted() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        log = Lines(full.fileno())
        log.put("one")
        await until(lambda: log.dropped == 1)
        log.put("two")
        await until(lambda: log.dropped == 2)
        log.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="aksg-") as made:
        yield Path(made)


async def ask(address: Path, path: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(address))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_requests_go_on_while_nobody_reads_the_access_log(folder: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_there
        open_there += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        open_there -= 1

    open_there = 0

    replica = await asyncio.start_unix_server(serve, str(folder / "app"))
    settings = GateSettings(
        replica_id="r",
        version="A",
        upstream_path=folder / "app",
        listen_path=folder / "in",
        control=folder / "control",
        access_log=True,
    )
    (folder / "gate.json").write_text(settings.model_dump_json(by_alias=True))
    gate = subprocess.Popen(
        [sys.executable, "-m", "aks_inference_runtime.router.gate", str(folder / "gate.json")], stdout=subprocess.PIPE
    )
    assert gate.stdout is not None
    try:
        async with asyncio.timeout(60), replica:
            ready = False
            while not ready:
                with contextlib.suppress(RuntimeUnavailable):
                    ready = (await GateClient(folder / "control").status()).ready
                await asyncio.sleep(0.01)
            count = 2 * lines.MOST_BYTES // len(LONG)
            for _ in range(count):
                assert (await ask(folder / "in", LONG)).startswith(b"HTTP/1.1 200")
            found: list[dict[str, Any]] = []
            number = gate.stdout.fileno()
            rest = b""
            lost = 0
            while len([line for line in found if "status" in line]) + lost < count:
                rest += await asyncio.to_thread(os.read, number, 1 << 20)
                *whole, rest = rest.split(b"\n")
                found += map(json.loads, whole)
                lost = sum(line.get("lines_lost", 0) for line in found)
            assert lost > 0
            # Stopped again: its end does not wait for a reader.
            for _ in range(20):
                await ask(folder / "in", LONG)
            gate.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(gate.wait, 20) == 0
            await until(lambda: not open_there)
    finally:
        gate.kill()
        gate.wait()
        gate.stdout.close()


async def test_the_watch_goes_on_when_it_cannot_listen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk forbids the socket's path and the log's line at once."""

    def refused() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = GateSettings(
        replica_id="r", version="A", upstream_port=1, control=folder / "control", listen_path=folder / "in"
    )
    gate = Gate(settings)
    try:
        with monkeypatch.context() as patched, Path("/dev/full").open("wb", buffering=0) as full:
            patched.setattr(gate.listener, "open", refused)
            with lines.logging_never_waits(full.fileno()):
                assert not await gate.looked(True)
        assert await gate.looked(True)
    finally:
        gate.listener.close()
        gate.sockets.close()
