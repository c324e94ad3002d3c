"""Who is told what goes on in a local cluster: webhook, traces, access log, metrics; changed while it serves."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web

from aks_inference_runtime.api.errors import Conflict, InvalidInput, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.api.supervisor import Observing
from aks_inference_runtime.local import files
from aks_inference_runtime.local import observer as observing
from testbed.processes import free_ports

BROKEN = "def init():\n    raise RuntimeError('no such tokenizer')\n\ndef run(data):\n    return ANSWER\n"


class Told:
    """A webhook and an OpenTelemetry collector: their addresses, and what they got."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.spans: list[dict[str, Any]] = []
        self.url = ""

    async def hook(self, request: web.Request) -> web.Response:
        self.states.append(await request.json())
        return web.Response()

    async def collect(self, request: web.Request) -> web.Response:
        for resource in (await request.json())["resourceSpans"]:
            self.spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
        return web.json_response({})

    def of(self, name: str) -> list[tuple[str | None, str]]:
        return [(told["before"], told["state"]) for told in self.states if told["endpoint"] == name]

    async def until(self, holds: Any, seconds: float = 60) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError((self.states, self.spans)) from None


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    made = Told()
    app = web.Application()
    app.add_routes([web.post("/hook/s3cret", made.hook), web.post("/v1/traces", made.collect)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    await runner.cleanup()


async def scrape(port: int) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return (await answer.text()).splitlines()


async def answers(port: int) -> bool:
    try:
        await scrape(port)
    except aiohttp.ClientConnectionError:
        return False
    return True


def is_in_a_command_line(text: str) -> bool:
    return any(text in part for process in psutil.process_iter(["cmdline"]) for part in process.info["cmdline"] or ())


async def runs_again(local: Any, killed: int) -> bool:
    try:
        return bool((await local.client.info()).pid != killed)
    except RuntimeUnavailable:
        return False


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Of the access log, among what the replica says."""
    return [json.loads(line) for line in log.read_text().splitlines() if '"request_id"' in line]


@pytest.mark.long
async def test_who_is_told_what_goes_on_may_change_while_it_serves(local: Any, told: Told, score: Any) -> None:
    info = await local.launch()
    status = await local.deploy(local.declared("svc"))
    key, port = await local.key("svc"), free_ports(1)[0]
    log = next((local.state / "logs" / "svc").glob("*/*.log"))
    async with aiohttp.ClientSession() as session, asyncio.timeout(120):

        async def ask() -> None:
            assert (await score(session, status, key))[0] == 200

        wanted = Observing(
            state_webhook=f"{told.url}/hook/s3cret",
            otlp_endpoint=told.url,
            trace_ratio=1.0,
            access_log=True,
            metrics_port=port,
        )
        await local.client.put_observing(wanted)
        while not (told.spans and lines_of(log)):
            await ask()
            await asyncio.sleep(0.05)
        assert {span["name"] for span in told.spans} >= {"POST /api/v1/service/svc/score", "score"}
        # The secret stands in its file alone.
        assert not is_in_a_command_line("s3cret")
        kept = {path.name: path.read_text(errors="replace") for path in local.state.rglob("*") if path.is_file()}
        assert [name for name, text in kept.items() if "s3cret" in text] == ["webhook"]
        assert (local.state / "webhook").stat().st_mode & 0o077 == 0
        # The next supervisor goes on with it.
        os.kill(info.pid, signal.SIGKILL)
        while not (await runs_again(local, info.pid) and await answers(port)):
            await asyncio.sleep(0.05)
        count = len(lines_of(log))
        await ask()
        while len(lines_of(log)) == count:
            await asyncio.sleep(0.05)
        assert f'replica="{log.stem}"' in "".join(await scrape(port))
        # And no more.
        await local.client.put_observing(Observing())
        assert not await answers(port)
        assert not {"webhook", "observing.json", "told.json"} & {path.name for path in local.state.iterdir()}
        while True:
            count = len(lines_of(log))
            await ask()
            await asyncio.sleep(0.1)
            if len(lines_of(log)) == count:
                break


@pytest.mark.long
async def test_a_webhook_is_told_of_each_lasting_state_once(local: Any, told: Told) -> None:
    info = await local.launch()
    await local.deploy(local.declared("before"))
    await local.client.put_observing(Observing(state_webhook=f"{told.url}/hook/s3cret"))
    await local.deploy(local.declared("svc"))
    await told.until(lambda: told.of("svc")[-1:] and told.of("svc")[-1][1] == "Healthy")
    with pytest.raises(OperationFailed):
        await local.deploy(local.declared("bad", script=BROKEN))
    await told.until(lambda: told.of("bad")[-1:] and told.of("bad")[-1][1] == "Failed")
    (failed,) = [one for one in told.states if one["state"] == "Failed"]
    assert "no such tokenizer" in failed["message"]
    assert failed["text"].startswith("endpoint default/bad: Transitioning → Failed: ver-a: ")
    os.kill(info.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not await runs_again(local, info.pid):
            await asyncio.sleep(0.05)
    # What comes next is told by the next supervisor, and nothing that was told before.
    await local.until("svc", lambda status: status.state == "Healthy")
    await local.deploy(local.declared("last"))
    await told.until(lambda: told.of("last")[-1:] and told.of("last")[-1][1] == "Healthy")
    assert told.of("before") == []
    assert [state for _, state in told.of("svc")].count("Healthy") == 1
    assert [state for _, state in told.of("bad")].count("Failed") == 1
    for name in ("svc", "bad", "last"):
        pairs = told.of(name)
        assert [before for before, _ in pairs] == [None, *(state for _, state in pairs[:-1])]
    await local.client.delete_endpoint("bad")


async def test_a_port_that_somebody_has_is_refused_and_nothing_changes(cluster: Any) -> None:
    observer = cluster.supervisor.observer
    port = free_ports(1)[0]
    await observer.observe(Observing(metrics_port=port))
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {taken} on 127.0.0.1 is in use by process {os.getpid()}"):
            await observer.observe(Observing(metrics_port=taken))
    assert await answers(port)
    with pytest.raises(Conflict, match=f"{port} is the port of the metrics"):
        await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1"), port=port))
    await observer.observe(Observing(metrics_port=taken))
    assert await answers(taken)
    assert not await answers(port)


async def test_a_port_that_is_taken_when_it_starts_is_tried_again(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observing, "LOOK_S", 0.02)
    monkeypatch.setattr(observing, "FIRST_LOOK_S", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        await cluster.supervisor.observer.close()
        (cluster.paths.root / "observing.json").write_text(json.dumps({"metricsPort": port}))
        next_one = cluster.new()
        next_one.observer.load()
        work = asyncio.create_task(next_one.observer.run())
        await cluster.until(lambda: "it is tried again" in caplog.text, "told", 20)
    try:
        async with asyncio.timeout(20):
            while not await answers(port):
                await asyncio.sleep(0.02)
        assert caplog.text.count("it is tried again") == 1
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await next_one.observer.close()


async def test_what_cannot_be_kept_is_not_begun(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    observer, secret = cluster.supervisor.observer, cluster.paths.root / "webhook"
    await observer.observe(Observing(state_webhook="http://127.0.0.1:9/one"))
    write = files.write_text

    def full(path: Path, text: str, then: str = "") -> None:
        if path.name == "observing.json":
            raise OperationFailed("the disk is full")
        write(path, text, then)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_text", full)
        with pytest.raises(OperationFailed, match="full"):
            await observer.observe(Observing(state_webhook="http://127.0.0.1:9/two", access_log=True))
    assert secret.read_text() == "http://127.0.0.1:9/one\n"
    assert not observer.reported().access_log
    (cluster.paths.root / "observing.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"observing\.json is damaged"):
        cluster.new().observer.load()
