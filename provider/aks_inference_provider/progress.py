"""Messages to the engine while something takes its time."""

import asyncio
import contextlib

import grpc.aio
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc


class EngineLog:
    """The engine's log service; without an address it says nothing."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stub: engine_pb2_grpc.EngineStub | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def connect(self, address: str) -> None:
        """Uses another address from now on."""
        if address and address != self._address:
            self._address, self._stub = address, None

    def send(self, urn: str, message: str, *, warning: bool, ephemeral: bool) -> None:
        """Sends a message in the background: a slow engine does not hold up the operation."""
        if not self._address:
            return
        severity = engine_pb2.WARNING if warning else engine_pb2.INFO
        request = engine_pb2.LogRequest(severity=severity, message=message, urn=urn, ephemeral=ephemeral)
        task = asyncio.get_running_loop().create_task(self._send(request))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def flush(self) -> None:
        """Waits for what is under way."""
        if self._sending:
            await asyncio.wait(set(self._sending))

    async def _send(self, request: engine_pb2.LogRequest) -> None:
        if self._stub is None:
            self._stub = engine_pb2_grpc.EngineStub(grpc.aio.insecure_channel(self._address))
        # The engine may be gone already; a message that nobody reads is no reason to fail.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._stub.Log(request, timeout=5)  # type: ignore[misc]  # the stubs know only the blocking kind


class Progress:
    """The messages of one resource."""

    def __init__(self, log: EngineLog, urn: str) -> None:
        self._log = log
        self._urn = urn
        self._last = ""

    def status(self, message: str) -> None:
        """What is going on now; the display keeps only the last one."""
        if message and message != self._last:
            self._last = message
            self._log.send(self._urn, message, warning=False, ephemeral=True)

    def info(self, message: str) -> None:
        """What the display keeps."""
        self._log.send(self._urn, message, warning=False, ephemeral=False)

    def warn(self, message: str) -> None:
        """What the user should know and need not mend."""
        self._log.send(self._urn, message, warning=True, ephemeral=False)

    async def flush(self) -> None:
        """Waits until all was sent."""
        await self._log.flush()
