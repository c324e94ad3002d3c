"""A model server on uvicorn and Starlette, whose answers have no end: only a caller that leaves ends them.

python streaming_replica.py --path SOCKET      prints a port, as stub_replica.py does: 0
"""

import argparse
import asyncio
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route


async def pieces(size: int) -> AsyncIterator[bytes]:
    """For ever."""
    while True:
        yield b"x" * size
        await asyncio.sleep(0.01)


async def score(request: Request) -> StreamingResponse:
    """The first piece comes after `x-sleep-ms`."""
    await asyncio.sleep(float(request.headers.get("x-sleep-ms", "0")) / 1000)
    return StreamingResponse(pieces(int(request.headers.get("x-bytes", "8"))))


async def health(_: Request) -> PlainTextResponse:
    """It is well."""
    return PlainTextResponse("Healthy")


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", required=True)
    parser.add_argument("--sleep-ms", type=float, default=0)
    app = Starlette(routes=[Route("/score", score), Route("/", health)])
    config = uvicorn.Config(app, uds=parser.parse_args().path, log_level="warning", lifespan="off")
    print(0, flush=True)
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
