"""Whether the replica is ready: its health path answered 200 once, and its port accepts connections since."""

import asyncio
import contextlib
from collections.abc import Callable

from aks_inference_runtime.router.gate.settings import GateSettings

STARTING_SECONDS = 0.1
"""Between questions until the first 200."""
RUNNING_SECONDS = 1.0
"""Between looks at the port afterwards."""
DOUBT_SECONDS = 0.05
"""Before the look after a lost connection: the port of a process that is just ending still accepts."""
ANSWER_SECONDS = 5.0


async def watch(settings: GateSettings, changed: Callable[[bool], None], doubt: asyncio.Event) -> None:
    """Reports readiness whenever it changes, until cancelled; after a doubt (not ready until then) what it found."""
    ready = False
    seen_healthy = False
    while True:
        if doubted := doubt.is_set():
            doubt.clear()
            await asyncio.sleep(DOUBT_SECONDS)
        if not seen_healthy:
            seen_healthy = now = await healthy(settings)
        else:
            # While its one worker scores, the health path has no answer: only the port is looked at.
            now = await accepts(settings.upstream_host, settings.upstream_port)
        if now != ready or doubted:
            ready = now
            changed(ready)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RUNNING_SECONDS if ready else STARTING_SECONDS):
                await doubt.wait()


async def accepts(host: str, port: int) -> bool:
    """Whether a connection to the port is accepted."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def healthy(settings: GateSettings) -> bool:
    """Whether the health path answers 200."""
    host = settings.upstream_host
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, settings.health_port or settings.upstream_port)
            try:
                request = f"GET {settings.health_path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
                writer.write(request.encode())
                status = (await reader.readline()).split(b" ")
            finally:
                writer.close()
    except (OSError, ValueError):
        return False
    return len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1].strip() == b"200"
