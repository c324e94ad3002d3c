"""The supervisor of this machine, asked over its Unix socket."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import TypeAdapter, ValidationError

from aks_inference_runtime.api.errors import InvalidInput, OperationFailed, RuntimeHung, RuntimeUnavailable
from aks_inference_runtime.api.problems import raise_problem
from aks_inference_runtime.api.process import is_running
from aks_inference_runtime.api.status import EndpointStatus, EndpointView, ModelRecord, ServiceState
from aks_inference_runtime.api.supervisor import (
    API_PREFIX,
    RECORD_VERSION,
    EndpointKeys,
    EndpointSubmission,
    LocalSettings,
    ModelRegistration,
    Observing,
    Problem,
    SupervisorInfo,
    SupervisorRecord,
)

__all__ = [
    "EndpointKeys",
    "EndpointSubmission",
    "LocalSettings",
    "ModelRegistration",
    "SupervisorClient",
    "SupervisorInfo",
    "destroy",
    "launch",
    "read_record",
]

REQUEST_TIMEOUT_S = 10.0
"""Of requests that are answered at once. What takes longer (storing a model, draining) has its own, and the supervisor
is asked meanwhile whether it still answers."""
STORE_TIMEOUT_S = 3_600.0
SIGN_OF_LIFE_S = 5.0
"""Of the call that asks for nothing but an answer, and between two of them."""
RETURN_S = 20.0
"""A supervisor that died is started again by its keeper within seconds."""
SHUTDOWN_TIMEOUT_S = 120.0
POLL_S = 0.1
_T = TypeVar("_T")
_NONE: TypeAdapter[None] = TypeAdapter(None)


def read_record(directory: Path, *, missing_ok: bool = False) -> SupervisorRecord | None:
    """`supervisor.json` of a state directory. Raises RuntimeUnavailable when it is missing, InvalidInput when bad."""
    path = directory / "supervisor.json"
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        if missing_ok:
            return None
        raise RuntimeUnavailable(f"no supervisor in {directory}; `up` of the stack starts it") from None
    except OSError as error:
        raise RuntimeUnavailable(f"{path} cannot be read: {error.strerror}") from None
    refuse_newer(path, text)
    try:
        return SupervisorRecord.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput(
            f"{path} is damaged ({error.errors()[0]['msg']}); nothing was changed: put it back from a backup or "
            f"remove the folder by hand"
        ) from None


def refuse_newer(path: Path, text: str) -> None:
    """Raises InvalidInput when a file of the state directory was written by a newer version."""
    with contextlib.suppress(json.JSONDecodeError, AttributeError, TypeError):
        if (found := int(json.loads(text).get("recordVersion", RECORD_VERSION))) > RECORD_VERSION:
            raise InvalidInput(
                f"{path} was written by a newer version (format {found}, this one reads {RECORD_VERSION}); nothing "
                f"was changed: use that version"
            )


async def launch(settings: LocalSettings, timeout_s: float = 30) -> SupervisorInfo:
    """Starts the supervisor or finds the running one; see `aks_inference_runtime.api.launch.launch`."""
    from aks_inference_runtime.api.launch import launch as start

    return await start(settings, timeout_s)


async def destroy(state_directory: Path | str) -> None:
    """Ends a local cluster and removes all of it, also when its supervisor was killed or hangs.

    Nothing there: nothing to do. Raises OperationFailed when not all could be ended.
    """
    directory = Path(state_directory)
    record = read_record(directory, missing_ok=True)
    if record is None:
        return
    try:
        await SupervisorClient(directory).shutdown(remove=True)
    except RuntimeUnavailable:
        # Not by another supervisor: it would need the router's port, and somebody else may have that by now.
        from aks_inference_runtime.api.launch import remove_remains

        await remove_remains(directory)


class SupervisorClient:
    """One call is one HTTP request; raises the errors of api.errors."""

    def __init__(self, state_directory: Path | str) -> None:
        self._directory = Path(state_directory)

    async def info(self) -> SupervisorInfo:
        """Who answers. Raises RuntimeUnavailable when nobody does."""
        return await self._ask("GET", "/info", TypeAdapter(SupervisorInfo), timeout_s=SIGN_OF_LIFE_S)

    async def put_observing(self, wanted: Observing) -> None:
        """Who is told what goes on, from now on. Raises Conflict for a port that somebody has."""
        await self._ask("PUT", "/observing", _NONE, wanted.to_wire())

    async def put_model(self, m: ModelRegistration) -> ModelRecord:
        """Stores files. The same name, content, framework and properties: the same version; else the next integer."""
        return await self._ask_long("POST", "/models", TypeAdapter(ModelRecord), m.to_wire())

    async def models(self, timeout_s: float = REQUEST_TIMEOUT_S) -> list[ModelRecord]:
        """All versions of all models, by name and version."""
        return await self._ask("GET", "/models", TypeAdapter(list[ModelRecord]), timeout_s=timeout_s)

    async def get_model(self, name: str, version: int) -> ModelRecord:
        """Raises NotFound."""
        return await self._ask("GET", f"/models/{quote(name)}/{version}", TypeAdapter(ModelRecord))

    async def delete_model(self, name: str, version: int) -> None:
        """Raises NotFound, or Conflict naming the endpoints that use it."""
        await self._ask("DELETE", f"/models/{quote(name)}/{version}", _NONE)

    async def put_endpoint(self, s: EndpointSubmission) -> EndpointStatus:
        """Declares an endpoint; the generation grows only when something changed. Does not wait for it to serve.

        Raises InvalidInput or NotFound for what can be known at once (a model that is not stored, a port in use).
        """
        name = quote(s.endpoint.metadata.name)
        return await self._ask_long("PUT", f"/endpoints/{name}", TypeAdapter(EndpointStatus), s.to_wire())

    async def get_endpoint(self, name: str) -> EndpointView:
        """What is declared and how it is. Raises NotFound."""
        return await self._ask("GET", f"/endpoints/{quote(name)}", TypeAdapter(EndpointView))

    async def endpoints(self) -> list[EndpointView]:
        """All endpoints, by name."""
        return await self._ask("GET", "/endpoints", TypeAdapter(list[EndpointView]))

    async def delete_endpoint(self, name: str) -> None:
        """Takes it off the router, lets what is under way finish, stops its replicas. Raises NotFound."""
        await self._ask_long("DELETE", f"/endpoints/{quote(name)}", _NONE)

    async def keys(self, name: str) -> EndpointKeys:
        """Both keys. Raises NotFound, also when the endpoint asks for none."""
        return await self._ask("GET", f"/endpoints/{quote(name)}/keys", TypeAdapter(EndpointKeys))

    async def wait_endpoint(
        self,
        name: str,
        generation: int,
        timeout_s: float,
        progress: Callable[[EndpointStatus], None] | None = None,
    ) -> EndpointStatus:
        """Waits until a generation is served whole.

        Args:
            name: Required. The endpoint.
            generation: Required. From put_endpoint.
            timeout_s: Required. Seconds.
            progress: Optional. Called with each status that differs from the one before. Default None.

        Raises:
            OperationFailed: it failed (with the tail of the log), or the time is over (with the last state).
            NotFound: somebody deleted it meanwhile.
            RuntimeUnavailable: the supervisor hangs, or is gone and does not come back.
        """
        deadline = time.monotonic() + timeout_s
        last: EndpointStatus | None = None
        while True:
            status = await self._status(name)
            if progress is not None and _told(status) != _told(last):
                progress(status)
            last = status
            if status.observed_generation >= generation:
                return status
            if status.state is ServiceState.FAILED:
                raise OperationFailed(f"endpoint {name} failed\n{why(status)}")
            if time.monotonic() >= deadline:
                raise OperationFailed(
                    f"endpoint {name} is {status.state} after {timeout_s:g} s and goes on by itself\n{why(status)}"
                )
            await asyncio.sleep(POLL_S)

    async def logs(
        self,
        name: str,
        version: str | None = None,
        replica: str | None = None,
        tail: int = 100,
        follow: bool = False,
        labelled: bool = False,
    ) -> AsyncIterator[str]:
        """Lines of the replicas' logs, `<version>/<replica> <text>` where there are several, or always if `labelled`.

        Raises NotFound.
        """
        query = {"tail": str(tail), "follow": "1" if follow else "0", "labelled": "1" if labelled else "0"}
        query |= {"version": version} if version else {}
        query |= {"replica": replica} if replica else {}
        async with self._session() as session:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    answer = await session.get(
                        self._url(f"/endpoints/{quote(name)}/logs"),
                        params=query,
                        timeout=aiohttp.ClientTimeout(total=None),
                    )
                async with answer:
                    if answer.status >= 400:
                        raise_problem(_problem(await answer.read()))
                    async for line in _lines(answer.content, self.info):
                        yield line
            except (aiohttp.ClientError, TimeoutError) as error:
                raise self._unavailable(error, REQUEST_TIMEOUT_S) from None

    async def shutdown(self, remove: bool) -> None:
        """Stops everything that it started; with `remove` also removes the state directory.

        Raises RuntimeUnavailable when it does not run; `destroy` also ends what a killed one left.
        """
        record = read_record(self._directory)
        await self._ask_long("POST", "/shutdown", _NONE, {"remove": remove}, timeout_s=SHUTDOWN_TIMEOUT_S)
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while record is not None and is_running(record.pid, record.process_mark):
            if time.monotonic() >= deadline:
                raise OperationFailed(f"the supervisor (pid {record.pid}) said that it ends and did not")
            await asyncio.sleep(POLL_S / 4)

    async def _ask(
        self,
        method: str,
        path: str,
        answer: TypeAdapter[_T],
        body: Mapping[str, object] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> _T:
        async with self._session() as session:
            try:
                async with session.request(
                    method, self._url(path), json=body, timeout=aiohttp.ClientTimeout(total=timeout_s)
                ) as response:
                    content = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unavailable(error, timeout_s) from None
        if response.status >= 400:
            raise_problem(_problem(content))
        return answer.validate_json(content or b"null")

    async def _ask_long(
        self,
        method: str,
        path: str,
        answer: TypeAdapter[_T],
        body: Mapping[str, object] | None = None,
        timeout_s: float = STORE_TIMEOUT_S,
    ) -> _T:
        """For what takes its time: as long as the supervisor answers other calls meanwhile."""
        work = asyncio.ensure_future(self._ask(method, path, answer, body, timeout_s))
        try:
            while not (await asyncio.wait({work}, timeout=SIGN_OF_LIFE_S))[0]:
                try:
                    await self.info()
                except RuntimeHung:
                    raise
                except RuntimeUnavailable:
                    continue  # it ends: the work tells why
            return await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _status(self, name: str) -> EndpointStatus:
        """The status of an endpoint, from the next supervisor where this one dies."""
        deadline = time.monotonic() + RETURN_S
        while True:
            try:
                return (await self.get_endpoint(name)).status
            except RuntimeHung:
                raise
            except RuntimeUnavailable:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(POLL_S)

    def _session(self) -> aiohttp.ClientSession:
        record = read_record(self._directory)
        assert record is not None  # noqa: S101 - only missing_ok gives None
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(record.socket)))

    @staticmethod
    def _url(path: str) -> str:
        return f"http://supervisor{API_PREFIX}{path}"

    def _unavailable(self, error: BaseException, timeout_s: float) -> RuntimeUnavailable:
        record = read_record(self._directory)
        assert record is not None  # noqa: S101 - only missing_ok gives None
        if isinstance(error, TimeoutError) and is_running(record.pid, record.process_mark):
            return RuntimeHung(
                f"the supervisor in {self._directory} (pid {record.pid}) runs, but did not answer within "
                f"{timeout_s:g} s; what it started goes on serving. Is it stopped (`kill -CONT {record.pid}`)? Its "
                f"log: {self._directory / 'supervisor.log'}. To replace it: `kill -9 {record.pid}`; another one starts "
                f"within seconds and takes over (if not: `aks-inference start`, or the next `up` of the stack)"
            )
        return RuntimeUnavailable(
            f"the supervisor in {self._directory} does not answer ({cause_text(error)}); "
            f"one that died starts again within seconds; if it does not, see {self._directory / 'supervisor.log'}, and "
            f"`aks-inference start` or the next `up` of the stack starts it"
        )


def cause_text(error: BaseException) -> str:
    """Why something cannot be reached, without how the HTTP library names its sockets."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


async def _lines(stream: aiohttp.StreamReader, still_there: Callable[[], Awaitable[object]]) -> AsyncIterator[str]:
    """The lines of a stream; in a long silence its sender is asked for a sign of life, which raises without one."""
    rest = b""
    while True:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                chunk = await stream.readany()
        except TimeoutError:
            await still_there()
            continue
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _problem(content: bytes) -> Problem:
    try:
        return Problem.model_validate_json(content)
    except ValidationError:
        return Problem(error="OperationFailed", message=content.decode(errors="replace")[:2_000] or "no reason given")


def _told(status: EndpointStatus | None) -> object:
    """What of a status a person would notice as changed."""
    if status is None:
        return None
    return (
        status.state,
        status.message,
        status.observed_generation,
        [(v.name, v.state, v.message, v.replicas_desired, v.replicas_ready) for v in status.versions],
    )


def why(status: EndpointStatus) -> str:
    """The messages of an endpoint and its versions, one a line."""
    parts = [f"{status.state}: {status.message}"] if status.message else [str(status.state)]
    parts += [f"version {v.name}: {v.state}: {v.message}" for v in status.versions if v.message]
    return "\n".join(parts)
