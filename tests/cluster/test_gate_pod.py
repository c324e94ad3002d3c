"""The gate as a pod runs it: its settings from variables, its control over TCP, the kubelet's questions."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.kubernetes import GATE_VARIABLE, REPLICA_LIVENESS_PATH, REPLICA_VARIABLE
from aks_inference_runtime.kubernetes import gate as pod
from testbed.processes import free_ports

DEADLINE_S = 20


@contextlib.asynccontextmanager
async def scoring(release: asyncio.Event) -> AsyncIterator[int]:
    """A scoring server whose answers wait until they are released."""

    async def score(_: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({"scored": True})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/score", score), web.get("/", health)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    yield server.sockets[0].getsockname()[1]
    await runner.cleanup()


@contextlib.asynccontextmanager
async def gate(upstream: int, tmp_path: Any, **settings: Any) -> AsyncIterator[tuple[str, int, str]]:
    """A running gate: the address of its data, its control's port, the address of its questions."""
    data, control, ready = free_ports(3)
    given = {"version": "blue", "listenPort": data, "upstreamPort": upstream, **settings}
    variables = {GATE_VARIABLE: json.dumps(given), REPLICA_VARIABLE: "uid-1"}
    task = asyncio.create_task(pod.run(pod.settings_of(variables, tmp_path / "gate.sock"), control, ready))
    try:
        yield f"http://127.0.0.1:{data}", control, f"http://127.0.0.1:{ready}"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def status(session: aiohttp.ClientSession, address: str) -> int:
    try:
        async with session.get(address) as answer:
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0


async def until(session: aiohttp.ClientSession, address: str, wanted: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await status(session, address) != wanted:
            await asyncio.sleep(0.02)


async def test_what_the_kubelet_is_told(tmp_path):
    release = asyncio.Event()
    async with (
        scoring(release) as upstream,
        aiohttp.ClientSession() as session,
        gate(upstream, tmp_path) as (data, control, questions),
    ):
        await until(session, f"{questions}/readyz", 200)
        assert await status(session, f"{questions}/livez") == 200
        assert await status(session, f"{questions}/other") == 404

        # A router in another pod hears the same over TCP as one on this machine over the socket.
        reader, writer = await asyncio.open_connection("127.0.0.1", control)
        writer.write(b'{"op": "watch"}\n')
        told = json.loads(await reader.readline())
        assert (told["replicaId"], told["ready"]) == ("uid-1", True)

        # The pod's end waits for what runs, and no longer.
        score = asyncio.create_task(session.post(f"{data}/score", data=b"{}"))
        drained = asyncio.create_task(status(session, f"{questions}/drained"))
        await asyncio.sleep(pod.ROUTERS_NOTICE_S + 0.5)
        assert not drained.done()
        release.set()
        async with await score as answer:
            assert answer.status == 200
            assert answer.headers["x-aks-inference-version"] == "blue"
        async with asyncio.timeout(DEADLINE_S):
            assert await drained == 200
        writer.close()


async def test_not_ready_before_the_server_is(tmp_path):
    (nobody,) = free_ports(1)
    async with aiohttp.ClientSession() as session, gate(nobody, tmp_path) as (_, _, questions):
        await until(session, f"{questions}/livez", 200)
        assert await status(session, f"{questions}/readyz") == 503


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "POD_UID is not set"),
        ({REPLICA_VARIABLE: "u"}, "is no JSON"),
        ({REPLICA_VARIABLE: "u", GATE_VARIABLE: "[]"}, "no JSON object"),
        ({REPLICA_VARIABLE: "u", GATE_VARIABLE: '{"version": "v"}'}, "upstreamPort"),
        ({REPLICA_VARIABLE: "u", GATE_VARIABLE: '{"version": "v", "upstreamPort": 1, "colour": 1}'}, "colour"),
    ],
)
def test_settings_that_cannot_be_used(variables, said):
    with pytest.raises(InvalidInput, match=said):
        pod.settings_of(variables)


