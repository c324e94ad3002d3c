"""Logs as who follows them sees them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aks_inference_runtime.local import logs


def test_a_line_without_an_end_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "r.log"
    path.touch()
    long = "x" * 3_000_000

    async def followed() -> list[str]:
        lines: AsyncIterator[str] = logs.follow(lambda: {"a/r": path}, 0, endless=True)  # type: ignore[arg-type]
        reading = asyncio.ensure_future(_until(lines, "end"))
        await asyncio.sleep(0)  # it knows the file before the first line
        with path.open("a") as file:
            file.write(f"{long}\nend\n")
        return await asyncio.wait_for(reading, 20)

    *pieces, end = asyncio.run(followed())
    assert ("".join(pieces), end) == (long, "end")


async def _until(lines: AsyncIterator[str], last: str) -> list[str]:
    found: list[str] = []
    async for line in lines:
        found.append(line)
        if line == last:
            break
    return found
