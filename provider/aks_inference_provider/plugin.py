"""The process: prints its port on stdout and serves the provider protocol until it is ended."""

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence

_MAX_MESSAGE = 400 * 1024 * 1024
"""Bytes; as the engine's own limit."""
_PARENT_POLL_S = 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the plugin.

    Args:
        arguments: Optional. As the engine gives them: its address, and flags that are ignored. Default: those of the
            command line.
    """
    parser = argparse.ArgumentParser(prog="pulumi-resource-aks-inference", description=__doc__)
    parser.add_argument("engine", nargs="?", default="", help="address of the engine")
    engine = str(parser.parse_known_args(arguments)[0].engine)
    # The first line of stdout is the port and nothing else: what any import prints goes to stderr.
    port_line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(engine, lambda port: print(port, file=port_line, flush=True)))


async def _end_with(parent: int, stop: asyncio.Event) -> None:
    """An engine that was killed cannot end its plugins: without it nobody ever would."""
    while os.getppid() == parent:  # noqa: ASYNC110 - the system tells nobody when a parent ends
        await asyncio.sleep(_PARENT_POLL_S)
    stop.set()


async def _serve(engine: str, announce: Callable[[int], None]) -> None:
    import grpc.aio
    from pulumi.runtime.proto import provider_pb2_grpc

    from aks_inference_provider.host import make_host
    from aks_inference_provider.servicer import Servicer

    options = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.max_send_message_length", _MAX_MESSAGE)]
    server = grpc.aio.server(options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Servicer(make_host(), engine), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    announce(port)
    orphaned = asyncio.create_task(_end_with(os.getppid(), stop))
    await stop.wait()
    orphaned.cancel()
    await server.stop(grace=1)


if __name__ == "__main__":
    main()
