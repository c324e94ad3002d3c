"""A model server on uvicorn and Starlette, whose answers have no end unless one is asked for (`x-pieces`).

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

finished: list[int] = []
"""Sizes of the answers that came to their end."""


async def pieces(size: int, count: float) -> AsyncIterator[bytes]:
    """So many, a hundredth of a second each."""
    while count > 0:
        yield b"x" * size
        await asyncio.sleep(0.01)
        count -= 1
    finished.append(size)


async def score(request: Request) -> StreamingResponse:
    """The first piece comes after `x-sleep-ms`."""
    await asyncio.sleep(float(request.headers.get("x-sleep-ms", "0")) / 1000)
    size, count = int(request.headers.get("x-bytes", "8")), float(request.headers.get("x-pieces", "inf"))
    return StreamingResponse(pieces(size, count), headers={"x-finished": str(len(finished))})


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
