"""What routers say of themselves, to who has left before it begins."""

from collections.abc import Awaitable, Callable
from unittest.mock import AsyncMock, Mock

import pytest
from aiohttp import ClientConnectionResetError, web
from aiohttp.test_utils import make_mocked_request

from aks_inference_runtime.kubernetes import reports
from aks_inference_runtime.kubernetes.heartbeats import Heartbeats

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _load(request: web.Request) -> web.StreamResponse:
    return await reports.stream(request, dict, dict)


async def _words(request: web.Request) -> web.StreamResponse:
    return await Heartbeats("router-0", lambda: None).stream(request)


@pytest.mark.parametrize("handler", [_load, _words])
async def test_who_has_left_is_no_error(handler: Handler) -> None:
    """As after a stop of the process: all that asked meanwhile have given up."""
    gone = Mock(write_headers=AsyncMock(side_effect=ClientConnectionResetError("Cannot write to closing transport")))
    assert (await handler(make_mocked_request("GET", "/", writer=gone))).status == 200
