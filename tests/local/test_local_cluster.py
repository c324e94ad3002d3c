"""The whole local cluster as processes: supervisor, HAProxy, gates, scoring servers; only through the client."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from aks_inference_runtime.api.client import (
    LocalSettings,
    ModelRegistration,
    destroy,
    launch,
    read_record,
)
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.api.status import ServiceState


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
    status = await local.deploy(local.declared("svc"))
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
        await local.deploy(local.declared("svc", 2))
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


async def test_a_port_in_use_is_named_with_its_holder(local: Any, score: Any) -> None:
    says = rf"port {local.settings.port} .* in use by process {os.getpid()}"
    with socket.create_server(("127.0.0.1", local.settings.port)), pytest.raises(Conflict, match=says):
        await launch(local.settings)
    await local.launch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port}"):
            await local.client.put_endpoint(local.declared("svc", spec={"port": port}))
    status = await local.deploy(local.declared("svc", spec={"port": port}))
    assert status.scoring_uri == f"http://127.0.0.1:{port}/score"
    async with aiohttp.ClientSession() as session:
        assert (await score(session, status, await local.key("svc")))[0] == 200


async def test_a_start_that_failed_leaves_nothing(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = Path(tempfile.mkdtemp(prefix="aks-t-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
    try:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", local.settings.port))
            holder.listen()
            with pytest.raises(Conflict, match=f"port {local.settings.port} "):
                await local.launch()
        assert not local.state.exists()
        assert list(sockets.iterdir()) == []
    finally:
        shutil.rmtree(sockets)


async def test_other_settings_are_refused(local: Any) -> None:
    await local.launch()
    with pytest.raises(Conflict, match="already runs"):
        await launch(local.settings.model_copy(update={"port": local.settings.port - 1}))
    with pytest.raises(InvalidInput, match="not absolute"):
        await launch(LocalSettings(name="x", state_directory="relative"))
    (local.root / "mine").mkdir()
    (local.root / "mine" / "thesis.txt").write_text("do not remove")
    with pytest.raises(Conflict, match=r"thesis\.txt"):
        await launch(LocalSettings(name="x", state_directory=str(local.root / "mine")))


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        ("supervisor.json", '{"recordVersion": 99}'),
        ("supervisor.json", "{"),
        ("endpoints/svc.json", '{"recordVersion": 99}'),
        ("endpoints/svc.json", "\x00\xff"),
        ("keys/svc.json", ""),
    ],
)
async def test_a_damaged_or_newer_state_file_is_refused_and_nothing_destroyed(
    local: Any, which: str, damage: str
) -> None:
    info = await local.launch()
    submission = local.declared("svc", script="def init():\n    raise OSError\ndef run(d):\n    pass\n")
    await local.client.put_endpoint(submission)
    local.kill_supervisor(info.pid)
    good = (local.state / which).read_bytes()
    (local.state / which).write_text(damage)
    before = sorted(path for path in (local.state / "endpoints").iterdir())
    with pytest.raises(InvalidInput, match="newer version" if "99" in damage else "damaged") as refused:
        await launch(local.settings)
    assert which.rpartition("/")[2] in str(refused.value)
    assert (local.state / which).read_text() == damage
    assert sorted(path for path in (local.state / "endpoints").iterdir()) == before
    (local.state / which).write_bytes(good)
    await local.launch()
    assert (await local.status("svc")).generation == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "ab"}, "3 to 32 characters"),
        ({"name": "A" * 4}, "lower-case"),
        ({"name": "a" * 33}, "3 to 32"),
        ({"models": [{"name": "none", "version": 1}]}, "no model none:1 is stored"),
        ({"environment": {"pip_packages": ["numpy ==", "x y"]}}, "'x y' is not a requirement"),
        ({"traffic_percentile": 33.333}, "more than two decimals"),
        ({"code": {"source_directory": "/nowhere", "entry_script": "s.py", "digest": "sha256:0"}}, "/nowhere"),
        ({"code": {"source_directory": None, "entry_script": "/no/s.py", "digest": "sha256:0"}}, "does not exist"),
    ],
)
async def test_bad_declarations_are_refused_at_once(local: Any, change: dict[str, Any], says: str) -> None:
    await local.launch()
    with pytest.raises((InvalidInput, NotFound), match=says):
        await local.client.put_endpoint(local.declared("svc", **change))
    assert await local.client.endpoints() == []


async def test_code_that_changed_since_it_was_declared_is_refused(local: Any) -> None:
    await local.launch()
    submission = local.declared("svc")
    (local.root / "source-svc-1" / "score.py").write_text("changed")
    with pytest.raises(InvalidInput, match="preview and apply again"):
        await local.client.put_endpoint(submission)
    assert list((local.state / "code").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("def run(", "SyntaxError"),
        ("def init():\n    pass\n", "does not have a run"),
        ("def init():\n    raise RuntimeError('no weights')\ndef run(data):\n    pass\n", "no weights"),
    ],
)
async def test_a_script_that_cannot_start_fails_with_its_log(local: Any, script: str, says: str) -> None:
    await local.launch()
    with pytest.raises(OperationFailed, match=says) as failed:
        await local.deploy(local.declared("bad", script=script))
    assert "exit code 3" in str(failed.value)
    assert (await local.status("bad")).state is ServiceState.FAILED


async def test_a_server_that_never_gets_healthy_is_given_up(local: Any) -> None:
    await local.launch()
    probe = {"initial_delay_seconds": 1, "period_seconds": 1, "failure_threshold": 1}
    script = "import time\ndef init():\n    time.sleep(600)\ndef run(data):\n    pass\n"
    with pytest.raises(OperationFailed, match="never healthy within 2 s"):
        await local.deploy(local.declared("slow", script=script, liveness_probe=probe))


async def test_a_broken_environment_fails_with_the_end_of_pips_output(local: Any) -> None:
    await local.launch()
    nothing = {"pip_packages": ["aks-inference-no-such-package @ file:///nowhere/none-1-py3-none-any.whl"]}
    with pytest.raises(OperationFailed, match="could not be built") as failed:
        await local.deploy(local.declared("svc", environment=nothing))
    assert "nowhere" in str(failed.value)


async def test_more_than_the_machine_holds_is_unschedulable_and_says_why(local: Any) -> None:
    await local.launch()
    submission = local.declared("big", resources={"cpu_cores": 4096})
    status = await local.client.put_endpoint(submission)
    status = await local.until("big", lambda s: s.state is ServiceState.UNSCHEDULABLE)
    assert "4096 cores" in status.versions[0].message
    with pytest.raises(OperationFailed, match="Unschedulable"):
        await local.client.wait_endpoint("big", status.generation, 0.2)


async def test_a_full_disk_is_told_and_changes_nothing(local: Any, score: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to mount a small file system")
    local.state.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(local.state)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
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
        subprocess.run(["umount", str(local.state)], check=True)


async def test_names_at_their_limits(local: Any, score: Any) -> None:
    await local.launch()
    for name in ("abc", "a" + "-" * 30 + "9"):
        status = await local.deploy(local.declared(name, name="v" + "-" * 30 + "9" if len(name) > 3 else "v-1"))
        async with aiohttp.ClientSession() as session:
            assert (await score(session, status, await local.key(name)))[0] == 200


async def test_the_api_refuses_what_it_does_not_understand(local: Any) -> None:
    info = await local.launch()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(info.socket)) as session:
        for method, path, body, status in [
            ("PUT", "/v1/endpoints/svc", b"{", 400),
            ("PUT", "/v1/endpoints/svc", b'{"endpoint": {}, "nonsense": 1}', 400),
            ("POST", "/v1/models", b"[]", 400),
            ("POST", "/v1/shutdown", b"", 400),
            ("GET", "/v1/endpoints/none", b"", 404),
            ("DELETE", "/v1/models/none/1", b"", 404),
            ("GET", "/v1/models/none/one", b"", 404),
            ("GET", "/v2/info", b"", 404),
            ("PATCH", "/v1/info", b"", 405),
        ]:
            async with session.request(method, f"http://supervisor{path}", data=body) as answer:
                found = answer.status, sorted(await answer.json())
            assert found == (status, ["error", "message"]), (method, path)


async def test_another_user_is_refused_even_when_the_socket_is_open_to_all(local: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to become another user")
    info = await local.launch()
    ask = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        "s.sendall(b'GET /v1/info HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')\n"
        "print(s.recv(100).split()[1].decode())\n"
    )

    async def another_user() -> tuple[bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            "python3", "-c", ask, info.socket, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return await process.communicate()

    assert b"Permission" in (await another_user())[1]
    local.run_directory.chmod(0o711)
    Path(info.socket).chmod(0o777)
    try:
        assert (await another_user())[0].strip() == b"403"
    finally:
        local.run_directory.chmod(0o700)


async def test_the_record_names_the_socket(local: Any) -> None:
    info = await local.launch()
    record = read_record(local.state)
    assert record is not None
    assert (str(record.socket), record.pid) == (info.socket, info.pid)
