"""What the engine shows beside a resource."""

import asyncio
from typing import Any

import grpc.aio
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from embedded_engine.kubernetes.operations import Tell

_LIMIT_S = 5.0


class Log:
    """The engine's, by its address; empty: nobody listens."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self._stub: Any = None
        self._said: set[asyncio.Task[None]] = set()

    def teller(self, urn: str) -> Tell:
        """Messages on the resource's line while something takes its time."""
        last = ""

        def tell(message: str) -> None:
            nonlocal last
            if message and message != last:
                last = message
                request = engine_pb2.LogRequest(severity=engine_pb2.INFO, message=message, urn=urn, ephemeral=True)
                task = asyncio.create_task(self._send(request))
                self._said.add(task)
                task.add_done_callback(self._said.discard)

        return tell

    async def warn(self, urn: str, message: str) -> None:
        """Stays in the run's report."""
        await self._send(engine_pb2.LogRequest(severity=engine_pb2.WARNING, message=message, urn=urn))

    async def _send(self, request: engine_pb2.LogRequest) -> None:
        if not self.engine:
            return
        if self._stub is None:
            self._stub = engine_pb2_grpc.EngineStub(grpc.aio.insecure_channel(self.engine))
        try:
            await self._stub.Log(request, timeout=_LIMIT_S)
        except grpc.aio.AioRpcError:
            # A message that nobody takes is no reason to fail.
            self.engine = ""
