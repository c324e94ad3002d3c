"""As much of an API server as `aks-inference status | logs | top | wait` ask for, and those commands as processes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from aiohttp.typedefs import Handler

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


def pod(
    name: str,
    endpoint: str = "churn",
    *,
    ready: bool = True,
    restarts: int = 0,
    waiting: str = "",
    namespace: str = "default",
) -> Any:
    """One of a replica."""
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
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
        self.token = TOKEN
        self.unread: dict[str, int] = {}
        """Pod → status of the answer instead of its log."""
        self.followed = 0
        self.cut: dict[str, asyncio.Event] = {}
        """When the next stream of a pod's log breaks off."""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.known_users])
        base = "/apis/aks-inference.dev/v1"
        for path in (f"{base}/scoringendpoints", f"{base}/namespaces/{{namespace}}/scoringendpoints"):
            app.router.add_get(path, self.listed)
        for path in ("/api/v1/pods", "/api/v1/namespaces/{namespace}/pods"):
            app.router.add_get(path, self.listed_pods)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", self.log)
        return app

    @web.middleware
    async def known_users(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        return await handler(request)

    async def listed(self, request: web.Request) -> web.Response:
        if not self.known:
            return web.json_response({"message": "the server could not find the requested resource"}, status=404)
        space = request.match_info.get("namespace")
        self.asked.append(f"endpoints of {space}")
        found = [e for e in self.endpoints if space in (None, e["metadata"]["namespace"])]
        return web.json_response({"items": found, "metadata": {}})

    async def listed_pods(self, request: web.Request) -> web.Response:
        label, _, value = request.query["labelSelector"].partition("=")
        space = request.match_info.get("namespace")
        self.asked.append(f"pods of {space}")
        found = [p for p in self.pods if space in (None, p["metadata"]["namespace"])]
        found = [p for p in found if p["metadata"]["labels"][label] == value]
        return web.json_response({"items": found, "metadata": {}})

    async def log(self, request: web.Request) -> web.StreamResponse:
        name, query = request.match_info["name"], request.query
        self.asked.append(f"{name} {query.get('previous', '')}{query.get('follow', '')}")
        assert query["timestamps"] == "true"
        if name in self.unread:
            return web.json_response({"message": "no route to the node"}, status=self.unread[name])
        of = name if query["container"] == "scoring" else f"{name}/{query['container']}"
        lines = self.logs.get((of, query.get("previous") == "true"), [])
        answer = web.StreamResponse()
        await answer.prepare(request)
        last = lines[-int(query["tailLines"]) :] if "tailLines" in query else lines
        await answer.write("".join(f"{line}\n" for line in last).encode())
        if query.get("follow"):
            self.followed += 1
            if name in self.cut:
                await self.cut.pop(name).wait()
                assert request.transport is not None
                request.transport.abort()
                return answer
            await asyncio.Event().wait()
        return answer


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[ApiServer]:
    """A server, and a kubeconfig that names it."""
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
            {"name": "program", "user": {"exec": login(folder)}},
            {"name": "missing", "user": {"exec": {"command": "no-such-login", "installHint": "get it\n"}}},
        ],
        "contexts": [
            *({"name": n, "context": {"cluster": "c", "user": n}} for n in ("token", "program", "missing")),
            {"name": "team-b", "context": {"cluster": "c", "user": "token", "namespace": "team-b"}},
        ],
        "current-context": "token",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    try:
        yield made
    finally:
        await runner.cleanup()


def login(folder: Path) -> dict[str, Any]:
    """A program that logs in, as kubelogin does: with the token that stands in the file `token`, told in `logins`."""
    (folder / "token").write_text(TOKEN)
    program = folder / "login"
    program.write_text(
        f"""#!/bin/sh
test "$WHO" = me && test -n "$KUBERNETES_EXEC_INFO" || exit 1
echo in >> {folder}/logins
echo '{{"kind": "ExecCredential", "status": {{"token": "'"$(cat {folder}/token)"'"}}}}'
"""
    )
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
