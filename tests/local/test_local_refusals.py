"""What the local cluster refuses or gives up, and that nothing else is harmed by it."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api.client import (
    LocalSettings,
    launch,
)
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.status import ServiceState


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


DAMAGES = (
    ("supervisor.json", '{"recordVersion": 99}'),
    ("supervisor.json", "{"),
    ("endpoints/svc.json", '{"recordVersion": 99}'),
    ("endpoints/svc.json", "\x00\xff"),
    ("keys/svc.json", ""),
)


async def test_a_damaged_or_newer_state_file_is_refused_and_nothing_destroyed(local: Any) -> None:
    info = await local.launch()
    submission = local.declared("svc", script="def init():\n    raise OSError\ndef run(d):\n    pass\n")
    await local.client.put_endpoint(submission)
    local.kill_supervisor(info.pid)
    before = sorted(path for path in (local.state / "endpoints").iterdir())
    for which, damage in DAMAGES:
        good = (local.state / which).read_bytes()
        (local.state / which).write_text(damage)
        with pytest.raises(InvalidInput, match="newer version" if "99" in damage else "damaged") as refused:
            await launch(local.settings)
        assert which.rpartition("/")[2] in str(refused.value)
        assert (local.state / which).read_text() == damage
        assert sorted(path for path in (local.state / "endpoints").iterdir()) == before
        (local.state / which).write_bytes(good)
    await local.launch()
    assert (await local.status("svc")).generation == 1


BAD_DECLARATIONS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": "ab"}, "3 to 32 characters"),
    ({"name": "A" * 4}, "lower-case"),
    ({"name": "a" * 33}, "3 to 32"),
    ({"models": [{"name": "none", "version": 1}]}, "no model none:1 is stored"),
    ({"environment": {"pip_packages": ["numpy ==", "x y"]}}, "'x y' is not a requirement"),
    ({"traffic_percentile": 33.333}, "more than two decimals"),
    ({"code": {"source_directory": "/nowhere", "entry_script": "s.py", "digest": "sha256:0"}}, "/nowhere"),
    ({"code": {"source_directory": None, "entry_script": "/no/s.py", "digest": "sha256:0"}}, "does not exist"),
)


async def test_bad_declarations_are_refused_at_once(local: Any) -> None:
    await local.launch()
    for change, says in BAD_DECLARATIONS:
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


BAD_SCRIPTS = (
    ("def run(", "SyntaxError"),
    ("def init():\n    pass\n", "does not have a run"),
    ("def init():\n    raise RuntimeError('no weights')\ndef run(data):\n    pass\n", "no weights"),
)


@pytest.mark.long
async def test_a_script_that_cannot_start_fails_with_its_log(local: Any) -> None:
    await local.launch()
    for number, (script, says) in enumerate(BAD_SCRIPTS):
        with pytest.raises(OperationFailed, match=says) as failed:
            await local.deploy(local.declared(f"bad-{number}", script=script))
        assert "exit code 3" in str(failed.value)
        assert (await local.status(f"bad-{number}")).state is ServiceState.FAILED


@pytest.mark.long
async def test_a_server_that_never_gets_healthy_is_given_up(local: Any) -> None:
    await local.launch()
    probe = {"initial_delay_seconds": 1, "period_seconds": 1, "failure_threshold": 1}
    script = "import time\ndef init():\n    time.sleep(600)\ndef run(data):\n    pass\n"
    with pytest.raises(OperationFailed, match="never healthy within 2 s"):
        await local.deploy(local.declared("slow", script=script, liveness_probe=probe))


async def test_a_broken_environment_fails_with_the_end_of_uvs_output(local: Any) -> None:
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
