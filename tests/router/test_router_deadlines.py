"""A request's deadline counts from when it came, also where HAProxy begins its own count anew."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.router.gate.deadline import LONGEST_WAIT_S, Waited, waited
from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings, GateStatus
from aks_inference_runtime.router.model import ReplicaTarget

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("since", "ahead_s", "found"),
    [
        (None, 0.0, Waited()),
        (b"1799999999000+1500", 0.0, Waited(1.0, 0.5)),
        (b"1799999999000+500", 0.0, Waited(1.0, -0.5)),
        # This clock is an hour ahead, or behind.
        (b"1799996399000+1500", 3_600.0, Waited(0.0, 0.5)),
        (b"1800003599000+1500", -3_600.0, Waited(0.0, 0.5)),
        # Nobody has told its clock, or how long it may wait.
        (b"1799999999000+500", None, Waited(1.0)),
        (b"1799999999000", 0.0, Waited(1.0)),
        (b"1799999999000+", 0.0, Waited(1.0)),
        (b"1799999999000+5x", 0.0, Waited(1.0)),
        (b"1799999999000+-5", 0.0, Waited(1.0)),
        (b"1" * 16 + b"+500", 0.0, Waited()),
        (b"now+500", 0.0, Waited()),
        (b"\xb2+500", 0.0, Waited()),
        (b"%d+1000" % ((NOW - LONGEST_WAIT_S - 1) * 1_000), 0.0, Waited(0.0)),
        # Waited twice, at most; and what must have run meanwhile, at a gate that is gone.
        (b"1799999997000+1500", 0.0, Waited(3.0, -1.5)),
        (b"1799999996600+1500", 0.0, Waited(3.4)),
    ],
)
def test_what_the_router_says(since: bytes | None, ahead_s: float | None, found: Waited) -> None:
    assert waited(since, NOW, ahead_s) == pytest.approx(found)


class Replica:
    """Answers when it may."""

    def __init__(self) -> None:
        self.open = self.served = 0
        self.go = asyncio.Event()
        self.go.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while b"/score" in await reader.readuntil(b"\r\n\r\n"):
                await self.go.wait()
                self.served += 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        self.open -= 1


@asynccontextmanager
async def gate_of(replica: Replica, folder: Path, **more: Any) -> AsyncIterator[Gate]:
    server = await asyncio.start_unix_server(replica.serve, str(folder / "app"))
    settings = GateSettings(
        replica_id="r",
        version="A",
        upstream_path=folder / "app",
        health_port=1,
        control=folder / "gate",
        listen_path=folder / "in",
        queue_timeout_ms=20_000,
        **more,
    )
    try:
        async with asyncio.timeout(30):
            async with serving(settings) as gate:
                yield gate
            server.close()
            await until(lambda: not replica.open)
    finally:
        server.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def ask(folder: Path, age_s: float, most_ms: int, *, length: int = 0, clock_s: float = 0.0) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(folder / "in"))
    since = int((time.time() - clock_s - age_s) * 1_000)
    head = (
        f"POST /score HTTP/1.1\r\nhost: x\r\nx-aks-inference-turn: 1-1\r\nx-aks-inference-since: {since}+{most_ms}\r\n"
    )
    writer.write(f"{head}content-length: {length}\r\n\r\n".encode() + b"x" * length)
    try:
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


@asynccontextmanager
async def agent(folder: Path, behind_s: float = 0.0) -> AsyncIterator[None]:
    """Tells its clock, which is so far behind."""
    reader, writer = await asyncio.open_unix_connection(str(folder / "gate"))
    try:
        message = {"op": "status", "clock": int((time.time() - behind_s) * 1_000)}
        writer.write(json.dumps(message).encode() + b"\n")
        await reader.readline()
        yield
    finally:
        writer.close()


@pytest.mark.parametrize("behind_s", [0.0, 7_200.0, -7_200.0])
async def test_the_gate_refuses_what_comes_late(tmp_path: Path, behind_s: float) -> None:
    replica = Replica()
    async with gate_of(replica, tmp_path) as gate:
        # Without a clock to go by nothing is refused.
        assert (await ask(tmp_path, 10, 5_000, clock_s=behind_s)).startswith(b"HTTP/1.1 200")
        async with agent(tmp_path, behind_s):
            assert (await ask(tmp_path, 1, 5_000, clock_s=behind_s)).startswith(b"HTTP/1.1 200")
            # Without a body, with one that is there at once, with one that is not.
            for length in (0, 100, 200_000):
                answer = await ask(tmp_path, 10, 5_000, length=length, clock_s=behind_s)
                assert answer.startswith(b"HTTP/1.1 503")
                assert b"x-aks-inference-reason: queue-timeout\r\n" in answer
                assert b"retry-after: 1\r\n" in answer
        assert replica.served == 2
        assert gate.telemetry.answers == {(200, ""): 2, (503, "queue-timeout"): 3}
        assert (gate.admission.running, gate.admission.waiting, gate.admission.served_total) == (0, 0, 2)
        await until(lambda: gate.watchers.ahead_s() is None)


async def test_it_waits_at_the_gate_no_longer_than_is_left(tmp_path: Path) -> None:
    replica = Replica()
    replica.go.clear()
    async with gate_of(replica, tmp_path) as gate, agent(tmp_path):
        running = asyncio.create_task(ask(tmp_path, 0, 20_000))
        await until(lambda: gate.admission.running)
        began = time.monotonic()
        answer = await ask(tmp_path, 4, 5_000)
        assert answer.startswith(b"HTTP/1.1 503")
        assert 0.5 < time.monotonic() - began < 15
        replica.go.set()
        assert (await running).startswith(b"HTTP/1.1 200")
        assert replica.served == 1


async def test_who_is_handed_back_past_its_deadline_is_refused(tmp_path: Path) -> None:
    """The router would begin its wait anew."""
    replica = Replica()
    async with gate_of(replica, tmp_path) as gate, agent(tmp_path):
        await until(lambda: gate.ready or replica.open == 0)
        replica.go.clear()
        running = asyncio.create_task(ask(tmp_path, 0, 20_000))
        await until(lambda: gate.admission.running)
        waiting = [asyncio.create_task(ask(tmp_path, 0, most_ms)) for most_ms in (1, 60_000)]
        await until(lambda: gate.admission.waiting == 1)
        gate.trusted = False
        replica.go.set()
        assert (await running).startswith(b"HTTP/1.1 200")
        answers = [(await one)[:12] for one in waiting]
        assert answers == [b"HTTP/1.1 503", b"HTTP/1.1 425"]
        assert replica.served == 1


class HandsBack:
    """A gate that lets its first request run and hands the second one back, each when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.target = ReplicaTarget("back", "", 0, folder / "b.gate", True, folder / "b.in")
        self.came = 0
        self.answer, self.back = asyncio.Event(), asyncio.Event()
        self._ready = True
        self._seq = 0
        self._acted = asyncio.Event()
        self._watchers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        assert isinstance(self.target.control, Path)
        control = await asyncio.start_unix_server(self._control, str(self.target.control))
        data = await asyncio.start_unix_server(self._data, str(self.target.path))
        try:
            yield
        finally:
            control.close()
            data.close()

    def _line(self) -> bytes:
        status = GateStatus(
            replica_id="back",
            port=0,
            ready=self._ready,
            max_concurrent=1,
            running=0,
            orphans=0,
            waiting=0,
            served_total=0,
            seq=self._seq,
        )
        return status.model_dump_json(by_alias=True, exclude={"hung"}).encode() + b"\n"

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._watchers.append(writer)
        while line := await reader.readline():
            message = json.loads(line)
            if message.get("ack") == self._seq and self._seq:
                self._acted.set()
            elif "op" in message:
                writer.write(self._line())
        writer.close()

    async def _data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.came += 1
        if self.came == 1:
            await self.answer.wait()
            status = b"200 OK"
        else:
            await self.back.wait()
            # As a gate does: first the router is told.
            self._ready, self._seq = False, 1
            for watcher in self._watchers:
                watcher.write(self._line())
            await self._acted.wait()
            status = b"425 Too Early"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        writer.close()


