"""Requests whose clients left while they waited, as the gate is told of them."""

import asyncio
import json
from pathlib import Path

from aks_inference_runtime.router.gate.server import serving
from aks_inference_runtime.router.gate.settings import GateSettings


async def test_another_router_may_use_the_same_names(tmp_path: Path) -> None:
    """In containers the pids of two routers are often the same, and their requests are counted from one."""
    control = tmp_path / "control"
    settings = GateSettings(
        replica_id="r", version="A", upstream_path=tmp_path / "app", listen_path=tmp_path / "in", control=control
    )
    async with asyncio.timeout(20), serving(settings) as gate:
        reader, writer = await asyncio.open_unix_connection(str(control))

        async def claim(epoch: int, owner: str, *more: object) -> None:
            """Returns when all of it was heard: a claim is answered, and so is a question."""
            messages = ({"op": "claim", "epoch": epoch, "owner": owner}, *more, {"op": "status"})
            writer.writelines(json.dumps(message).encode() + b"\n" for message in messages)
            answers = [json.loads(await reader.readline()) for _ in range(2)]
            assert [(answer["epoch"], answer["owner"]) for answer in answers] == [(epoch, owner)] * 2

        await claim(1, "one", {"gone": ["21-7", "21-8"]})
        await claim(1, "one")
        assert gate.departed.take(b"21-7")
        await claim(2, "two")
        assert not gate.departed.take(b"21-8")
        writer.close()
