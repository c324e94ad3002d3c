"""What the agent does with thousands of gates, shown with a few."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aks_inference_runtime.router import doors, links
from aks_inference_runtime.router.gate import GateStatus
from aks_inference_runtime.router.gates import GateWatch


class Gates:
    """All at one socket: each connection is a gate."""

    def __init__(self) -> None:
        self.watchers = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts = {"max_concurrent": 1, "running": 0, "orphans": 0, "waiting": 0, "served_total": 0}
        status = GateStatus(replica_id="r", port=0, ready=True, **counts)
        try:
            while line := await reader.readline():
                op = json.loads(line).get("op")
                self.watchers += op == "watch"
                if op in ("watch", "status"):
                    writer.write(status.model_dump_json(by_alias=True).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def there(tmp_path: Path) -> AsyncIterator[Gates]:
    made = Gates()
    server = await asyncio.start_unix_server(made.serve, str(tmp_path / "gates"))
    try:
        yield made
    finally:
        server.close()


async def until_heard(*watches: GateWatch) -> None:
    async with asyncio.timeout(20):
        while any(watch.status is None for watch in watches):
            await asyncio.sleep(0.01)


async def test_some_are_reached_at_once_and_all_in_the_end(
    tmp_path: Path, there: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "MOST_AT_ONCE", 3)
    under_way = most = 0

    async def act(_: str) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1

    watches = [GateWatch(f"r{number}", tmp_path / "gates", act) for number in range(30)]
    # One that is closed before its turn holds up nobody.
    await watches.pop().close()
    try:
        await until_heard(*watches)
    finally:
        for watch in watches:
            await watch.close()
    assert most == 3
    assert there.watchers == len(watches)


async def nothing(_: str) -> None:
    pass


async def test_an_agent_that_stood_still_gives_up_no_gate(
    tmp_path: Path, there: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "LATE_SECONDS", 1.0)
    watch = GateWatch("r", tmp_path / "gates", nothing)
    try:
        await until_heard(watch)
        # The whole loop, its timers among it.
        time.sleep(2.5)
        asked = there.watchers
        for _ in range(3):
            await asyncio.sleep(0.2)
            assert watch.status is not None
    finally:
        await watch.close()
    assert (asked, there.watchers) == (1, 1)


async def test_a_connection_that_was_made_too_late_is_none(
    tmp_path: Path, there: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect, times = loop.create_unix_connection, 0

    async def late(*arguments: Any, **options: Any) -> Any:
        nonlocal times
        times += 1
        made = await connect(*arguments, **options)
        if times == 1:
            raise TimeoutError
        return made

    monkeypatch.setattr(loop, "create_unix_connection", late)
    watch = GateWatch("r", tmp_path / "gates", nothing)
    try:
        await until_heard(watch)
        assert times == 2
    finally:
        await watch.close()