async def test_a_request_that_is_sent_elsewhere(bed: Any, make_state: Any) -> None:
    """It waits, is handed back, waits again, and gets the next slot after its deadline: refused, not served."""
    back = HandsBack(bed.directory)
    replica = await bed.replica("A")
    router = await bed.router()
    async with back.serving():
        wait_s = 3.0
        await router.apply(
            make_state({"A": (10_000, [back.target, replica])}, max_request_wait_time=int(wait_s * 1_000))
        )
        began = time.monotonic()
        running = [asyncio.create_task(bed.ask(x_sleep_ms=str(wait_s * 1_400), timeout=30)) for _ in range(2)]
        await bed.until(lambda: _true(back.came == 1))
        await bed.counts(router, busy=1)
        came = time.monotonic()
        late = asyncio.create_task(bed.ask(timeout=30))
        await bed.counts(router, busy=1, queued=1)
        back.answer.set()
        await bed.until(lambda: _true(back.came == 2))
        await asyncio.sleep(max(0.0, came + wait_s / 2 - time.monotonic()))
        back.back.set()
        answer = await late
        took = time.monotonic() - came
        assert (answer.status, answer.reason) == (503, "queue-timeout"), (took, time.monotonic() - began)
        # Not at the end of the second wait.
        assert took < wait_s * 1.5
        assert {one.status for one in await asyncio.gather(*running)} == {200}
        assert (await replica.stats())["served"] == 1


async def _true(value: bool) -> bool:
    return value
