"""Application Insights: the real scoring server sends its telemetry; a proxy sees to whom."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

SCRIPT = "import json\ndef init():\n    pass\ndef run(data):\n    return json.loads(data)\n"
KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """Its address, and the hosts that somebody wanted to reach through it; it reaches none."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        asked.append(line.split(" ")[1] if line.startswith("CONNECT ") else line)
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.long
async def test_a_request_is_told_to_application_insights(local: Any, proxy: tuple[str, list[str]], score: Any) -> None:
    address, asked = proxy
    told = {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY, "HTTPS_PROXY": address}
    await local.launch()
    environment = {"environment_variables": told}
    status = await local.deploy(local.declared("svc", script=SCRIPT, environment=environment))
    async with aiohttp.ClientSession() as session:
        assert (await score(session, status, await local.key("svc"), {"x": 1}))[0] == 200
    async with asyncio.timeout(60):
        while not any(host.startswith("dc.services.visualstudio.com") for host in asked):
            await asyncio.sleep(0.1)
