"""The API server: get, list, watch, create, patch, replace. JSON in, JSON out; errors are the package's own."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from aks_inference_runtime.api.errors import AksInferenceError, Conflict, NotFound, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.kubernetes.connection import Connection

REQUEST_SECONDS = 10.0
WATCH_SECONDS = 240
"""A watch ends by itself and is begun again: an API server that hangs is noticed."""
QUIET_SECONDS = WATCH_SECONDS + 15.0
DEAD_SECONDS = 15
"""A connection whose other end is not reached for so long is over: what a router knows is no older."""
PAGE = 500
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

Object = dict[str, Any]
Body = Object | Sequence[Object]
Page = tuple[list[Object], str]
"""Some objects of a collection, and the resource version to watch it from."""


class Expired(AksInferenceError):
    """The resource version is too old for a watch: list again."""


class Api:
    """One connection pool to one API server."""

    def __init__(self, session: aiohttp.ClientSession, connection: Connection) -> None:
        self._session = session
        self._connection = connection
        self._renewing = asyncio.Lock()

    async def get(self, path: str, **query: str) -> Object:
        """An object. Raises NotFound, OperationFailed, RuntimeUnavailable."""
        return await self._ask("GET", path, query)

    async def text(self, path: str, **query: str) -> str:
        """A text, as logs are. Raises as `get`."""
        async with self._request("GET", path, query, None, None) as answer:
            return await answer.text(errors="replace")

    async def lines(self, path: str, **query: str) -> AsyncGenerator[str, None]:
        """A text line by line, for as long as it goes on. Raises as `get`."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS)
        async with self._request("GET", path, query, None, None, limits) as answer:
            async for line in answer.content:
                yield line.decode(errors="replace").rstrip("\r\n")

    async def create(self, path: str, body: Object) -> Object:
        """Makes an object. Raises Conflict where it exists, and as `get`."""
        return await self._ask("POST", path, {}, body)

    async def replace(self, path: str, body: Object) -> Object:
        """Replaces an object. Raises Conflict when it has changed meanwhile, and as `get`."""
        return await self._ask("PUT", path, {}, body)

    async def patch(self, path: str, body: Object, kind: str = MERGE) -> Object:
        """Merges into an object (RFC 7386; `STRATEGIC`: lists by their keys). Raises as `get`."""
        return await self._ask("PATCH", path, {}, body, kind)

    async def edit(self, path: str, steps: Sequence[Object]) -> Object:
        """Changes an object step by step, all or none (RFC 6902). Raises OperationFailed where a test fails, and as
        `get`."""
        return await self._ask("PATCH", path, {}, steps, JSON_PATCH)

    async def apply(self, path: str, body: Object, manager: str) -> Object:
        """Server-side apply; what another manager set in our fields is taken over. Raises as `get`."""
        return await self._ask("PATCH", path, {"fieldManager": manager, "force": "true"}, body, APPLY)

    async def download(self, path: str, target: Path, headers: Mapping[str, str]) -> None:
        """What stands behind a proxy of the API server, into a file. Raises as `get`."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=WATCH_SECONDS)
        async with self._request("GET", path, {}, None, None, limits, headers) as answer:
            with target.open("wb") as file:
                async for piece in answer.content.iter_any():
                    await asyncio.to_thread(file.write, piece)

    async def call(self, path: str, headers: Mapping[str, str]) -> None:
        """A POST without a body to what stands behind a proxy of the API server. Raises as `get`."""
        async with self._request("POST", path, {}, None, None, None, headers):
            return

    async def delete(self, path: str, **query: str) -> None:
        """Removes an object; one that is not there is removed already. Raises OperationFailed, RuntimeUnavailable."""
        try:
            await self._ask("DELETE", path, query)
        except NotFound:
            return

    async def list(self, path: str, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """All objects of a collection and the resource version to watch from. Raises as `get`."""
        items: list[Object] = []
        version = ""
        async for page, version in self.pages(path, labels, fields):  # noqa: B007 - the last one
            items += page
        return items, version

    async def pages(self, path: str, labels: str = "", fields: str = "") -> AsyncGenerator[Page, None]:
        """The same a page at a time: of ten thousand pods most callers keep little. Raises as `get`."""
        query = {"limit": str(PAGE)} | _selectors(labels, fields)
        while True:
            page = await self._ask("GET", path, query)
            metadata = page.get("metadata") or {}
            yield page.get("items") or [], str(metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def watch(
        self, path: str, version: str, labels: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes since a resource version, until the watch ends. Raises Expired, and as `get`."""
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            **_selectors(labels, fields),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=QUIET_SECONDS)
        async with self._request("GET", path, query, None, None, limits) as answer:
            try:
                async for line in answer.content:
                    event = json.loads(line)
                    kind, found = str(event["type"]), event["object"]
                    if kind == "ERROR":
                        raise _error(int(found.get("code", 500)), str(found.get("message", "")), path)
                    yield kind, found
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise RuntimeUnavailable(f"the watch of {path} broke: {type(error).__name__}: {error}") from None

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: Body | None = None, content: str | None = None
    ) -> Object:
        async with self._request(method, path, query, body, content) as answer:
            try:
                found = await answer.json(content_type=None)
            except ValueError as error:
                raise RuntimeUnavailable(f"{path}: what answers is not the API server: {error}") from None
            return found if isinstance(found, dict) else {}

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body | None,
        content: str | None,
        limits: aiohttp.ClientTimeout | None = None,
        more: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        connection = self._connection
        try:
            for again in (False, True):
                headers = connection.headers() | {"content-type": content or "application/json", **(more or {})}
                async with self._session.request(
                    method,
                    connection.server + path,
                    params=query,
                    data=None if body is None else json.dumps(body),
                    headers=headers,
                    timeout=limits or aiohttp.ClientTimeout(REQUEST_SECONDS),
                    # Here, not the pool's: a connection with a former certificate is not used again.
                    ssl=connection.tls or True,
                    proxy=connection.proxy,
                    server_hostname=connection.server_name,
                ) as answer:
                    if answer.status < 400:
                        yield answer
                        return
                    if answer.status != 401 or connection.renew is None or again:
                        raise _error(answer.status, _message(await answer.text(errors="replace")), path)
                connection = await self._renewed(connection)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Not its representation: that shows a proxy's login.
            said = f"{type(error).__name__}: {error}"
            raise RuntimeUnavailable(f"the API server does not answer ({method} {path}): {said}") from None

    async def _renewed(self, refused: Connection) -> Connection:
        """Logged in anew, once for all that were refused meanwhile."""
        async with self._renewing:
            if self._connection is refused and refused.renew is not None:
                self._connection = await asyncio.to_thread(refused.renew)
        return self._connection


