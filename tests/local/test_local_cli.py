"""`aks-inference` as people and pipelines call it: a process, its output, its exit code."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.client import EndpointSubmission, LocalSettings, SupervisorClient, destroy, launch
from aks_inference_runtime.api.content import directory_digest
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.supervisor import ModelRegistration, SupervisorRecord
from aks_inference_runtime.cli.show import brief
from testbed.processes import free_ports

COMMAND = Path(sys.executable).with_name("aks-inference")


async def run(*arguments: str, stdin: bytes = b"", **variables: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1", **variables},
    )
    out, err = await process.communicate(stdin)
    assert "Traceback" not in err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Path]:
    """One endpoint, `svc`, on a local cluster `demo` below XDG_STATE_HOME."""
    directory = tmp_path / "aks-inference" / "demo"
    (port,) = free_ports(1)
    source = tmp_path / "source"
    source.mkdir()
    (source / "score.py").write_text(
        "import json\ndef init():\n    print('hello')\ndef run(data):\n    return json.loads(data)\n"
    )
    code = {"source_directory": str(source), "entry_script": "score.py", "digest": directory_digest(source)}
    (tmp_path / "net.bin").write_bytes(b"weights")
    version = {"name": "ver-a", "is_default": True, "traffic_percentile": 100, "code": code}
    version["models"] = [{"name": "net", "version": 1}]
    endpoint = ScoringEndpoint.model_validate({"metadata": {"name": "svc"}, "spec": {"versions": [version]}})
    try:
        await launch(LocalSettings(name="demo", state_directory=str(directory), port=port))
        client = SupervisorClient(directory)
        await client.put_model(ModelRegistration(name="net", source_path=str(tmp_path / "net.bin")))
        status = await client.put_endpoint(EndpointSubmission(endpoint=endpoint))
        await client.wait_endpoint("svc", status.generation, 200)
        yield directory
    finally:
        await destroy(directory)


async def test_the_commands(state: Path) -> None:
    home = {"XDG_STATE_HOME": str(state.parent.parent)}
    code, out, err = await run("status", **home)
    assert (code, err) == (0, "")
    assert "svc" in out
    assert "Healthy" in out
    code, out, _ = await run("--json", "status", **home)
    assert json.loads(out)["endpoints"][0]["state"] == "Healthy"
    code, out, _ = await run("status", "svc", **home)
    assert "scoring URI  http://127.0.0.1:" in out
    code, out, _ = await run("--state-directory", str(state), "--json", "status", "svc")
    view: dict[str, Any] = json.loads(out)
    assert (code, view["versions"][0]["replicasReady"]) == (0, 1)

    code, out, err = await run("score", "svc", "--data", "-", stdin=b'{"x": [1, 2]}', **home)
    assert (code, json.loads(out)) == (0, {"x": [1, 2]})
    assert err.startswith("200, version ver-a in ")
    code, out, err = await run("score", "svc", "--data", "-", "--version", "none", stdin=b"{}", **home)
    assert (code, out) == (3, "")
    assert "no version 'none' (versions: ver-a)" in err
    code, out, _ = await run("--json", "score", "svc", "--data", "-", "--version", "ver-a", stdin=b"{}", **home)
    assert (code, json.loads(out)["version"]) == (0, "ver-a")
    code, out, _ = await run("--json", "score", "svc", "--data", "-", stdin=b"{}", AKS_INFERENCE_KEY="wrong", **home)
    assert (code, json.loads(out)["reason"]) == (1, "auth")

    code, out, _ = await run("logs", "svc", "--tail", "50", **home)
    assert (code, "hello" in out) == (0, True)
    code, out, _ = await run("logs", "svc", "--tail", "2", "--json", **home)
    told = [json.loads(line) for line in out.splitlines()]
    assert (code, [set(one) for one in told]) == (0, [{"version", "replica", "time", "line"}] * 2)
    assert {one["version"] for one in told} == {"ver-a"}
    assert all(one["time"] for one in told)
    code, out, _ = await run("wait", "svc", "--timeout", "5", **home)
    assert (code, out.startswith("Healthy")) == (0, True)
    code, out, _ = await run("wait", "svc", "--timeout", "5", "--json", **home)
    assert (code, json.loads(out)["state"], json.loads(out)["versions"][0]["replicasReady"]) == (0, "Healthy", 1)
    code, out, _ = await run("wait", "none", "--timeout", "5", "--json", **home)
    assert (code, json.loads(out)["error"]) == (3, "NotFound")

    key = (await SupervisorClient(state).keys("svc")).primary_key
    code, out, _ = await run("keys", "svc", **home)
    assert code == 0
    assert str(state / "keys" / "svc.json") in out
    assert key not in out
    assert key in (await run("keys", "svc", "--show", **home))[1]

    code, out, _ = await run("models", "show", "net", **home)
    assert (code, "used by      endpoint svc, version ver-a" in out) == (0, True)
    code, out, _ = await run("--json", "models", "show", "net:1", **home)
    assert (code, json.loads(out)["users"]) == (0, ["endpoint svc, version ver-a"])
    code, _, err = await run("models", "delete", "net:1", **home)
    assert (code, "net:1 is used by svc" in err) == (1, True)

    code, out, err = await run("status", "none", **home)
    assert (code, out) == (3, "")
    assert "no endpoint none (endpoints: svc)" in err
    code, out, _ = await run("--json", "status", "none", **home)
    assert (code, json.loads(out)["error"]) == (3, "NotFound")


async def test_follows_a_log_until_it_is_left(state: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "--state-directory", str(state), "logs", "svc", "--follow", "--tail", "0", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while True:
                await run("--state-directory", str(state), "score", "svc", "--data", "-", stdin=b"{}")
                try:
                    async with asyncio.timeout(0.5):
                        line = await process.stdout.readline()
                except TimeoutError:
                    continue
                if "POST /score 200" in json.loads(line)["line"]:
                    break
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            assert (process.returncode, err) == (130, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_of_a_long_log_the_error_comes_first() -> None:
    frames = [f'  File "score.py", line {number}, in f' for number in range(20)]
    log = [
        "Found extra keys in the config file that are not supported by the server.",
        "Extra keys = ['SERVICE_NAME']",
        "starting",
        "E azmlinfsrv - Encountered Exception Traceback (most recent call last):",
        *frames,
        "RuntimeError: no weights",
        "",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        "UserScriptException: Caught an unhandled exception",
        *(f"I line {number}" for number in range(20)),
    ]
    told = brief("svc", "\n".join(["replica a: exit code 3", *log]))
    assert told[:2] == ["replica a: exit code 3", "RuntimeError: no weights"]
    assert told[2:-1] == frames[-10:]
    assert "`aks-inference logs svc`" in told[-1]
    without = brief("svc", "\n".join(["pip failed", *(f"line {number}" for number in range(30))]))
    assert without[:-1] == ["pip failed", *(f"line {number}" for number in range(20, 30))]
    assert brief("svc", "no room\n" + "\n".join(log[:3])) == ["no room", "starting"]
    assert brief("svc", "") == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["status"], 3, "no local cluster under"),
        (["--cluster", "x", "--state-directory", "y", "status"], 2, "not both"),
        (["--cluster", "nobody", "status"], 3, "no local cluster under"),
        (["--state-directory", "/nowhere", "status"], 4, "`up` of the stack starts it"),
        (["status", "--nonsense"], 2, "No such option"),
        (["score", "svc", "--data", "/nowhere"], 2, "No such file"),
    ],
)
async def test_errors_of_users(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    found, out, err = await run(*arguments, XDG_STATE_HOME=str(tmp_path))
    assert (found, out) == (code, "")
    assert says in err


async def test_several_clusters_must_be_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "aks-inference" / name).mkdir(parents=True)
        (tmp_path / "aks-inference" / name / "supervisor.json").write_text("{}")
    code, _, err = await run("status", XDG_STATE_HOME=str(tmp_path))
    assert code == 2
    assert "one, two" in err


async def test_a_cluster_is_named_by_its_folder_or_its_name(tmp_path: Path) -> None:
    root = tmp_path / "aks-inference"
    for folder, name in (("proj-dev-local", "local"), ("proj-prod-local", "local"), ("proj-dev-other", "other")):
        settings = LocalSettings(name=name, state_directory=str(root / folder))
        (root / folder).mkdir(parents=True)
        record = SupervisorRecord(settings=settings, run_directory=str(tmp_path / "run"))
        (root / folder / "supervisor.json").write_text(record.model_dump_json(by_alias=True))

    async def says(cluster: str) -> tuple[int, str]:
        code, _, err = await run("--cluster", cluster, "status", XDG_STATE_HOME=str(tmp_path))
        return code, err

    for name in ("other", "proj-dev-other"):
        code, err = await says(name)
        assert (code, f"{root}/proj-dev-other does not answer (No such file or directory);" in err) == (4, True)
    code, err = await says("proj-prod-local")
    assert (code, f"{root}/proj-prod-local does not answer" in err) == (4, True)
    code, err = await says("local")
    assert (code, "name the folder: proj-dev-local, proj-prod-local" in err) == (2, True)
    code, err = await says("wrong")
    assert (code, "no local cluster 'wrong'" in err) == (3, True)
    assert "proj-dev-local (cluster local), proj-dev-other (cluster other), proj-prod-local (cluster local)" in err
