"""`python -m embedded_engine.kubernetes [ENGINE]`: prints its port and serves until it is ended."""

import asyncio
import contextlib
import os
import signal
import sys

import grpc.aio
from pulumi.runtime.proto import provider_pb2_grpc

from embedded_engine.kubernetes.provider import Servicer
from embedded_engine.plugins.client import OPTIONS


async def _serve(engine_address: str) -> None:
    servicer = Servicer(engine_address)
    server = grpc.aio.server(options=OPTIONS)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # The first line of stdout is the port and nothing else.
    os.write(1, f"{port}\n".encode())
    await stop.wait()
    await server.stop(grace=1)
    await servicer.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1] if len(sys.argv) > 1 else ""))
