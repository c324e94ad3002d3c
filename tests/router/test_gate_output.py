"""What a gate cannot say, on a full disk or into a broken pipe, costs nothing but the line."""

import asyncio
import contextlib
import errno
import io
import sys
from pathlib import Path

import pytest

from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings


class Full(io.StringIO):
    """A file on a disk that is full."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    def write(self, text: str, /) -> int:
        self.tried += 1
        raise OSError(errno.ENOSPC, "No space left on device")


class Replica:
    """Answers `ok`."""

    def __init__(self) -> None:
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.open -= 1


def settings(folder: Path, port: int) -> GateSettings:
    return GateSettings(
        replica_id="r",
        version="A",
        upstream_port=port,
        control=folder / "control",
        listen_path=folder / "in",
        queue_timeout_ms=500,
        access_log=True,
    )


async def test_requests_keep_no_slot_when_the_access_log_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Full()
    monkeypatch.setattr(sys, "stdout", full)
    replica = Replica()
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    async with asyncio.timeout(20), server:
        async with serving(settings(tmp_path, port)) as gate:
            for _ in range(3):
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "in"))
                writer.write(b"GET /score HTTP/1.1\r\nhost: x\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.close()
            assert (gate.admission.running, gate.admission.served_total) == (0, 3)
        while replica.open:
            await asyncio.sleep(0.01)
    assert full.tried >= 3


async def test_the_watch_goes_on_when_it_cannot_say_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk forbids the socket's path and the log's line at once."""

    def refused() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", full := Full())
    gate = Gate(settings(tmp_path, 1))
    try:
        with monkeypatch.context() as patched:
            patched.setattr(gate.listener, "open", refused)
            assert not await gate.looked(True)
        assert full.tried
        assert await gate.looked(True)
    finally:
        gate.listener.close()
        gate.sockets.close()
