"""What router and gate say to each other, said by a client, has no effect."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from router_pair import TOKEN, Pair

from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.model import ReplicaTarget, RouterState
from aks_inference_runtime.router.ownership import AWAY, Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from testbed.processes import free_ports

SAID = {
    "x_aks_inference_turn": "1-1",
    "x_aks_inference_since": "1+1",
    "x_aks_inference_route": "s0|s0|1|0|Z",
    "x_aks_inference_hops": "61",
    "x_aks_inference_sent": "1",
    "x_aks_inference_unsent": "1",
    "x_aks_inference_asked": "1",
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
            assert not [name for name in seen if name.startswith("x-aks-")]
        assert (await bed.ask(port=port, path=path, x_aks_inference_version="Z")).status == 404
    finally:
        if directory is not None:
            await bed.routers.pop().stop()
            shutil.rmtree(directory, ignore_errors=True)


async def test_what_routers_say_to_each_other_reaches_no_model(
    bed: Any, pair: Pair, make_state: Callable[..., RouterState]
) -> None:
    replica = await bed.replica("A", cap=3)

    async def through(owner: str) -> None:
        for port in pair.ports.values():
            for said in ({}, SAID, {"x_aks_inference_version": "A"}):
                answer = await bed.ask(port=port, **said)
                assert (answer.status, answer.version) == (200, "A")
                seen = (await replica.stats())["last_headers"]
                assert not [name for name in seen if name.startswith("x-aks-")], (owner, port)
                assert TOKEN not in seen.values()

    # For the second time no process is prepared: a further one of the owner's has it, a hop more.
    for wait_ms in (500, 4_321):
        state = make_state({"A": (10_000, [replica])}, max_request_wait_time=wait_ms)
        for owner in ("b", "a"):
            await pair.give_to(owner, state)
            await through(owner)


async def test_further_processes_are_told_no_secret(
    bed: Any, pair: Pair, make_state: Callable[..., RouterState]
) -> None:
    # Whatever answers in place of a gate sees what HAProxy sends.
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    path = bed.directory / "bare"
    server = await asyncio.start_unix_server(answer, path)
    target = ReplicaTarget("bare", "", 0, None, True, path)
    try:
        for wait_ms in (500, 4_321):
            await pair.give_to("b", make_state({"A": (10_000, [target])}, max_request_wait_time=wait_ms))
            for port in pair.ports.values():
                assert (await bed.ask(port=port)).status == 200
        # Nobody is up where it is to go: it comes back, with what was meant for another router.
        moved = make_state({"A": (10_000, [target])}, max_request_wait_time=4_321)
        await pair.tell("b", moved, owner="a", tenure=AWAY)
        await pair.routers.pop("a").stop()
        before = await pair.came_back("b")
        asked = asyncio.create_task(bed.ask(port=pair.ports["b"]))

        async def back() -> bool:
            return await pair.came_back("b") > before

        await bed.until(back)
        await pair.tell("b", moved, owner=None, tenure=pair.tenure(name="b"))
        assert (await asked).status == 200
        assert heads
        assert not [head for head in heads if TOKEN.encode() in head]
    finally:
        server.close()
