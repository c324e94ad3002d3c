"""Whether the replica is ready: its health path answered 200 once, and it accepts connections since."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aks_inference_runtime.router.gate.address import Address
from aks_inference_runtime.router.gate.settings import GateSettings

STARTING_SECONDS = 0.1
"""Between questions until the first 200."""
RUNNING_SECONDS = 1.0
"""Between looks at the address afterwards."""
DOUBT_SECONDS = 0.05
"""Before the look after a lost connection: a process that is just ending still accepts."""
ANSWER_SECONDS = 5.0


async def watch(
    settings: GateSettings,
    looked: Callable[[bool], Awaitable[bool]],
    doubt: asyncio.Event,
    busy: Callable[[], bool],
) -> None:
    """Reports whenever it changes, until cancelled; after a doubt (not ready until then) what it found.

    Args:
        settings: Required. The gate's.
        looked: Required. Told whether the replica accepts requests; says whether it is ready then.
        doubt: Required. Set by who has lost a connection to the replica.
        busy: Required. Whether the replica works on requests.
    """
    ready = False
    seen_healthy = False
    while True:
        if doubted := doubt.is_set():
            doubt.clear()
            await asyncio.sleep(DOUBT_SECONDS)
            # The address of a server whose only worker has died still accepts: it has to answer. One that has other
            # requests may have no worker left for an answer.
            seen_healthy = seen_healthy and busy()
        if not seen_healthy:
            seen_healthy = now = await healthy(settings)
        else:
            # While its one worker scores, the health path has no answer: only the address is looked at.
            now = await accepts(settings.upstream)
        if now != ready or doubted:
            ready = await looked(now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RUNNING_SECONDS if ready else STARTING_SECONDS):
                await doubt.wait()


async def accepts(address: Address) -> bool:
    """Whether a connection is accepted."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await address.open()
    except OSError:
        return False
    writer.close()
    return True


async def healthy(settings: GateSettings) -> bool:
    """Whether the health path answers 200, or the health service of gRPC that it serves."""
    if settings.health_protocol == "grpc":
        # Most gates never load it.
        from aks_inference_runtime.router.gate.grpc_health import serves

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await serves(settings.health)
        except OSError:
            return False
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await settings.health.open()
            try:
                host = settings.upstream_host
                request = f"GET {settings.health_path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
                writer.write(request.encode())
                status = (await reader.readline()).split(b" ")
            finally:
                writer.close()
    except (OSError, ValueError):
        return False
    return len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1].strip() == b"200"