async def test_what_prometheus_and_the_access_log_are_told(tmp_path, capfd):
    release = asyncio.Event()
    release.set()
    given = {"endpoint": "churn", "accessLog": True, "scoringTimeoutMs": 2_000}
    async with (
        scoring(release) as upstream,
        aiohttp.ClientSession() as session,
        gate(upstream, tmp_path, **given) as (data, _, questions),
    ):
        await until(session, f"{questions}/readyz", 200)
        since = int((time.time() - 0.3) * 1_000)
        queued = {"x-aks-inference-turn": "1-2", "x-aks-inference-since": str(since), "x-request-id": "mine-1"}
        async with session.post(f"{data}/api/v1/service/churn/score?secret=1", headers=queued) as answer:
            assert (answer.status, answer.headers["x-request-id"]) == (200, "mine-1")
        async with session.post(f"{data}/score", headers={"x-request-id": "ä" * 3}) as answer:
            made = answer.headers["x-request-id"]
            assert len(made) == 32
        release.clear()
        async with session.post(f"{data}/score") as answer:
            assert (answer.status, answer.headers["x-aks-inference-reason"]) == (504, "scoring-timeout")
        release.set()
        async with session.get(f"{questions}/metrics") as answer:
            assert answer.content_type == "text/plain"
            told = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[0] != "#")
    of = 'endpoint="churn",version="blue"'
    assert told[f'aks_inference_answers_total{{{of},code="200",reason=""}}'] == "2"
    assert told[f'aks_inference_answers_total{{{of},code="504",reason="scoring-timeout"}}'] == "1"
    assert told[f"aks_inference_service_seconds_count{{{of}}}"] == "3"
    assert told[f'aks_inference_queue_wait_seconds_bucket{{{of},le="0.25"}}'] == "2"
    assert told[f'aks_inference_queue_wait_seconds_bucket{{{of},le="+Inf"}}'] == "3"
    assert told[f"aks_inference_log_lines_lost_total{{{of}}}"] == "0"
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["status"] for line in lines[:2]] == [200, 200]
    assert lines[0] | {"time": "", "service_ms": 0, "queue_ms": 0} == {
        "endpoint": "churn",
        "version": "blue",
        "replica": "uid-1",
        "request_id": "mine-1",
        "method": "POST",
        "path": "/api/v1/service/churn/score",
        "queue_ms": 0,
        "time": "",
        "status": 200,
        "service_ms": 0,
    }
    assert lines[0]["queue_ms"] >= 250
    assert lines[1]["request_id"] == made
    assert {"status": 504, "reason": "scoring-timeout"}.items() <= lines[2].items()
    assert "secret" not in str(lines)


async def test_a_replica_that_hangs_is_told_to_the_kubelet_and_one_that_works_is_not(tmp_path: Any) -> None:
    release = asyncio.Event()
    limits = {"scoringTimeoutMs": 200, "hungAfterMs": 300, "maxConcurrent": 2}
    async with (
        scoring(release) as upstream,
        gate(upstream, tmp_path, **limits) as (address, _, questions),
        aiohttp.ClientSession() as session,
    ):
        asked = questions + REPLICA_LIVENESS_PATH
        await until(session, asked, 200)
        await until(session, f"{questions}/readyz", 200)
        async with session.post(f"{address}/score", data=b"{}") as answer:
            assert answer.status == 504
        await until(session, asked, 503)
        assert await status(session, f"{questions}/livez") == 200, "the gate is well"
        # It comes back: then it was not hung, and is asked no more.
        release.set()
        await until(session, asked, 200)


async def test_a_replica_whose_port_takes_no_connection_is_told_to_the_kubelet(tmp_path: Any) -> None:
    (closed,) = free_ports(1)
    async with gate(closed, tmp_path) as (_, _, questions), aiohttp.ClientSession() as session:
        await until(session, f"{questions}/livez", 200)
        assert await status(session, questions + REPLICA_LIVENESS_PATH) == 503
