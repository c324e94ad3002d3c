"""A supervisor that dies or hangs: it comes back, or is told, or is destroyed with all that it started."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from aks_inference_runtime.api import client
from aks_inference_runtime.api.client import destroy
from aks_inference_runtime.api.errors import AksInferenceError, RuntimeHung, RuntimeUnavailable
from aks_inference_runtime.api.launch import launch
from aks_inference_runtime.local.keeper import KEEPER, delay_s
from aks_inference_runtime.local.process import REPLICA_VARIABLE, kill_all, marked

COMMAND = Path(sys.executable).with_name("aks-inference")


def keepers(local: Any) -> list[psutil.Process]:
    found = []
    for process in marked(local.state):
        # One may end between the two looks.
        with contextlib.suppress(psutil.Error):
            if process.environ().get(REPLICA_VARIABLE) == KEEPER:
                found.append(process)
    return found


async def a_keeper(local: Any, but: set[int] | None = None) -> psutil.Process:
    async with asyncio.timeout(20):
        while not (found := [p for p in keepers(local) if p.pid not in (but or set())]):
            await asyncio.sleep(0.05)
    return found[0]


async def another_supervisor(local: Any, pid: int) -> int:
    async with asyncio.timeout(30):
        while True:
            try:
                if (now := int((await local.client.info()).pid)) != pid:
                    return now
            except RuntimeUnavailable:
                pass
            await asyncio.sleep(0.05)


async def test_a_supervisor_killed_under_load_comes_back_by_itself(local: Any, clients: Any) -> None:
    info = await local.launch()
    scaling = {"autoscale_max_replicas": 3, "autoscale_scale_down_delay_seconds": 600}
    status = await local.deploy(local.declared("svc", scaling=scaling, requests={"max_request_wait_time": 20_000}))
    before = {replica.id for replica in status.versions[0].replicas}
    await a_keeper(local)
    async with clients(status, await local.key("svc"), 1, {"sleep": 0.05}) as load:
        await load.at_least(5)
        os.kill(info.pid, signal.SIGKILL)
        # Who waits for a deployment goes on waiting.
        waited = await local.client.wait_endpoint("svc", status.generation, 60)
        assert waited.generation == status.generation
        assert await another_supervisor(local, info.pid)
        await load.at_least(5)
        async with clients(status, await local.key("svc"), 3, {"sleep": 0.1}) as more:
            scaled = await local.until("svc", lambda s: s.versions[0].replicas_ready >= 2)
        assert before <= {replica.id for replica in scaled.versions[0].replicas}
    assert set(load.seen) == set(more.seen) == {(200, None)}


async def test_a_killed_keeper_is_replaced_and_the_next_one_keeps_too(local: Any) -> None:
    info = await local.launch()
    first = await a_keeper(local)
    first.kill()
    second = await a_keeper(local, {first.pid})
    os.kill(info.pid, signal.SIGKILL)
    again = await another_supervisor(local, info.pid)
    third = await a_keeper(local, {first.pid, second.pid})
    assert third.is_running()
    async with asyncio.timeout(20):
        while len(keepers(local)) != 1:
            await asyncio.sleep(0.05)
    # An end in order is one: nobody starts it again.
    os.kill(again, signal.SIGTERM)
    async with asyncio.timeout(20):
        while keepers(local) or (psutil.pid_exists(again) and psutil.Process(again).status() != psutil.STATUS_ZOMBIE):
            await asyncio.sleep(0.05)


def test_starts_that_follow_closely_wait_longer() -> None:
    assert [delay_s(number) for number in (0, 1, 2, 5, 6, 1_000)] == [1, 2, 4, 32, 60, 60]


async def test_what_a_keeper_starts_makes_no_cluster_that_was_destroyed(local: Any) -> None:
    with pytest.raises(AksInferenceError, match="destroyed meanwhile"):
        await launch(local.settings, restarts=1)
    assert not local.state.exists()


@pytest.mark.long
async def test_a_hung_supervisor_is_told_within_its_deadline_and_can_be_destroyed(
    local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await local.launch()
    await local.deploy(local.declared("svc"))
    os.kill(info.pid, signal.SIGSTOP)
    # Of the command, which is a process of its own, they are what they are.
    monkeypatch.setattr(client, "SIGN_OF_LIFE_S", 0.5)
    monkeypatch.setattr(client, "REQUEST_TIMEOUT_S", 2.0)
    try:
        began = time.monotonic()
        cli = await asyncio.create_subprocess_exec(
            *(COMMAND, "--state-directory", str(local.state), "status"), stderr=asyncio.subprocess.PIPE
        )
        errors = await asyncio.gather(
            launch(local.settings),
            local.client.put_endpoint(local.declared("svc", 2)),
            anext(local.client.logs("svc")),
            local.client.wait_endpoint("svc", 1, 60),
            return_exceptions=True,
        )
        _, said = await cli.communicate()
        assert time.monotonic() - began < 40
        assert cli.returncode == 4
        for text in [said.decode(), *map(str, errors)]:
            assert f"(pid {info.pid})" in text
            assert f"kill -9 {info.pid}" in text
            assert str(local.state / "supervisor.log") in text
        assert {type(error) for error in errors} == {RuntimeHung}
        await destroy(local.state)
    finally:
        if psutil.pid_exists(info.pid):
            os.kill(info.pid, signal.SIGCONT)
    assert not local.state.exists()
    assert local.processes() == []


@pytest.mark.long
async def test_a_dead_cluster_is_destroyed_though_a_stranger_has_its_port(local: Any) -> None:
    info = await local.launch()
    await local.deploy(local.declared("svc"))
    local.kill_supervisor(info.pid)
    kill_all([p for p in local.processes() if "haproxy" in p.name()])
    with socket.create_server(("127.0.0.1", local.settings.port)) as stranger:
        await destroy(local.state)
        assert stranger.fileno() >= 0
    assert not local.state.exists()
    assert not local.run_directory.exists()
    assert local.processes() == []
    await destroy(local.state)


async def test_a_dead_clusters_requests_may_finish_while_it_is_destroyed(local: Any, score: Any) -> None:
    info = await local.launch()
    status = await local.deploy(local.declared("svc"))
    key = await local.key("svc")
    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(score(session, status, key, {"sleep": 2}))
        await local.until("svc", lambda s: s.versions[0].busy == 1)
        local.kill_supervisor(info.pid)
        await destroy(local.state)
        assert (await running)[0] == 200
