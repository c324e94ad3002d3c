"""The whole local cluster as processes: supervisor, HAProxy, gates, scoring servers; only through the client."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from small_disks import SmallDisks

from aks_inference_runtime.api.client import (
    ModelRegistration,
    destroy,
    launch,
    read_record,
)
from aks_inference_runtime.api.errors import Conflict, NotFound, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.api.supervisor import Observing
from testbed.processes import free_ports


async def scrape(session: aiohttp.ClientSession, port: int) -> str:
    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return await answer.text()


async def test_deployed_served_and_gone(local: Any, score: Any) -> None:
    info = await local.launch()
    assert (await local.launch()).pid == info.pid, "idempotent"
    (local.root / "weights.bin").write_bytes(b"weights")
    registration = ModelRegistration(name="weights", source_path=str(local.root / "weights.bin"), tags={"k": "v"})
    model = await local.client.put_model(registration)
    assert (await local.client.put_model(registration)) == model
    assert (model.name, model.version, list(model.files)) == ("weights", 1, ["weights.bin"])
    submission = local.declared("svc", models=[{"name": "weights", "version": 1}])
    status = await local.deploy(submission)
    assert status.state is ServiceState.HEALTHY
    assert status.scoring_uri == f"http://127.0.0.1:{local.settings.port}/api/v1/service/svc/score"
    async with aiohttp.ClientSession() as session:
        code, _, body = await score(session, status, await local.key("svc"))
        assert (code, body["answer"], body["files"]) == (200, 1, ["weights.bin"])
        assert body["folder"].endswith("/azureml-models/weights/1")
        assert (await score(session, status, "wrong"))[:2] == (401, "auth")
        # The gate that runs already is told to log; Prometheus asks for what it and the router counted.
        port = free_ports(1)[0]
        await local.client.put_observing(Observing(access_log=True, metrics_port=port))
        log = next((local.state / "logs" / "svc").glob("*/*.log"))
        async with asyncio.timeout(30):
            while '"request_id"' not in log.read_text():
                assert (await score(session, status, await local.key("svc")))[0] == 200
            refused = 'aks_inference_answers_total{endpoint="svc",version="",code="401",reason="auth"} 1'
            served = f'aks_inference_answers_total{{endpoint="svc",version="ver-a",replica="{log.stem}",code="200"'
            while refused not in (told := await scrape(session, port)):
                await asyncio.sleep(0.05)
        assert served in told
        for sample in ("ready_replicas", "wanted_replicas"):
            assert f'aks_inference_{sample}{{endpoint="svc",version="ver-a"}} 1' in told
    again = await local.client.put_endpoint(submission)
    assert (again.generation, again.observed_generation) == (1, 1)
    with pytest.raises(Conflict, match="used by svc"):
        await local.client.delete_model("weights", 1)
    assert any("init of a replica" in line for line in [line async for line in local.client.logs("svc")])
    await local.client.delete_endpoint("svc")
    with pytest.raises(NotFound, match="no endpoint svc"):
        await local.client.get_endpoint("svc")
    await local.client.delete_model("weights", 1)
    await local.client.shutdown(remove=True)
    assert not local.state.exists()
    assert local.processes() == []
    with pytest.raises(RuntimeUnavailable):
        await local.client.info()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", local.settings.port))


async def test_files_and_sockets_are_the_owners_alone(local: Any) -> None:
    await local.launch()
    await local.deploy(local.declared("svc"))
    assert local.run_directory is not None
    for folder in (local.state, local.run_directory):
        assert folder.stat().st_mode & 0o777 == 0o700
    for path in (*(local.state / "keys").iterdir(), local.state / "supervisor.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    key = await local.key("svc")
    for process in local.processes():
        assert key not in " ".join(process.cmdline())
        assert key not in str(process.environ())
    assert key not in (local.state / "supervisor.log").read_text()


async def test_a_changed_model_changes_under_load_without_a_failed_request(local: Any, clients: Any) -> None:
    await local.launch()
    status = await local.deploy(local.declared("svc", 1))
    async with clients(status, await local.key("svc"), 2) as load:
        await load.at_least(50)
        await local.deploy(local.declared("svc", 2))
        await load.at_least(50)
    assert set(load.seen) == {(200, None)}
    assert set(load.answers) == {1, 2}


async def test_both_keys_are_accepted_and_rotation_fails_no_request(local: Any, clients: Any, score: Any) -> None:
    await local.launch()
    first = local.declared("svc").model_copy(update={"primary_key": "first-key", "secondary_key": "second-key"})
    status = await local.deploy(first)
    async with clients(status, "second-key", 2) as load, aiohttp.ClientSession() as session:
        assert (await score(session, status, "first-key"))[0] == 200
        await local.deploy(first.model_copy(update={"primary_key": "third-key"}))
        assert (await score(session, status, "third-key"))[0] == 200
        assert (await score(session, status, "first-key"))[0] == 401
        await load.at_least(20)
    assert set(load.seen) == {(200, None)}


async def test_scales_up_and_down_with_load(local: Any, clients: Any) -> None:
    await local.launch()
    scaling = {"autoscale_max_replicas": 4, "autoscale_scale_down_delay_seconds": 2}
    status = await local.deploy(local.declared("svc", scaling=scaling))
    async with clients(status, await local.key("svc"), 3, {"sleep": 0.1}) as load:
        await local.until("svc", lambda s: s.versions[0].replicas_ready >= 3)
    assert set(load.seen) == {(200, None)}
    done = await local.until("svc", lambda s: len(s.versions[0].replicas) == 1)
    assert "were needed for 2 s" in done.versions[0].last_scaling


async def test_a_supervisor_killed_under_load_is_not_missed(local: Any, clients: Any) -> None:
    info = await local.launch()
    one = {"autoscale_enabled": False, "num_replicas": 1}
    status = await local.deploy(local.declared("svc", scaling=one))
    before = status.versions[0].replicas
    async with clients(status, await local.key("svc"), 2) as load:
        local.kill_supervisor(info.pid)
        await load.at_least(50)
        with pytest.raises(RuntimeUnavailable, match="aks-inference start"):
            await local.client.info()
        assert (await local.launch()).pid != info.pid
        await load.at_least(50)
        after = await local.until("svc", lambda s: s.versions[0].replicas_ready == 1)
        assert [r.id for r in after.versions[0].replicas] == [r.id for r in before]
        # It governs again: a change goes through.
        await local.deploy(local.declared("svc", 2, scaling=one))
        await load.at_least(20)
    assert set(load.seen) == {(200, None)}


@pytest.mark.parametrize(
    ("process", "costs", "most"),
    [
        ("serverPid", {(502, "replica-lost")}, 20),
        # HAProxy closes a kept client connection in silence when the server of a later request on it goes away.
        # Until the router is told, the port of a gate that died refuses at once: many requests on a busy machine.
        # A large or slow answer that has begun ends with its gate.
        ("gatePid", {(502, "replica-lost"), ("disconnected", None), ("cut", None)}, 100),
    ],
)
async def test_a_replica_killed_under_load_is_replaced(
    local: Any, clients: Any, process: str, costs: set[tuple[Any, Any]], most: int
) -> None:
    await local.launch()
    fixed = {"autoscale_enabled": False, "num_replicas": 2}
    status = await local.deploy(local.declared("svc", scaling=fixed))
    victim = status.versions[0].replicas[0].id
    record = json.loads((local.state / "replicas" / f"{victim}.json").read_text())
    async with clients(status, await local.key("svc"), 2) as load:
        await load.at_least(20)
        os.kill(record[process], signal.SIGKILL)
        done = await local.until(
            "svc", lambda s: s.versions[0].replicas_ready == 2 and victim not in [r.id for r in s.versions[0].replicas]
        )
        await load.at_least(20)
    assert done.state is ServiceState.HEALTHY
    lost = {key: n for key, n in load.seen.items() if key != (200, None)}
    assert set(lost) <= costs
    assert sum(lost.values()) <= most, "what ran there, and what came before the router knew"


@pytest.mark.long
async def test_what_a_killed_supervisor_left_is_destroyed_too(local: Any) -> None:
    info = await local.launch()
    await local.deploy(local.declared("svc"))
    local.kill_supervisor(info.pid)
    await destroy(local.state)
    assert local.processes() == []
    assert not local.state.exists()
    await destroy(local.state)


async def test_a_replica_that_died_meanwhile_and_one_nobody_knows(local: Any) -> None:
    info = await local.launch()
    await local.deploy(local.declared("svc"))
    local.kill_supervisor(info.pid)
    (record,) = (local.state / "replicas").glob("*.json")
    os.kill(json.loads(record.read_text())["serverPid"], signal.SIGKILL)
    await local.launch()
    after = await local.until("svc", lambda s: s.versions[0].replicas_ready == 1)
    assert [r.id for r in after.versions[0].replicas] != [record.stem]
    assert len(list((local.state / "replicas").glob("*.json"))) == 1


@pytest.mark.long
async def test_a_damaged_record_of_a_replica_costs_the_replica_alone(local: Any) -> None:
    info = await local.launch()
    status = await local.deploy(local.declared("svc"))
    local.kill_supervisor(info.pid)
    (record,) = (local.state / "replicas").glob("*.json")
    lost = [p for p in local.processes() if any(record.stem in part for part in p.environ().values())]
    record.write_text("{")
    await local.launch()
    after = await local.until("svc", lambda s: s.versions[0].replicas_ready == 1)
    assert after.versions[0].replicas[0].id != status.versions[0].replicas[0].id
    assert lost
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in lost)
    assert len(list((local.state / "replicas").iterdir())) == 2, "one record and one gate's settings"


async def test_two_at_once_start_one(local: Any) -> None:
    infos = await asyncio.gather(*(launch(local.settings) for _ in range(3)))
    local.run_directory = Path(infos[0].socket).parent
    assert len({info.pid for info in infos}) == 1
    record = read_record(local.state)
    assert record is not None
    assert (str(record.socket), record.pid) == (infos[0].socket, infos[0].pid)


async def test_a_full_disk_is_told_and_changes_nothing(local: Any, score: Any) -> None:
    local.state.mkdir(mode=0o700)
    disks = SmallDisks()
    disks.mount(local.state, 512)
    try:
        await local.launch()
        await local.deploy(local.declared("svc"))
        filler = local.state / "logs" / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)
        (local.root / "weights.bin").write_bytes(b"0" * 100_000)
        with pytest.raises(OperationFailed, match="disk is full"):
            await local.client.put_model(ModelRegistration(name="m", source_path=str(local.root / "weights.bin")))
        with pytest.raises(OperationFailed, match="disk is full"):
            await local.client.put_endpoint(local.declared("svc", 2))
        status = await local.status("svc")
        assert (status.generation, status.state) == (1, ServiceState.HEALTHY)
        async with aiohttp.ClientSession() as session:
            assert (await score(session, status, await local.key("svc")))[0] == 200
        filler.unlink()
        assert (await local.deploy(local.declared("svc", 2))).generation == 2
        await destroy(local.state)
    finally:
        disks.unmount()


@pytest.mark.long
async def test_names_at_their_limits(local: Any, score: Any) -> None:
    await local.launch()
    for name in ("abc", "a" + "-" * 30 + "9"):
        status = await local.deploy(local.declared(name, name="v" + "-" * 30 + "9" if len(name) > 3 else "v-1"))
        async with aiohttp.ClientSession() as session:
            assert (await score(session, status, await local.key(name)))[0] == 200
