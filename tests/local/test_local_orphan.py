"""A supervisor whose files are taken away under it."""

import asyncio
import shutil
from typing import Any

import pytest

from aks_inference_runtime.api.process import process_mark


@pytest.mark.parametrize("what", ["folder", pytest.param("record", marks=pytest.mark.long)])
async def test_a_supervisor_without_a_record_ends_with_all_that_it_started(local: Any, what: str) -> None:
    info = await local.launch()
    await local.deploy(local.declared("svc"))
    assert len(local.processes()) > 2
    if what == "folder":
        shutil.rmtree(local.state)
    else:
        (local.state / "supervisor.json").unlink()
    async with asyncio.timeout(40):
        while local.processes() or local.run_directory.exists() or process_mark(info.pid) is not None:
            await asyncio.sleep(0.1)
    assert local.state.exists() == (what == "record")
    if what == "record":
        assert (local.state / "endpoints" / "svc.json").exists(), "what is declared is nobody's to remove"


async def test_a_record_that_is_away_for_a_moment_ends_nothing(local: Any) -> None:
    info = await local.launch()
    record = local.state / "supervisor.json"
    content = record.read_bytes()
    record.unlink()
    await asyncio.sleep(1.2)  # longer than between two looks
    record.write_bytes(content)
    await asyncio.sleep(2.5)
    assert (await local.client.info()).pid == info.pid
