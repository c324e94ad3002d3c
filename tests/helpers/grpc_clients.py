"""Clients of gRPC, as any have them, of the model server in `tests/router/grpc_replica.py`."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

NAMED = (("x-aks-inference-endpoint", "svc"),)
KEYED = (*NAMED, ("authorization", "Bearer k"))
ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
CODE = grpc.StatusCode


class Client:
    """A channel to the router, as any client of grpcio has it."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self.channel = channel
        self.metadata = metadata

    def score(self, *, metadata: Any = None, timeout: float = 20, **message: Any) -> Any:
        call = self.channel.unary_unary("/stub.Model/Score")
        return call(json.dumps(message).encode(), metadata=metadata or self.metadata, timeout=timeout)

    def stream(self, timeout: float = 20, **message: Any) -> Any:
        call = self.channel.unary_stream("/stub.Model/Stream")
        return call(json.dumps(message).encode(), metadata=self.metadata, timeout=timeout)

    def sum(self, messages: AsyncIterator[bytes], timeout: float = 20) -> Any:
        return self.channel.stream_unary("/stub.Model/Sum")(messages, metadata=self.metadata, timeout=timeout)

    def chat(self, timeout: float = 20) -> Any:
        return self.channel.stream_stream("/stub.Model/Chat")(metadata=self.metadata, timeout=timeout)


def read(metadata: Any) -> dict[str, Any]:
    return dict(list(metadata or ()))


async def refused(call: Any) -> tuple[grpc.StatusCode, str | None, dict[str, Any]]:
    """How a call failed: its code, our reason, and what came with it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    told = read(caught.value.trailing_metadata())
    return caught.value.code(), told.get("x-aks-inference-reason"), told


async def straight(replica: Any, method: str) -> bytes:
    """To the model, past router and gate."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{replica.port}") as channel:
        answer: bytes = await channel.unary_unary(f"/stub.Model/{method}")(b"")
        return answer


async def stats(replica: Any) -> dict[str, Any]:
    return json.loads(await straight(replica, "Stats"))


async def release(replica: Any) -> None:
    """What the model holds ends."""
    await straight(replica, "Release")


async def numbers(count: int, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for number in range(count):
        yield json.dumps({"number": number}).encode()
        await asyncio.sleep(pause_s)
