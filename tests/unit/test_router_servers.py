"""What the agent believes of HAProxy's servers when a command's fate is not known."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router.admin import PAYLOAD_BYTES, AdminSocket, ServerRow
from aks_inference_runtime.router.servers import Servers
from aks_inference_runtime.router.slots import Slot

SLOT = Slot(0, 3)


class Admin:
    """Takes commands and fails as it is told; without an error it never answers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = asyncio.Event()
        self.commands: list[str] = []

    async def must(self, commands: Sequence[str], accept: Iterable[str] = ()) -> None:
        self.commands += commands
        self.asked.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


def make(admin: Any) -> Servers:
    return Servers(lambda _: admin)


async def test_a_command_that_was_given_up_is_found_out_about() -> None:
    admin = Admin()
    servers = make(admin)
    adding = asyncio.create_task(servers.set_cap(SLOT, "r0", "/r0.in", 2, gated=True))
    await admin.asked.wait()
    adding.cancel()
    await asyncio.gather(adding, return_exceptions=True)
    assert servers.unsure(0)
    servers.settle(0, {})
    assert (servers.of(SLOT), servers.unsure(0)) == ({}, False)


@pytest.mark.parametrize("error", [OperationFailed("no"), RuntimeUnavailable("gone")], ids=lambda e: type(e).__name__)
async def test_a_command_that_failed_is_found_out_about(error: Exception) -> None:
    servers = make(Admin(error))
    await asyncio.gather(servers.set_cap(SLOT, "r0", "/r0.in", 2, gated=True), return_exceptions=True)
    assert servers.unsure(0)
    servers.settle(0, {SLOT: (ServerRow("s3", "r0", 0, 1, "UP", 0),)})
    assert servers.of(SLOT) == {"r0": 1}


async def test_commands_that_are_sent_together_fit_the_buffer_of_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the connection where they do not, and has done some of them."""
    lines: list[str] = []

    async def run(_: AdminSocket, command: str) -> str:
        lines.append(command)
        return ""

    monkeypatch.setattr(AdminSocket, "_run", run)
    # A folder may have any letters.
    commands = [f"del map /模型/{number:04}/{'路' * 60} key" for number in range(200)]
    await AdminSocket(Path("/nowhere")).must(commands)
    assert ";".join(lines).split(";") == commands
    assert max(len(line.encode()) for line in lines) <= PAYLOAD_BYTES
    assert len(lines) < 10
