"""ACR Tasks as a client of Azure's API sees them: sign-in, registries, signed addresses, runs and their logs.

The form of a request is that of the published interface (Microsoft.ContainerRegistry, 2019-06-01-preview); what stands
for an agent gets the unpacked context and builds, or fails, or waits.
"""

import asyncio
import secrets
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
REGISTRY = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/images/providers/Microsoft.ContainerRegistry/registries/teamimages"
)
SECRET = "the-secret"
TASKS_API = "2019-06-01-preview"
_SECRET_OBJECT = {"type": {"Opaque", "Vaultsecret"}, "value": str}
_CUSTOM = {"userName": _SECRET_OBJECT, "password": _SECRET_OBJECT, "identity": str}
FORM: Mapping[str, Any] = {
    "type": {"DockerBuildRequest"},
    "isArchiveEnabled": bool,
    "agentPoolName": str,
    "logTemplate": str,
    "imageNames": [str],
    "isPushEnabled": bool,
    "noCache": bool,
    "dockerFilePath": str,
    "target": str,
    "arguments": [{"name": str, "value": str, "isSecret": bool}],
    "timeout": range(300, 28_801),
    "platform": {"os": {"Linux", "Windows"}, "architecture": {"amd64", "x86", "386", "arm", "arm64"}, "variant": str},
    "agentConfiguration": {"cpu": int},
    "sourceLocation": str,
    "credentials": {
        "sourceRegistry": {"loginMode": {"None", "Default"}, "identity": str},
        "customRegistries": {"*": _CUSTOM},
    },
}
REQUIRED = ("type", "dockerFilePath", "platform")


@dataclass
class Run:
    """A run, as its agent sees it."""

    id: str
    request: Mapping[str, Any]
    status: str = "Queued"
    log: bytes = b""
    asked: list[str] = field(default_factory=list)
    """What was done with it: `cancel`."""

    def say(self, *lines: str) -> None:
        self.log += "".join(f"{line}\r\n" for line in lines).encode()


Agent = Callable[[Path, Run], Awaitable[None]]
"""Gets the context's folder; raises what is no success."""


class Failed(Exception):
    """A build that fails."""


