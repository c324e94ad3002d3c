"""What is kept of a collection is taken from it a page at a time."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.kubernetes.client import DEAD_SECONDS, Expired, connected
from aks_inference_runtime.kubernetes.connection import Connection
from aks_inference_runtime.kubernetes.informer import Informer


class Server:
    """Three pages of ten; then a watch that never tells anything."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.lists = 0
        self.watched: list[str] = []

    async def pages(self, path: str, labels: str, fields: str) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        self.lists += 1
        for number in range(3):
            if number == 2 and self.failures:
                raise self.failures.pop()
            names = [f"one-{number}-{n}" for n in range(10)]
            yield [{"metadata": {"name": name, "namespace": "ns"}, "much": [0] * 1_000} for name in names], "7"

    async def watch(self, path: str, version: str, labels: str, fields: str) -> AsyncIterator[tuple[str, Any]]:
        self.watched.append(version)
        await asyncio.Event().wait()
        yield "BOOKMARK", {}


@pytest.mark.parametrize("failure", [None, Expired("the page's token is too old"), RuntimeUnavailable("away")])
async def test_all_pages_are_read_and_a_failure_in_the_middle_keeps_nothing(failure: Exception | None) -> None:
    server = Server()
    server.failures = [failure] if failure is not None else []
    told: list[int] = []
    informer: Informer[str] = Informer(
        "/pods",
        lambda found: str(found["metadata"]["name"]),
        lambda: told.append(len(informer.items)),
        jitter=lambda: 0,
    )
    task = asyncio.create_task(informer.run(server))  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(20):
            await informer.first()
            while not server.watched:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert told == [30]
    assert server.lists == (1 if failure is None else 2)
    assert server.watched == ["7"]
    assert informer.items["ns/one-2-9"] == "one-2-9"


class Broken(Server):
    """Its watch ends at once each time: with an error nobody has thought of, as expired, or just so."""

    def __init__(self, ending: BaseException | None) -> None:
        super().__init__()
        self.ending = ending

    async def watch(self, path: str, version: str, labels: str, fields: str) -> AsyncIterator[tuple[str, Any]]:
        self.watched.append(version)
        if self.ending is not None:
            raise self.ending
        return
        yield


@pytest.mark.parametrize("ending", [AssertionError("what is that"), Expired("too old"), None])
async def test_a_watch_that_ends_at_once_is_begun_again_after_a_pause(
    ending: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            await asyncio.Event().wait()

    server = Broken(ending)
    informer: Informer[str] = Informer("/pods", lambda found: "x", lambda: None, jitter=lambda: 1)
    monkeypatch.setattr("aks_inference_runtime.kubernetes.informer.asyncio.sleep", pause)
    task = asyncio.create_task(informer.run(server))  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(20):
            while len(pauses) < 4:
                await asyncio.wait([task], timeout=0.01)
                assert not task.done(), "it must go on"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert pauses == [0.2, 0.4, 0.8, 1.6]
    assert server.lists == (1 if ending is None else 4)
    assert len(informer.items) == 30


async def test_an_object_that_cannot_be_read_costs_itself_alone() -> None:
    def project(found: dict[str, Any]) -> str:
        name = str(found["metadata"]["name"])
        if name == "one-1-3":
            raise RecursionError(name)
        return name

    informer: Informer[str] = Informer("/pods", project, lambda: None)
    server: Any = Server()
    await informer._list(server)
    assert len(informer.items) == 29


@pytest.mark.parametrize(
    ("answer", "told"),
    [("<html>", "not the API server"), ('{"items": []}\n', None), ("{}\n", "broke"), ("7\n", "broke")],
)
async def test_what_is_no_answer_of_an_api_server_is_an_error_of_the_package(
    answer: str, told: str | None, unused_tcp_port: int
) -> None:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=answer)

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    try:
        async with connected(Connection(f"http://127.0.0.1:{unused_tcp_port}", None)) as api:
            if told == "broke":
                with pytest.raises(RuntimeUnavailable, match=told):
                    await anext(aiter(api.watch("/pods", "7")))
            elif told is not None:
                with pytest.raises(RuntimeUnavailable, match=told):
                    await api.list("/pods")
            else:
                assert await api.list("/pods") == ([], "")
    finally:
        await runner.cleanup()


async def test_a_connection_finds_out_by_itself_that_its_path_is_broken(unused_tcp_port: int) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'{"type": "BOOKMARK", "object": {}}\n')
        await asyncio.sleep(60)
        return answer

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    try:
        async with connected(Connection(f"http://127.0.0.1:{unused_tcp_port}", None)) as api:
            changes = api.watch("/pods", "7")
            await anext(aiter(changes))
            (used,) = [
                one
                for one in psutil.Process().net_connections("tcp")
                if one.raddr and one.raddr.port == unused_tcp_port
            ]
            with socket.socket(fileno=os.dup(used.fd)) as its:
                of_tcp = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
                idle, between, count, unanswered = (
                    its.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in of_tcp
                )
                assert its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert idle + between * count == unanswered / 1_000 == DEAD_SECONDS
    finally:
        await runner.cleanup()


async def test_a_token_that_cannot_be_read_is_an_error_of_the_package(tmp_path: Path) -> None:
    async with connected(Connection("http://127.0.0.1:9", None, token_file=tmp_path / "gone")) as api:
        with pytest.raises(RuntimeUnavailable, match="FileNotFoundError"):
            await api.get("/pods")


async def test_what_is_read_again_stays_the_same_object() -> None:
    informer: Informer[list[str]] = Informer("/pods", lambda found: [found["metadata"]["name"]], lambda: None)
    server: Any = Server()
    await informer._list(server)
    before, revision = dict(informer.items), informer.revision
    await informer._list(server)
    assert informer.revision == revision
    assert all(informer.items[name] is one for name, one in before.items())
