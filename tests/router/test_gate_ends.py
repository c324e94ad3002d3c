"""A gate that ends: an answer that its replica has finished is not cut while a client still takes it."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aks_inference_runtime.kubernetes import gate as pod
from aks_inference_runtime.router.gate.sending import Leftovers
from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings

SIZE = 260_000
"""More than the system takes for a reader that takes nothing, less than the gate keeps."""
ASKED = b"GET /score HTTP/1.1\r\nhost: x\r\nx-bytes: %d\r\n\r\n"


async def rest(raw: socket.socket) -> int:
    got = 0
    async with asyncio.timeout(15):
        while piece := await asyncio.get_running_loop().sock_recv(raw, 65_536):
            got += len(piece)
    return got


async def test_what_is_still_taken_outlasts_a_signal(bed: Any) -> None:
    replica = await bed.replica()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.setblocking(False)
        raw.connect(str(replica.address))
        await asyncio.get_running_loop().sock_sendall(raw, ASKED % SIZE)

        async def finished() -> bool:
            status = await replica.status()
            return (status.running, status.served_total) == (0, 1)

        await bed.until(finished)
        replica.gate.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            await asyncio.to_thread(replica.gate.wait, 1)
        assert await rest(raw) > SIZE
    assert await asyncio.to_thread(replica.gate.wait, 15) == 0


async def test_who_takes_nothing_does_not_hold_it_up_for_ever(bed: Any) -> None:
    replica = await bed.replica(readerTimeoutMs=500)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(replica.address))
        raw.sendall(ASKED % SIZE)

        async def finished() -> bool:
            return (await replica.status()).served_total == 1

        await bed.until(finished)
        replica.gate.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(replica.gate.wait, 15) == 0


@pytest.mark.parametrize("asks", [Gate.drained, lambda gate: pod.Questions(gate, 0)._drained()], ids=["gate", "pod"])
@pytest.mark.parametrize("size", [SIZE * 20, 100_000], ids=["at the gate", "at the system"])
async def test_over_tcp_what_the_system_keeps_counts(
    bed: Any, tmp_path: Any, asks: Callable[[Gate], Awaitable[None]], size: int
) -> None:
    """Also where the gate has closed: with a pod goes what its network has not delivered."""
    replica = await bed.replica()
    settings = GateSettings(
        replica_id="r", version="A", upstream_port=replica.port, health_port=1, control=tmp_path / "gate"
    )
    loop = asyncio.get_running_loop()
    async with serving(settings) as gate:
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            raw.setblocking(False)
            await loop.sock_connect(raw, ("127.0.0.1", gate.port))
            await loop.sock_sendall(raw, ASKED % size)

            async def finished() -> bool:
                return gate.admission.served_total == 1

            got = 0
            async with asyncio.timeout(15):
                while not await finished():
                    if size > SIZE and got < size - SIZE:
                        got += len(await loop.sock_recv(raw, 4_096))
                    await asyncio.sleep(0)
            drained = asyncio.ensure_future(asks(gate))
            await asyncio.wait([drained], timeout=1)
            assert not drained.done()
            assert got + await rest(raw) > size
            async with asyncio.timeout(15):
                await drained


def test_leftovers_are_waited_for_as_long_as_for_any_reader() -> None:
    leftovers = Leftovers(10)
    assert leftovers.wait(1_000_000, 100.0)
    assert leftovers.wait(999_000, 109.0)
    assert leftovers.wait(900_000, 111.0), "two seconds more for what was taken"
    assert not leftovers.wait(900_000, 113.0)
    assert not leftovers.wait(0, 114.0)
    assert leftovers.wait(5, 200.0)
