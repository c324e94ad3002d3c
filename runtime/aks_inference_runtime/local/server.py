"""The supervisor's HTTP API on its Unix socket, for the owner of the process only."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.problems import HTTP_STATUS, to_problem
from aks_inference_runtime.api.status import EndpointView, ModelRecord
from aks_inference_runtime.api.supervisor import (
    API_PREFIX,
    EndpointSubmission,
    ModelRegistration,
    Observing,
    SupervisorInfo,
)
from aks_inference_runtime.local.logs import LogPaths, follow
from aks_inference_runtime.local.supervisor import Supervisor

MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""Of an object; files never travel here, only their paths."""
_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_B = TypeVar("_B", bound=BaseModel)
_VIEWS = TypeAdapter(list[EndpointView])
_MODELS = TypeAdapter(list[ModelRecord])


class Api:
    """Routes to the supervisor's methods."""

    def __init__(self, supervisor: Supervisor, info: SupervisorInfo) -> None:
        self._supervisor = supervisor
        self._info = info
        self.asked_to_end = asyncio.Event()
        self.remove: bool | None = None
        """Set by /shutdown: whether the files go too. None: only the supervisor ends."""
        self.ended = asyncio.Event()
        """Set by who carries the shutdown out; the answer goes out then."""
        self.problem: AksInferenceError | None = None

    def application(self) -> web.Application:
        """The routes, version 1."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[_errors, _owner_only])
        p = API_PREFIX
        app.add_routes(
            [
                web.get(f"{p}/info", self._get_info),
                web.put(f"{p}/observing", self._put_observing),
                web.get(f"{p}/models", self._get_models),
                web.post(f"{p}/models", self._post_model),
                web.get(f"{p}/models/{{name}}/{{version:\\d+}}", self._get_model),
                web.delete(f"{p}/models/{{name}}/{{version:\\d+}}", self._delete_model),
                web.get(f"{p}/endpoints", self._get_endpoints),
                web.put(f"{p}/endpoints/{{name}}", self._put_endpoint),
                web.get(f"{p}/endpoints/{{name}}", self._get_endpoint),
                web.delete(f"{p}/endpoints/{{name}}", self._delete_endpoint),
                web.get(f"{p}/endpoints/{{name}}/keys", self._get_keys),
                web.get(f"{p}/endpoints/{{name}}/logs", self._get_logs),
                web.post(f"{p}/shutdown", self._post_shutdown),
            ]
        )
        return app

    async def _get_info(self, _: web.Request) -> web.Response:
        return _json(self._info)

    async def _put_observing(self, request: web.Request) -> web.Response:
        await _unbroken(self._supervisor.observer.observe(await _body(request, Observing)))
        return web.Response(body=b"null", content_type="application/json")

    async def _get_models(self, _: web.Request) -> web.Response:
        models = await asyncio.to_thread(self._supervisor.models.all)
        return web.Response(body=_MODELS.dump_json(models, by_alias=True), content_type="application/json")

    async def _post_model(self, request: web.Request) -> web.Response:
        return _json(await _unbroken(self._supervisor.put_model(await _body(request, ModelRegistration))))

    async def _get_model(self, request: web.Request) -> web.Response:
        name, version = _model(request)
        return _json(await asyncio.to_thread(self._supervisor.models.get, name, version))

    async def _delete_model(self, request: web.Request) -> web.Response:
        await _unbroken(self._supervisor.delete_model(*_model(request)))
        return web.Response(body=b"null", content_type="application/json")

    async def _get_endpoints(self, _: web.Request) -> web.Response:
        views = self._supervisor.views()
        return web.Response(body=_VIEWS.dump_json(views, by_alias=True), content_type="application/json")

    async def _put_endpoint(self, request: web.Request) -> web.Response:
        submission = await _body(request, EndpointSubmission)
        if submission.endpoint.metadata.name != request.match_info["name"]:
            raise InvalidInput("metadata.name is not the name in the address")
        return _json(await _unbroken(self._supervisor.put_endpoint(submission)))

    async def _get_endpoint(self, request: web.Request) -> web.Response:
        return _json(self._supervisor.view(self._supervisor.endpoint(request.match_info["name"])))

    async def _delete_endpoint(self, request: web.Request) -> web.Response:
        await _unbroken(self._supervisor.delete_endpoint(request.match_info["name"]))
        return web.Response(body=b"null", content_type="application/json")

    async def _get_keys(self, request: web.Request) -> web.Response:
        return _json(self._supervisor.keys(request.match_info["name"]))

    async def _get_logs(self, request: web.Request) -> web.StreamResponse:
        name = self._supervisor.endpoint(request.match_info["name"]).name
        version, replica = request.query.get("version"), request.query.get("replica")
        if any("/" in part or "*" in part for part in (version or "", replica or "")):
            raise NotFound("no such version or replica")
        paths = LogPaths(self._supervisor.paths.logs, name, version, replica)
        endless = request.query.get("follow") == "1"
        if not paths() and (version or replica) and not endless:
            raise NotFound(f"endpoint {name} has no log of version {version or 'any'}, replica {replica or 'any'}")
        lines = request.query.get("tail", "100")
        answer = web.StreamResponse(headers={"content-type": "text/plain; charset=utf-8"})
        await answer.prepare(request)
        labelled = request.query.get("labelled") == "1"
        await _send(answer, follow(paths, int(lines) if lines.isdecimal() else 100, endless, labelled))
        return answer

    async def _post_shutdown(self, request: web.Request) -> web.Response:
        try:
            remove = bool((await request.json())["remove"])
        except (ValueError, KeyError, TypeError):
            raise InvalidInput('give {"remove": true} or {"remove": false}') from None
        self.remove = remove or bool(self.remove)
        self.asked_to_end.set()
        await self.ended.wait()
        if self.problem is not None:
            raise self.problem
        return web.Response(body=b"null", content_type="application/json")


def _json(value: BaseModel) -> web.Response:
    return web.Response(
        body=value.model_dump_json(by_alias=True, exclude_none=True).encode(), content_type="application/json"
    )


def _model(request: web.Request) -> tuple[str, int]:
    return request.match_info["name"], int(request.match_info["version"])


async def _body(request: web.Request, kind: type[_B]) -> _B:
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_input=False)]
        raise InvalidInput("\n".join(lines)) from None


_T = TypeVar("_T")


async def _unbroken(change: Awaitable[_T]) -> _T:
    """A change is carried to its end also when who asked for it leaves."""
    return await asyncio.shield(asyncio.ensure_future(change))


async def _send(answer: web.StreamResponse, lines: AsyncIterator[str]) -> None:
    # Who follows a log leaves when it likes.
    with contextlib.suppress(ConnectionError):
        async for line in lines:
            await answer.write(line.encode() + b"\n")
        await answer.write_eof()


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AksInferenceError as error:
        status = next((code for kind, code in HTTP_STATUS.items() if isinstance(error, kind)), 500)
        return web.json_response(to_problem(error).to_wire(), status=status)
    except web.HTTPException as error:
        known = NotFound(f"{request.method} {request.path}: {error.reason}")
        return web.json_response(to_problem(known).to_wire(), status=error.status)
    except Exception as error:  # noqa: BLE001 - the caller gets a text, the log the traceback
        _log.exception("%s %s failed", request.method, request.path)
        text = f"{request.method} {request.path}: {type(error).__name__}: {error}"
        return web.json_response(to_problem(OperationFailed(text)).to_wire(), status=500)


@web.middleware
async def _owner_only(request: web.Request, handler: _Handler) -> web.StreamResponse:
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is not None and hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        if user not in (os.getuid(), 0):
            return web.Response(status=403, text=json.dumps({"error": "NotFound", "message": "not your supervisor"}))
    return await handler(request)
