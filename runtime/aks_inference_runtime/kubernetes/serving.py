"""What routers and autoscaler answer on the agent's port: /livez, /readyz, /metrics and what else they are given."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from aks_inference_runtime.observability.prometheus import CONTENT_TYPE


@asynccontextmanager
async def answering(
    host: str,
    port: int,
    *,
    alive: Callable[[], bool],
    ready: Callable[[], bool],
    metrics: Callable[[], str],
    routes: Iterable[web.RouteDef] = (),
) -> AsyncIterator[None]:
    """Until the block ends. Raises OSError when the port cannot be had."""

    async def livez(_: web.Request) -> web.Response:
        return _answer(alive())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(ready())

    async def measured(_: web.Request) -> web.Response:
        return web.Response(body=metrics().encode(), headers={"content-type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", measured), *routes])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def _answer(good: bool) -> web.Response:
    return web.Response(text="ok" if good else "not yet", status=200 if good else 503)
