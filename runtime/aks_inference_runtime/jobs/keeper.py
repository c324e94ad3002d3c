"""Beside a job's container: gives the results out once, then ends, so that the pod ends.

`python -m aks_inference_runtime.jobs.keeper FOLDER TOKEN_FILE SECONDS`. `GET /results` is a tar of the kept folders,
`POST /done` ends it; both need the token, as everything in the cluster can reach a pod.
"""

import asyncio
import hmac
import os
import queue
import sys
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, cast

from aiohttp import web

from aks_inference_runtime.jobs import saving

PORT = 8765
TOKEN_HEADER = "x-aks-inference-token"  # noqa: S105 - the name of a header
_PIECES = 16


def main(arguments: list[str]) -> None:
    """The process."""
    folder, token_file, seconds = arguments
    asyncio.run(_serve(Path(folder), Path(token_file).read_text().strip(), float(seconds)))


async def _serve(folder: Path, token: str, seconds: float) -> None:
    done = asyncio.Event()
    runner = web.AppRunner(application(folder, token, done), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, PORT).start()
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        print("nobody came for the results", file=sys.stderr)
    finally:
        await runner.cleanup()


def application(folder: Path, token: str, done: asyncio.Event) -> web.Application:
    """The two calls."""

    @web.middleware
    async def guarded(
        request: web.Request,
        handler: "web.Handler",  # type: ignore[name-defined]  # aiohttp names it only privately
    ) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, ""), token):
            raise web.HTTPForbidden
        return cast(web.StreamResponse, await handler(request))

    async def results(request: web.Request) -> web.StreamResponse:
        if closed := await asyncio.to_thread(_closed, folder):
            return web.Response(status=403, text=f"{closed} cannot be read; the script must leave its results readable")
        response = web.StreamResponse(headers={"content-type": "application/x-tar"})
        await response.prepare(request)
        async for piece in _tar(folder):
            await response.write(piece)
        await response.write_eof()
        return response

    async def end(_request: web.Request) -> web.Response:
        done.set()
        return web.Response()

    served = web.Application(middlewares=[guarded])
    served.add_routes([web.get("/results", results), web.post("/done", end)])
    return served


class _Pipe:
    """A file to write to, whose pieces another thread takes: results may be larger than memory."""

    def __init__(self) -> None:
        self.pieces: queue.Queue[bytes | OSError | None] = queue.Queue(_PIECES)

    def write(self, piece: bytes) -> int:
        """A copy: the caller may use its buffer again."""
        self.pieces.put(bytes(piece))
        return len(piece)


async def _tar(folder: Path) -> AsyncIterator[bytes]:
    pipe = _Pipe()

    def pack() -> None:
        try:
            # Files for links, also for hard ones, which would mean another thing elsewhere.
            with tarfile.open(fileobj=cast(IO[bytes], pipe), mode="w|", dereference=True) as tar:
                for name, path in saving.found(folder):
                    tar.add(path, name, recursive=False)
        except OSError as error:
            pipe.pieces.put(error)
        finally:
            pipe.pieces.put(None)

    threading.Thread(target=pack, daemon=True).start()
    while (piece := await asyncio.to_thread(pipe.pieces.get)) is not None:
        if isinstance(piece, OSError):
            # The answer breaks off: without its end what came would look like all.
            raise piece
        yield piece


def _closed(folder: Path) -> str | None:
    """The first file of the results that cannot be read."""
    return next((name for name, path in saving.found(folder) if not os.access(path, os.R_OK)), None)


if __name__ == "__main__":
    main(sys.argv[1:])