class Tasks:
    """Serve `handle`; then set `url` to where it listens. `registries` are those that the subscription has."""

    def __init__(self, login_server: str, agent: Agent) -> None:
        self.url = ""
        self.agent = agent
        self.properties: dict[str, Any] = {
            "loginServer": login_server,
            "roleAssignmentMode": "LegacyRegistryPermissions",
        }
        self.runs: dict[str, Run] = {}
        self.sources: dict[str, bytes] = {}
        self.refuse: dict[str, tuple[int, str, str]] = {}
        """Last part of a path → status, code and message of the answer."""
        self.lose: dict[str, int] = {}
        """Last part of a path → so many answers are 503 first."""
        self.log_status = 0
        """Of the storage, where a log is asked for; 0: as it is."""
        self.seen: list[str] = []
        self._tokens: set[str] = set()
        self._signatures: dict[str, str] = {}
        self._work: list[asyncio.Task[None]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "ARM_RESOURCE_MANAGER_ENDPOINT": self.url,
            "ARM_AUTHORITY_HOST": self.url,
            "ARM_TENANT_ID": "tenant",
            "ARM_CLIENT_ID": "client",
            "ARM_CLIENT_SECRET": SECRET,
            "ARM_SUBSCRIPTION_ID": SUBSCRIPTION,
            "PATH": "",
        }

    def forget_tokens(self) -> None:
        """All tokens have ended."""
        self._tokens.clear()

    def forget_signatures(self) -> None:
        """All signed addresses have ended."""
        self._signatures.clear()

    async def end(self) -> None:
        """Ends what still runs."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.seen.append(f"{request.method} {path}")
        if path == "/tenant/oauth2/v2.0/token":
            return await self._token(request)
        if path.startswith("/storage/"):
            return await self._storage(request, path)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
            return _error(401, "AuthenticationFailed", "the access token has expired or is none")
        if not request.query.get("api-version"):
            return _error(
                400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required"
            )
        last = path.rpartition("/")[2]
        if self.lose.get(last, 0) > 0:
            self.lose[last] -= 1
            return _error(503, "ServiceUnavailable", "try again")
        if last in self.refuse:
            return _error(*self.refuse[last])
        return await self._arm(request, path, last)

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("client_secret") != SECRET:
            return web.json_response({"error": "invalid_client", "error_description": "wrong secret"}, status=401)
        token = secrets.token_hex(8)
        self._tokens.add(token)
        return web.json_response({"access_token": token})

    async def _arm(self, request: web.Request, path: str, last: str) -> web.Response:
        described = {"id": REGISTRY, "name": "teamimages", "properties": self.properties}
        group = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerRegistry/registries"
        if request.method == "GET" and path == group:
            # One a page, and another registry first.
            if "page" not in request.query:
                other = {"id": "/other", "properties": {"loginServer": "other.azurecr.io"}}
                following = f"{self.url}{group}?api-version={request.query['api-version']}&page=2"
                return web.json_response({"value": [other], "nextLink": following})
            return web.json_response({"value": [described]})
        if request.method == "GET" and path.lower() == REGISTRY.lower():
            return web.json_response(described)
        if not path.lower().startswith(f"{REGISTRY.lower()}/") or request.query["api-version"] != TASKS_API:
            return _error(404, "ResourceNotFound", path)
        if request.method == "POST" and last == "listBuildSourceUploadUrl":
            place = f"source/{secrets.token_hex(4)}.tar.gz"
            return web.json_response({"relativePath": place, "uploadUrl": self._signed(place)})
        if request.method == "POST" and last == "scheduleRun":
            return await self._schedule(await request.json())
        return self._of_run(request, path.split("/"))

    def _of_run(self, request: web.Request, parts: list[str]) -> web.Response:
        action = parts[-1] if request.method == "POST" else ""
        run = self.runs.get(parts[-2] if action else parts[-1])
        if run is None:
            return _error(404, "RunNotFound", parts[-1])
        if action == "listLogSasUrl":
            return web.json_response({"logLink": self._signed(f"logs/{run.id}")})
        if action == "cancel":
            run.asked.append("cancel")
            for task in self._work:
                if task.get_name() == run.id:
                    task.cancel()
            return web.Response(status=200)
        return web.json_response(_shown(run))

    async def _schedule(self, body: Mapping[str, Any]) -> web.Response:
        problems = list(form_problems(body, FORM, "")) + [
            f"{name} is required" for name in REQUIRED if name not in body
        ]
        if str(body.get("sourceLocation")) not in self.sources:
            problems.append("sourceLocation: nothing was uploaded there")
        if any(":" not in name or name.startswith(str(self.properties["loginServer"])) for name in body["imageNames"]):
            problems.append("imageNames: repository:tag")
        if problems:
            return _error(400, "InvalidRequest", "; ".join(problems))
        run = Run(f"cb{len(self.runs) + 1}", body)
        self.runs[run.id] = run
        self._work.append(asyncio.create_task(self._execute(run), name=run.id))
        return web.json_response(_shown(run))

    async def _execute(self, run: Run) -> None:
        try:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                await asyncio.to_thread(_unpack, self.sources[run.request["sourceLocation"]], folder)
                run.status = "Running"
                run.say("Obtained source code and scanning for dependencies...")
                if not (folder / run.request["dockerFilePath"]).is_file():
                    raise Failed(f"unable to find {run.request['dockerFilePath']}")
                await self.agent(folder, run)
                run.say(f"Run ID: {run.id} was successful after 1s")
                run.status = "Succeeded"
        except asyncio.CancelledError:
            run.status = "Canceled"
        except Failed as error:
            run.say(f"failed to run step ID: build: {error}")
            run.status = "Failed"

    def _signed(self, place: str) -> str:
        signature = secrets.token_hex(12)
        self._signatures[signature] = place
        return f"{self.url}/storage/{place}?sig={signature}&sp=rw"

    async def _storage(self, request: web.Request, path: str) -> web.StreamResponse:
        place = path.removeprefix("/storage/")
        if "Authorization" in request.headers or self._signatures.get(request.query.get("sig", "")) != place:
            return web.Response(status=403, headers={"x-ms-error-code": "AuthenticationFailed"})
        if request.method == "PUT":
            if request.headers.get("x-ms-blob-type") != "BlockBlob" or request.content_length is None:
                return web.Response(status=400, headers={"x-ms-error-code": "MissingRequiredHeader"})
            self.sources[place] = await request.read()
            return web.Response(status=201)
        run = self.runs[place.rpartition("/")[2]]
        if self.log_status or run.status == "Queued":
            return web.Response(status=self.log_status or 404)
        return _ranged(request, run.log)


def form_problems(value: Any, form: Any, path: str) -> Iterator[str]:
    """What is not as the interface says."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            yield f"{path} is no object"
            return
        for name, inner in value.items():
            if name not in form and "*" not in form:
                yield f"{path}.{name} is not known"
            else:
                yield from form_problems(inner, form.get(name, form.get("*")), f"{path}.{name}")
    elif isinstance(form, list):
        for one in value if isinstance(value, list) else [None]:
            yield from form_problems(one, form[0], path)
    elif isinstance(form, set | range):
        if value not in form:
            yield f"{path}: {value!r}"
    elif not isinstance(value, form) or (form is int and isinstance(value, bool)):
        yield f"{path} is no {form.__name__}"


def _ranged(request: web.Request, content: bytes) -> web.Response:
    first, _, last = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
    if int(first) >= len(content):
        return web.Response(status=416, headers={"x-ms-error-code": "InvalidRange"})
    return web.Response(status=206, body=content[int(first) : int(last) + 1 if last else None])


def _unpack(content: bytes, folder: Path) -> None:
    (folder / "source.tar.gz").write_bytes(content)
    with tarfile.open(folder / "source.tar.gz") as tar:
        tar.extractall(folder, filter="data")


def _shown(run: Run) -> dict[str, Any]:
    return {"name": run.id, "properties": {"runId": run.id, "status": run.status}}


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
