"""Changes through `up` while requests are served: keys, versions, ports, a killed supervisor."""

import asyncio
import os
import signal
from typing import Any

import aiohttp


async def test_both_keys_are_rotated_without_a_failed_request(system: Any) -> None:
    try:
        async with system.load(2, "secondary-one") as load:
            await load.more(20)
            system.config("primary", "primary-two", "--secret")
            said = await system.up_async()
            assert "primary-two" not in said
            await load.more(20)
            assert [(await system.score(key=key)).status for key in ("primary-two", "primary-one")] == [200, 401]
            load.key = "primary-two"
            await load.more(20)
            system.config("secondary", "secondary-two", "--secret")
            await system.up_async()
            await load.more(20)
            assert (await system.score(key="secondary-two")).status == 200
            assert (await system.score(key="secondary-one")).status == 401
        assert load.failed == {}
    finally:
        system.config("primary", "primary-one", "--secret")
        system.config("secondary", "secondary-one", "--secret")


async def test_the_same_program_again_changes_nothing(system: Any) -> None:
    status, pids = await system.status(), sorted(system.replica_pids())
    assert set((await asyncio.to_thread(system.preview))["changeSummary"]) == {"same"}
    text = await asyncio.to_thread(system.run, "up", "--yes", "--skip-preview", "--expect-no-changes")
    assert "unchanged" in text
    after = await system.status()
    assert (after.generation, sorted(system.replica_pids())) == (status.generation, pids)
