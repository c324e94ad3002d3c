"""What routers say of themselves, to who has left before it begins."""

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import AsyncMock, Mock

import pytest
from aiohttp import ClientConnectionResetError, ClientSession, web
from aiohttp.test_utils import make_mocked_request

from aks_inference_runtime.kubernetes import reports
from aks_inference_runtime.kubernetes.heartbeats import Heartbeats

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _load(request: web.Request) -> web.StreamResponse:
    return await reports.stream(request, reports.Told)


async def _words(request: web.Request) -> web.StreamResponse:
    return await Heartbeats("router-0", lambda: None).stream(request)


async def test_why_an_endpoint_is_not_served_is_told_for_as_long_as_it_is_so(unused_tcp_port: int) -> None:
    unserved: dict[str, str] = {"odd": "no queue", "bad": "no sense"}

    async def load(request: web.Request) -> web.StreamResponse:
        return await reports.stream(request, lambda: reports.Told(unserved=unserved))

    app = web.Application()
    app.add_routes([web.get(reports.PATH, load)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    heard = reports.Reports()
    url = f"http://127.0.0.1:{unused_tcp_port}"
    try:
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        async with ClientSession() as session, asyncio.timeout(20):
            heard.listen(session, {url: True})
            for now in ({}, {"odd": "still no queue"}, {}):
                while heard.unserved() != unserved:
                    await heard.news()
                unserved.clear()
                unserved.update(now)
            while heard.unserved():
                await heard.news()
            unserved["odd"] = "again"
            while not heard.unserved():
                await heard.news()
            heard.listen(session, {url: False})
            assert not heard.unserved(), "of a router that clients do not reach"
    finally:
        await heard.close()
        await runner.cleanup()


@pytest.mark.parametrize("handler", [_load, _words])
async def test_who_has_left_is_no_error(handler: Handler) -> None:
    """As after a stop of the process: all that asked meanwhile have given up."""
    gone = Mock(write_headers=AsyncMock(side_effect=ClientConnectionResetError("Cannot write to closing transport")))
    assert (await handler(make_mocked_request("GET", "/", writer=gone))).status == 200
