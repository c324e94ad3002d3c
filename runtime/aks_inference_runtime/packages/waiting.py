"""What takes long says so, again and again."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

SAY_S = 10.0


@asynccontextmanager
async def saying(progress: Callable[[str], None], text: Callable[[], str]) -> AsyncGenerator[None]:
    """As long as its body runs: the text of that moment, with the seconds so far."""

    async def say() -> None:
        begun = time.monotonic()
        while True:
            await asyncio.sleep(SAY_S)
            progress(f"{text()}, {time.monotonic() - begun:.0f} s")

    task = asyncio.create_task(say())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
