"""Among several routers a HAProxy that hangs is ended; one that nobody listened to for a while is not."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router import admin, watchdog
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.watchdog import Watchdog

HUNG_S = 1.0


@pytest_asyncio.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A process, and a socket at which nothing is answered; both are looked after."""
    for module, name in ((admin, "COMMAND_SECONDS"), (watchdog, "HUNG_S")):
        monkeypatch.setattr(module, name, HUNG_S)
    process = await asyncio.create_subprocess_exec("sleep", "60")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "admin"))
        silent.listen()
        one = SimpleNamespace(pid=process.pid, alive=True, admin=AdminSocket(tmp_path / "admin"), name="p0")
        looked: Any = one
        task = asyncio.create_task(Watchdog(lambda: [looked] if process.returncode is None else []).run())
        yield SimpleNamespace(process=process, admin=one.admin)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_one_that_answers_nothing_is_ended(watched: Any) -> None:
    async with asyncio.timeout(20):
        while watched.process.returncode is None:
            with pytest.raises(RuntimeUnavailable):
                await watched.admin.run("show info")
    assert watched.process.returncode == -signal.SIGKILL


async def test_one_is_not_ended_because_its_agent_stood_still(watched: Any) -> None:
    asked = asyncio.create_task(watched.admin.run("show info"))
    while watched.admin.silent_since is None:
        await asyncio.sleep(0)
    time.sleep(HUNG_S + 0.5)  # the loop stands still, as where the process is stopped
    with pytest.raises(RuntimeUnavailable):
        await asked
    await asyncio.sleep(3 * watchdog.LOOK_S)
    assert watched.process.returncode is None