@asynccontextmanager
async def connected(connection: Connection, connections: int = 50) -> AsyncIterator[Api]:
    """A client until the block ends, with so many connections at most: further requests wait for one."""
    connector = aiohttp.TCPConnector(limit=connections, socket_factory=_probed)
    # An object with many managers can be long; a line of a watch is an object.
    async with aiohttp.ClientSession(connector=connector, read_bufsize=4 * 1024 * 1024) as session:
        yield Api(session, connection)
        await asyncio.sleep(0)


def _probed(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that finds out when its path is broken: nothing else is sent while a watch has no news."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {
        "TCP_KEEPIDLE": DEAD_SECONDS // 3,
        "TCP_KEEPINTVL": DEAD_SECONDS // 3,
        "TCP_KEEPCNT": 2,
        # Also where something was sent and is not acknowledged: probes are not sent then.
        "TCP_USER_TIMEOUT": DEAD_SECONDS * 1_000,
    }
    for name, value in wanted.items():
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        return text[:500]


def _error(status: int, message: str, path: str) -> AksInferenceError:
    text = f"{path}: {message}"
    match status:
        case 404:
            return NotFound(text)
        case 409:
            return Conflict(text)
        case 410:
            return Expired(text)
        case 429 | 500 | 502 | 503 | 504:
            return RuntimeUnavailable(text)
        case _:
            return OperationFailed(f"{text} (status {status})")
