"""A model server that speaks gRPC, for tests: what it does is told by its messages (JSON), and it counts what runs.

    python grpc_replica.py --path …      prints the port that it listens on, too

| method | |
| --- | --- |
| `/stub.Model/Score` | one message, one answer |
| `/stub.Model/Stream` | one message, many answers: `count`, `first_ms`, `gap_ms`, `bytes` |
| `/stub.Model/Sum` | many messages, one answer |
| `/stub.Model/Chat` | an answer to each message |
| `/stub.Model/Stats` | the counts |
| `/stub.Model/Release` | ends what calls with `hold` wait for |
| `/grpc.health.v1.Health/Check` | serves, unless `--health missing` or `--health not-serving` |

A message may say `sleep_ms`, `hold`, `code` and `details` (the call ends with this status), `bytes` (of the answer) and
`exit` (the process ends at once).
"""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc

LARGEST = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Model:
    def __init__(self, sleep_ms: float) -> None:
        self.sleep_ms = sleep_ms
        self.running = self.most = self.served = 0
        self.metadata: dict[str, str] = {}
        self.time_left: float | None = None
        self.cancelled = 0
        self._released = asyncio.Event()

    def begin(self, context: grpc.aio.ServicerContext) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        found = context.invocation_metadata() or ()
        self.metadata = {name: value if isinstance(value, str) else value.hex() for name, value in found}
        self.time_left = context.time_remaining()

    def end(self) -> None:
        self.running -= 1
        self.served += 1

    async def act(self, message: dict[str, Any], context: grpc.aio.ServicerContext) -> None:
        if message.get("exit"):
            os._exit(9)
        await asyncio.sleep(message.get("sleep_ms", self.sleep_ms) / 1000)
        if message.get("hold"):
            await self._released.wait()
        if "code" in message:
            code = grpc.StatusCode[message["code"]]
            await context.abort(code, message.get("details", ""), (("x-ended", "as asked"),))

    async def score(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.begin(context)
        try:
            message = json.loads(request)
            await context.send_initial_metadata((("x-begun", "1"),))
            context.set_trailing_metadata((("x-trailer", "of score"), ("x-bytes-bin", b"\0\xff")))
            # A model works on, whoever waits for it.
            await asyncio.shield(asyncio.ensure_future(self.act(message, context)))
            return b"x" * message["bytes"] if "bytes" in message else json.dumps({"length": len(request)}).encode()
        finally:
            self.end()

    async def stream(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        self.begin(context)
        try:
            message = json.loads(request)
            await asyncio.sleep(message.get("first_ms", 0) / 1000)
            for number in range(message["count"]):
                yield b"%d" % number + b" " * message.get("bytes", 0)
                await asyncio.sleep(message.get("gap_ms", 0) / 1000)
            await self.act(message, context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.end()

    async def sum(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
        self.begin(context)
        try:
            total = 0
            async for request in requests:
                message = json.loads(request)
                await self.act(message, context)
                total += message["number"]
            return str(total).encode()
        finally:
            self.end()

    async def chat(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        self.begin(context)
        try:
            async for request in requests:
                message = json.loads(request)
                await self.act(message, context)
                yield request
        finally:
            self.end()

    async def stats(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return json.dumps({name: value for name, value in vars(self).items() if name != "_released"}).encode()

    async def release(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self._released.set()
        self._released = asyncio.Event()
        return b""


def health(kind: str) -> dict[str, grpc.RpcMethodHandler]:
    async def check(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b"\x08\x02" if kind == "not-serving" else b"\x08\x01"

    return {} if kind == "missing" else {"Check": grpc.unary_unary_rpc_method_handler(check)}


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", required=True)
    parser.add_argument("--sleep-ms", type=float, default=0)
    parser.add_argument("--health", default="serving")
    arguments = parser.parse_args()
    model = Model(arguments.sleep_ms)
    server = grpc.aio.server(options=LARGEST)
    methods = {
        "Score": grpc.unary_unary_rpc_method_handler(model.score),
        "Stream": grpc.unary_stream_rpc_method_handler(model.stream),
        "Sum": grpc.stream_unary_rpc_method_handler(model.sum),
        "Chat": grpc.stream_stream_rpc_method_handler(model.chat),
        "Stats": grpc.unary_unary_rpc_method_handler(model.stats),
        "Release": grpc.unary_unary_rpc_method_handler(model.release),
    }
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("stub.Model", methods),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health(arguments.health)),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.add_insecure_port(f"unix:{arguments.path}")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
