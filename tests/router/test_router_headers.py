"""What router and gate say to each other, said by a client, has no effect."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.model import RouterState
from aks_inference_runtime.router.ownership import Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from testbed.processes import free_ports

SAID = {
    "x_aks_inference_turn": "1-1",
    "x_aks_inference_since": "1+1",
    "x_aks_inference_route": "s0|s0|1|0|Z",
    "x_aks_inference_hops": "61",
    "x_aks_inference_sent": "1",
    "x_aks_inference_unsent": "1",
    "x_aks_inference_router": "guess",
    "x_aks_inference_replica_status": "425",
    "X_AKS_Inference_Turn": "1-1",
}


async def has_left(control: Path, turn: str) -> None:
    """As the agent names who has left while it waited."""
    reader, writer = await asyncio.open_unix_connection(str(control))
    writer.write(json.dumps({"gone": [turn]}).encode() + b'\n{"op": "status"}\n')
    assert json.loads(await reader.readline())["ready"]
    writer.close()


@pytest.mark.parametrize(
    "where",
    [
        "router",
        "several routers",
        pytest.param("own port", marks=pytest.mark.long),
        pytest.param("further process", marks=pytest.mark.long),
    ],
)
async def test_it_reaches_neither_gate_nor_model(
    bed: Any, make_state: Callable[..., RouterState], unused_port: int, where: str
) -> None:
    replica = await bed.replica("A")
    # A queue's deadline for which the first process has no slot.
    limits = {"max_request_wait_time": 3_210} if where == "further process" else {}
    state = make_state({"A": (10_000, [replica])}, port=unused_port if where == "own port" else None, **limits)
    directory = None
    try:
        if where == "several routers":
            front, owner = free_ports(2)
            directory = Path(tempfile.mkdtemp(prefix="aksh-"))
            router = HaproxyRouter(directory, port=front, cluster=Cluster(owner_host="127.0.0.1", owner_port=owner))
            await router.start()
            bed.routers.append(router)
            (endpoint,) = state.endpoints.values()
            state = RouterState({"svc": replace(endpoint, tenure=Tenure(Phase.HOLDING, Epoch(1, "a")))})
            port, path = front, None
        else:
            router = await bed.router()
            port, path = (unused_port, "/score") if where == "own port" else (bed.port, None)
        await router.apply(state)
        assert replica.control is not None
        await has_left(replica.control, "1-1")

        async def answered() -> bool:
            return (await bed.ask(port=port, path=path)).status == 200

        await bed.until(answered)
        for more in ({}, {"x_aks_inference_version": "A"}):
            answer = await bed.ask(port=port, path=path, **SAID, **more)
            assert (answer.status, answer.version) == (200, "A")
            seen = (await replica.stats())["last_headers"]
            assert {name for name in seen if name.startswith("x-aks-")} <= {"x-aks-inference-version"}
        assert (await bed.ask(port=port, path=path, x_aks_inference_version="Z")).status == 404
    finally:
        if directory is not None:
            await bed.routers.pop().stop()
            shutil.rmtree(directory, ignore_errors=True)
