"""What the agent keeps looking at, also after an error that nobody has thought of, and after a process has ended."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router import admin, gates
from aks_inference_runtime.router.gate import GateStatus
from aks_inference_runtime.router.gates import GateWatch
from aks_inference_runtime.router.hints import Hints
from aks_inference_runtime.router.leavers import Leavers
from aks_inference_runtime.router.model import VersionKey
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.slots import Slot


class FakeGate:
    """Tells each watcher its status at once, and again whenever it is asked."""

    def __init__(self) -> None:
        self.watchers = 0
        self.seq = 0

    def status(self) -> GateStatus:
        counts = {"max_concurrent": 1, "running": 0, "orphans": 0, "waiting": 0, "served_total": 0}
        return GateStatus(replica_id="r1", port=0, ready=True, seq=self.seq, **counts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                self.watchers += asked.get("op") == "watch"
                if "op" in asked:
                    self.seq += 1
                    writer.write(self.status().model_dump_json(by_alias=True).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[FakeGate]:
    made = FakeGate()
    server = await asyncio.start_unix_server(made.serve, str(tmp_path / "gate"))
    try:
        yield made
    finally:
        server.close()


@pytest.mark.parametrize("fails", ["hearing", "not hearing"])
async def test_a_watch_goes_on_after_any_error_and_says_so(
    tmp_path: Path, gate: FakeGate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    monkeypatch.setattr(gates, "RECOVER_SECONDS", 0.01)
    told: list[bool] = []
    broken = False

    async def act(_: str) -> None:
        nonlocal broken
        heard = watch.status is not None
        told.append(heard)
        if not broken and heard == (fails == "hearing"):
            broken = True
            raise RuntimeError("nobody thought of it")
        if not broken and heard:
            raise ConnectionError  # the gate is lost, so that the other half has its turn

    with caplog.at_level(logging.ERROR):
        watch = GateWatch("r1", tmp_path / "gate", act)
        try:
            async with asyncio.timeout(20):
                while not (broken and gate.watchers >= 2 and told[-1] and watch.status is not None):
                    await asyncio.sleep(0.01)
        finally:
            await watch.close()
    assert False in told, "meanwhile it was told as not heard"
    assert "the watch over the gate of r1 failed; it begins anew" in caplog.text
    assert "nobody thought of it" in caplog.text


class Admin:
    """Of one process."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    async def must(self, commands: list[str]) -> None:
        self.commands += commands


async def test_leavers_of_a_process_that_has_ended_are_forgotten(tmp_path: Path) -> None:
    admins = {0: Admin(), 2: Admin()}
    paths = Paths(tmp_path, tmp_path)
    hints = Hints(paths, admins.__getitem__)  # type: ignore[arg-type]
    leavers = Leavers(admins.__getitem__, lambda _: 1)  # type: ignore[arg-type]
    leavers._turns = {Slot(0, 1): frozenset({"1-a"}), Slot(2, 5): frozenset({"2-b", "2-c"})}
    for process in admins:
        hints.write(process, [])
    await hints.update([], {}, leavers.counts())
    assert [len(admin.commands) for admin in admins.values()] == [1, 1]
    ended = admins.pop(2)
    hints.forget(2)
    leavers.forget(2)
    await hints.update([], {}, leavers.counts())
    assert leavers.of([Slot(0, 1), Slot(2, 5)]) == {"1-a"}
    assert len(ended.commands) == 1


async def test_a_paused_haproxy_gets_later_what_it_missed(bed, make_state, monkeypatch):
    """Commands that had no answer are not taken for done: neither the routes nor the replicas' caps."""
    monkeypatch.setattr(admin, "COMMAND_SECONDS", 0.2)
    old, new = await bed.replica("A"), await bed.replica("B")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [old])}))
    pid = bed.haproxy_pid()
    os.kill(pid, signal.SIGSTOP)
    state = make_state({"A": (0, [old.target(ready=False)]), "B": (10_000, [new])})
    try:
        with pytest.raises(RuntimeUnavailable):
            await router.apply(state)
    finally:
        os.kill(pid, signal.SIGCONT)
    await router.apply(state)
    answer = await bed.ask(timeout=5)
    assert (answer.status, answer.version) == (200, "B")
    # Also what the agent itself does between: a gate that comes back.
    assert new.gate is not None
    os.kill(pid, signal.SIGSTOP)
    os.kill(new.gate.pid, signal.SIGSTOP)
    watch = router._versions[VersionKey("svc", "B")]._gates[new.id]

    async def silent() -> bool:
        return watch.status is None

    async def heard() -> bool:
        return watch.status is not None

    await bed.until(silent)
    os.kill(new.gate.pid, signal.SIGCONT)
    await bed.until(heard)
    # What it then tells HAProxy is given up after 0.2 s; nothing shows that it was.
    await asyncio.sleep(0.5)
    os.kill(pid, signal.SIGCONT)

    async def served() -> bool:
        return (await bed.ask(timeout=5)).status == 200

    await bed.until(served)
