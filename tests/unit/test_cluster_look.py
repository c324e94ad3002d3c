"""`aks-inference status | logs | top | wait` on a cluster: the command as a process, a server that streams logs."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from aks_inference_runtime.api.kubernetes import COMPONENT_LABEL, ENDPOINT_LABEL, REPLICA_COMPONENT, VERSION_LABEL

COMMAND = Path(sys.executable).with_name("aks-inference")
TOKEN = "of-the-kubeconfig"


def endpoint(name: str, namespace: str = "default", created: str = "2026-01-01T00:00:00Z", **status: Any) -> Any:
    version = {"name": "blue", "isDefault": True, "trafficPercentile": 100}
    version["code"] = {"entryScript": "score.py", "digest": "sha256:0"}
    told = {"name": "blue", "state": "Healthy", "traffic": 100, "replicasDesired": 2, "replicasReady": 1, "busy": 3}
    told |= {"queued": 1, "utilization": 200.0, "lastScaling": "1 → 2: need"} | status.pop("version", {})
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{namespace}/{name}",
            "generation": 4,
            "creationTimestamp": created,
        },
        "spec": {"versions": [version]},
        "status": {
            "state": "Healthy",
            "scoringUri": f"http://router/api/v1/service/{name}/score",
            "versions": [told],
            "replicas": "1/2",
            "observedGeneration": 4,
            "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 4}],
            **status,
        },
    }


def pod(name: str, endpoint: str = "churn", *, ready: bool = True, restarts: int = 0, waiting: str = "") -> Any:
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {ENDPOINT_LABEL: endpoint, VERSION_LABEL: "blue", COMPONENT_LABEL: REPLICA_COMPONENT},
        },
        "spec": {"containers": [{"name": "scoring"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "scoring", "ready": ready, "restartCount": restarts, "state": state}],
        },
    }


class ApiServer:
    """As much of one as these commands ask for."""

    def __init__(self) -> None:
        self.endpoints: list[Any] = []
        self.pods: list[Any] = []
        self.logs: dict[tuple[str, bool], list[str]] = {}
        self.asked: list[str] = []
        self.url = ""
        self.known = True

    def app(self) -> web.Application:
        app = web.Application()
        base = "/apis/aks-inference.dev/v1"
        for path in (f"{base}/scoringendpoints", f"{base}/namespaces/{{namespace}}/scoringendpoints"):
            app.router.add_get(path, self.listed)
        for path in ("/api/v1/pods", "/api/v1/namespaces/{namespace}/pods"):
            app.router.add_get(path, self.listed_pods)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self.log)
        return app

    async def listed(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        if not self.known:
            return web.json_response({"message": "the server could not find the requested resource"}, status=404)
        space = request.match_info.get("namespace")
        found = [e for e in self.endpoints if space in (None, e["metadata"]["namespace"])]
        return web.json_response({"items": found, "metadata": {}})

    async def listed_pods(self, request: web.Request) -> web.Response:
        label, _, value = request.query["labelSelector"].partition("=")
        found = [p for p in self.pods if p["metadata"]["labels"][label] == value]
        return web.json_response({"items": found, "metadata": {}})

    async def log(self, request: web.Request) -> web.StreamResponse:
        name, query = request.match_info["name"], request.query
        self.asked.append(f"{name} {query.get('previous', '')}{query.get('follow', '')}")
        assert query["timestamps"] == "true"
        of = name if query["container"] == "scoring" else f"{name}/{query['container']}"
        lines = self.logs.get((of, query.get("previous") == "true"), [])
        answer = web.StreamResponse()
        await answer.prepare(request)
        last = lines[-int(query["tailLines"]) :] if "tailLines" in query else lines
        await answer.write("".join(f"{line}\n" for line in last).encode())
        if query.get("follow"):
            await asyncio.Event().wait()
        return answer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    made = ApiServer()
    runner = web.AppRunner(made.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    inner: Any = site._server
    made.url = f"http://127.0.0.1:{inner.sockets[0].getsockname()[1]}"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": made.url}}],
        "users": [
            {"name": "token", "user": {"token": TOKEN}},
            {"name": "program", "user": {"exec": login(tmp_path)}},
            {"name": "missing", "user": {"exec": {"command": "no-such-login", "installHint": "get it\n"}}},
        ],
        "contexts": [{"name": n, "context": {"cluster": "c", "user": n}} for n in ("token", "program", "missing")],
        "current-context": "token",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    try:
        yield made
    finally:
        await runner.cleanup()


def login(folder: Path) -> dict[str, Any]:
    """A program that logs in, as kubelogin does."""
    answer = json.dumps({"kind": "ExecCredential", "status": {"token": TOKEN}})
    program = folder / "login"
    program.write_text(f'#!/bin/sh\ntest "$WHO" = me && test -n "$KUBERNETES_EXEC_INFO" && echo \'{answer}\'\n')
    program.chmod(0o755)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(program),
        "env": [{"name": "WHO", "value": "me"}],
    }


async def run(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "--kubeconfig", str(folder / "kubeconfig"), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **variables},
    )
    out, err = await process.communicate()
    assert "Traceback" not in err.decode(), err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_status_and_top(server: ApiServer, tmp_path: Path) -> None:
    older = endpoint("fraud", "team-a", "2025-01-01T00:00:00Z", version={"utilization": 10.0})
    server.endpoints = [endpoint("churn"), older, endpoint("fraud", "team-b", state="Unhealthy")]
    server.pods = [pod("churn-1"), pod("churn-2", ready=False, restarts=4, waiting="CrashLoopBackOff")]
    (code, out, err), (_, lines, _), (_, one, _), (_, busy, _), (_, busy_json, _) = await asyncio.gather(
        run(tmp_path, "status"),
        run(tmp_path, "--json", "status", "churn"),
        run(tmp_path, "--namespace", "team-b", "status", "fraud"),
        run(tmp_path, "top"),
        run(tmp_path, "--json", "top", "churn", "--count", "2", "--interval", "0.1"),
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"cluster {server.url}"
    assert [line.split()[:3] for line in out.splitlines()[2:4]] == [
        ["churn", "blue", "Healthy"],
        ["fraud", "blue", "Healthy"],
    ]
    (version,) = json.loads(lines)["versions"]
    states = [(r["id"], r["state"], r["restarts"], r["address"]) for r in version["replicas"]]
    assert states == [("churn-1", "Ready", 0, "10.0.0.1"), ("churn-2", "BackOff", 4, "10.0.0.1")]
    assert (json.loads(lines)["generation"], json.loads(lines)["observedGeneration"]) == (4, 4)
    assert "endpoint fraud: Unhealthy" in one
    # What is used most comes first.
    rows = [line.split() for line in busy.splitlines()[1:]]
    assert [row[0] for row in rows] == ["churn", "fraud", "fraud"]
    assert rows[0][1:8] == ["blue", "200", "%", "3", "1", "1", "2"]
    told = [json.loads(line)["endpoints"] for line in busy_json.splitlines()]
    assert [[e["name"] for e in look] for look in told] == [["churn"], ["churn"]]
    assert told[0][0]["versions"][0]["utilization"] == 200.0


async def test_logs_of_all_replicas_by_time(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints = [endpoint("churn")]
    server.pods = [pod("churn-1"), pod("churn-2", ready=False, restarts=2), pod("other-1", "other")]
    server.logs = {
        ("churn-1", False): ["2026-01-01T00:00:01Z one", "2026-01-01T00:00:04Z four"],
        ("churn-2", False): ["2026-01-01T00:00:03Z three"],
        ("churn-2", True): ["2026-01-01T00:00:02Z died of this"],
    }
    (code, out, err), (_, last, _), (missing, _, told) = await asyncio.gather(
        run(tmp_path, "logs", "churn"),
        run(tmp_path, "--json", "logs", "churn", "--tail", "1"),
        run(tmp_path, "logs", "churn", "--replica", "none"),
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "blue/churn-1 one",
        "blue/churn-2 died of this",
        "blue/churn-2 three",
        "blue/churn-1 four",
    ]
    assert json.loads(last) == {
        "version": "blue", "replica": "churn-1", "time": "2026-01-01T00:00:04Z", "line": "four"
    }  # fmt: skip
    assert (missing, "endpoint churn has no replica none of version any" in told) == (3, True)


def held(name: str, *before: Any, scoring: Any = None) -> Any:
    """A pod whose scoring container waits for those that are run before."""
    made = pod(name, ready=False)
    made["status"] |= {
        "initContainerStatuses": list(before),
        "containerStatuses": [{"name": "scoring", "state": {"waiting": {"reason": "PodInitializing"}}}]
        if scoring is None
        else [scoring],
    }
    return made


async def test_logs_of_what_holds_a_replica_up(server: ApiServer, tmp_path: Path) -> None:
    """The fetch of its models, its gate, what ships its data; where none has begun, why."""
    done = {"name": "models", "state": {"terminated": {"exitCode": 0}}, "started": False, "ready": True}
    loops = {"waiting": {"reason": "CrashLoopBackOff"}}
    pulls = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    runs = {"name": "scoring", "state": {"running": {}}, "ready": True, "started": True}
    server.endpoints = [endpoint("churn")]
    server.pods = [
        held("fails", {"name": "models", "state": loops, "restartCount": 2, "started": False}),
        held("fetches", {"name": "models", "state": {"running": {}}, "started": False}),
        held("gated", done, {"name": "gate", "state": loops, "restartCount": 1, "started": False}),
        held("lost", {"name": "model-data", "state": loops, "restartCount": 4, "started": True}, scoring=runs),
        held("pulls", {"name": "models", "state": pulls}),
        held("waits", done, {"name": "gate", "state": {"running": {}}, "started": True}),
    ]
    server.pods.append(pod("nowhere", ready=False))
    server.pods[-1]["status"] = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
        ],
    }
    server.logs = {
        ("fails/models", True): ["2026-01-01T00:00:01Z 403 at the store"],
        ("fetches/models", False): ["2026-01-01T00:00:02Z 3 of 20 GB"],
        ("gated/gate", True): ["2026-01-01T00:00:03Z no such settings"],
        ("lost", False): ["2026-01-01T00:00:04Z scores"],
        ("lost/model-data", True): ["2026-01-01T00:00:05Z no right to write"],
    }
    code, out, err = await run(tmp_path, "logs", "churn")
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()[:3]) == [
        "blue/nowhere [scoring] has no log: 0/3 nodes: no GPU",
        "blue/pulls [models] has no log: ImagePullBackOff: no such image",
        "blue/waits [scoring] has no log: PodInitializing",
    ]
    assert out.splitlines()[3:] == [
        "blue/fails [models] 403 at the store",
        "blue/fetches [models] 3 of 20 GB",
        "blue/gated [gate] no such settings",
        "blue/lost scores",
        "blue/lost [model-data] no right to write",
    ]


async def test_logs_are_followed_also_of_replicas_that_come(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints, server.pods = [endpoint("churn")], [pod("churn-1")]
    server.logs = {("churn-1", False): ["2026-01-01T00:00:01Z first"], ("churn-2", False): ["2026-01-01T00:00:02Z new"]}
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "--kubeconfig", str(tmp_path / "kubeconfig"), "logs", "churn", "--follow"),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"blue/churn-1 first\n"
            server.pods.append(pod("churn-2"))
            assert await process.stdout.readline() == b"blue/churn-2 new\n"
    finally:
        process.terminate()
        await process.wait()
    assert sorted(server.asked) == ["churn-1 true", "churn-2 true"]


async def test_waits_and_says_what_failed(server: ApiServer, tmp_path: Path) -> None:
    failed = endpoint("bad", state="Failed", message="blue: no such model file", conditions=[])
    later = endpoint("later", state="Transitioning", conditions=[])
    server.endpoints = [endpoint("churn"), failed, later]
    found = await asyncio.gather(
        run(tmp_path, "wait", "churn"),
        run(tmp_path, "wait", "bad"),
        run(tmp_path, "wait", "later", "--timeout", "0.2"),
        run(tmp_path, "score", "churn", "--data", "/dev/null"),
        run(tmp_path, "keys", "churn"),
        run(tmp_path, "--cluster", "local", "status"),
        run(tmp_path, "status", "none"),
    )
    assert [code for code, _, _ in found] == [0, 1, 1, 2, 2, 2, 3]
    said = ["", "endpoint bad failed: blue: no such model file", "endpoint later is not served whole after 0.2 s"]
    said += ["keys never reach the cluster", "this command is for a local cluster", "give options of one kind"]
    said += ["no endpoint none (endpoints: bad, churn, later)"]
    for (_, _, err), text in zip(found, said, strict=True):
        assert text in err


async def test_what_is_said_of_an_older_generation_is_not_believed(server: ApiServer, tmp_path: Path) -> None:
    """Declared anew after it failed, and not looked at yet: neither what failed nor what was well is of that."""
    before: Any = {
        "observedGeneration": 3,
        "conditions": [{"type": "Ready", "status": "False", "observedGeneration": 3}],
    }
    said = {"state": "Failed", "message": "no such model file"}
    server.endpoints = [endpoint("mended", version=said, **said, **before), endpoint("well", **before)]
    waits = asyncio.create_task(run(tmp_path, "wait", "mended", "--timeout", "60"))
    shown, told, table = await asyncio.gather(
        run(tmp_path, "status"),
        run(tmp_path, "--json", "status", "well"),
        run(tmp_path, "--json", "top", "--count", "1"),
    )
    assert [line.split()[2] for line in shown[1].splitlines()[2:4]] == ["Transitioning", "Transitioning"]
    assert "no such model file" not in shown[1]
    assert "mended: the autoscaler has not looked at generation 4 yet" in shown[1]
    well = json.loads(told[1])
    assert [well["state"], well["versions"][0]["state"], well["versions"][0]["busy"]] == [*2 * ["Transitioning"], 3]
    assert {one["state"] for one in json.loads(table[1])["endpoints"]} == {"Transitioning"}
    assert not waits.done()
    server.endpoints[0] = endpoint("mended")
    assert (await waits)[0] == 0


async def test_who_logs_in_by_a_program(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints = [endpoint("churn")]
    good, missing, unknown, none = await asyncio.gather(
        run(tmp_path, "--context", "program", "status"),
        run(tmp_path, "--context", "missing", "status"),
        run(tmp_path, "--context", "other", "status"),
        run(tmp_path / "nowhere", "status"),
    )
    assert good[0] == 0, good
    assert missing[0] == 2
    assert "logs in by 'no-such-login', which is not installed: get it" in missing[2]
    assert "has no context 'other' (there are: token, program, missing)" in unknown[2]
    assert (none[0], "no kubeconfig: " in none[2]) == (2, True)
    server.known = False
    code, _, err = await run(tmp_path, "status")
    assert (code, "the inference runtime is not on this cluster" in err) == (4, True)
