"""What a gate tells of its requests is changed while it serves, by its owner alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router.gate import GateClient, reporting
from aks_inference_runtime.router.gate.control import ControlConnection
from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings, Reported

ASK = b"POST /score HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def gate_at(folder: Path) -> AsyncIterator[Gate]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    settings = GateSettings(
        replica_id="a-1",
        version="a",
        endpoint="svc",
        upstream_path=folder / "app",
        listen_path=folder / "in",
        control=folder / "gate",
    )
    async with (
        asyncio.timeout(60),
        await asyncio.start_unix_server(serve, str(folder / "app")),
        serving(settings) as gate,
    ):
        while not gate.ready:
            await asyncio.sleep(0.01)
        yield gate


async def ask(folder: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(folder / "in"))
    writer.write(ASK)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def until(holds: Any, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


async def test_lines_begin_and_end_while_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = (tmp_path / "log").open("ab", buffering=0)
    monkeypatch.setattr(reporting, "STANDARD_OUTPUT", log.fileno())
    with log:
        async with gate_at(tmp_path) as gate:
            client = GateClient(tmp_path / "gate")
            for number, wanted in enumerate((False, True, True, False, True), 1):
                await client.report(Reported(access_log=wanted))
                await ask(tmp_path)
                await until(lambda count=number: gate.telemetry.answers[200, ""] == count)
            figures = await client.figures()
            assert (figures.answers, sum(figures.served.counts), figures.lines_lost) == (((200, "", 5),), 5, 0)
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(lines) == 3, "those of the requests that came while they were wanted"
    assert {key: lines[0][key] for key in ("endpoint", "version", "replica", "request_id")} == {
        "endpoint": "svc",
        "version": "a",
        "replica": "a-1",
        "request_id": "mine",
    }


async def test_traces_begin_move_and_end_while_it_serves(tmp_path: Path) -> None:
    """What the collector before was to get, it gets."""
    spans: dict[str, list[Any]] = {"one": [], "two": []}

    async def take(request: web.Request) -> web.Response:
        for resource in (await request.json())["resourceSpans"]:
            spans[request.match_info["which"]] += [span["name"] for s in resource["scopeSpans"] for span in s["spans"]]
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/{which}/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with gate_at(tmp_path) as gate:
            client = GateClient(tmp_path / "gate")
            for which in ("one", "two"):
                await client.report(Reported(otlp_endpoint=f"{url}/{which}", trace_ratio=1.0))
                await ask(tmp_path)
                await until(lambda: gate.telemetry.tracer is not None and gate.telemetry.tracer._spans)
            await client.report(Reported())
            await until(lambda: len(spans["one"]) + len(spans["two"]) == 4)
            await ask(tmp_path)
            assert gate.telemetry.tracer is None
            await until(lambda: not gate.reporting._sending)
        assert spans == {which: ["POST /score", "score"] for which in ("one", "two")}
    finally:
        await runner.cleanup()


async def test_nonsense_changes_nothing(tmp_path: Path) -> None:
    async with gate_at(tmp_path) as gate:
        client = GateClient(tmp_path / "gate")
        wrong = Reported.model_construct(trace_ratio=7.0)
        with pytest.raises(OperationFailed, match="does not take what it is to report"):
            await client.report(wrong)
        assert (await client.status()).ready
        assert gate.telemetry.tracer is None
    with pytest.raises(RuntimeUnavailable):
        await client.figures()


async def test_a_router_may_ask_neither(tmp_path: Path) -> None:
    """In a pod routers speak at a port of their own."""
    async with gate_at(tmp_path) as gate:
        port = tmp_path / "port"
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: ControlConnection(gate.watchers, gate.departed), str(port)
        )
        async with server:
            with pytest.raises(RuntimeUnavailable):
                await GateClient(port).figures()
            with pytest.raises(OperationFailed, match="unknown request"):
                await GateClient(port).report(Reported(access_log=True))
            assert (await GateClient(port).status()).replica_id == "a-1"
        assert gate.telemetry.figures().answers == ()
