"""Calls to one API server: what a kind is called there, apply, read, delete."""

import asyncio
import json
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from embedded_engine.kubernetes.credentials import Credentials
from embedded_engine.kubernetes.errors import KubeconfigError, RefusedError, UnknownKindError, UnreachableError
from embedded_engine.kubernetes.kubeconfig import Connection

Object = dict[str, Any]

_CALL_LIMIT_S = 60.0
_TRIES = 4
_FIRST_PAUSE_S = 0.25
_BUSY = frozenset((429, 500, 502, 503, 504))
"""An API server that is starting, changing its leader or shedding load; every call here may be repeated."""
_UNAUTHORIZED = 401


@dataclass(frozen=True)
class Kind:
    """A kind as the API server has it."""

    api_version: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """Of the collection, or of one object."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        inside = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return f"{root}{inside}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


class Client:
    """One API server. `close` when done."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._credentials = Credentials(connection)
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._kinds: dict[tuple[str, str], Kind] = {}

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def kind(self, api_version: str, kind: str) -> Kind:
        """Raises UnknownKindError; a kind that was not there may be there the next time."""
        found = self._kinds.get((api_version, kind))
        if found is not None:
            return found
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            listed = await self.call("GET", root)
        except RefusedError as error:
            if error.status != 404:
                raise
            listed = {}
        for entry in listed.get("resources") or ():
            if "/" not in entry["name"]:
                one = Kind(api_version, entry["name"], entry["namespaced"])
                self._kinds[api_version, entry["kind"]] = one
        if (api_version, kind) not in self._kinds:
            raise UnknownKindError(
                f"{self.connection.server} has no kind {kind} in {api_version}; "
                "is its CustomResourceDefinition applied, and this resource declared to depend on it?"
            )
        return self._kinds[api_version, kind]

    async def versions(self, group: str) -> Sequence[str] | None:
        """Of a group, none where it is not there; None where it is no API server that says so."""
        found = await self.read(f"/apis/{group}") if group else None
        if found is None:
            listed = await self.read("/apis")
            return () if listed and listed.get("kind") == "APIGroupList" else None
        if found.get("kind") != "APIGroup":
            return None
        return [str(one["groupVersion"]) for one in found["versions"]]

    async def apply(self, path: str, manifest: Object, manager: str, *, force: bool, dry_run: bool) -> Object:
        """Server-side apply."""
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return await self.call("PATCH", path, manifest, query, "application/apply-patch+yaml")

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> Object | None:
        """None where there is nothing."""
        try:
            return await self.call("GET", path, query=query)
        except RefusedError as error:
            if error.status != 404:
                raise
            return None

    async def delete(self, path: str, propagation: str) -> None:
        """Asks for the end; what is gone already is fine."""
        try:
            await self.call("DELETE", path, {"propagationPolicy": propagation})
        except RefusedError as error:
            if error.status != 404:
                raise

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One call, repeated while the server is busy. Raises RefusedError, UnreachableError, KubeconfigError."""
        pause = _FIRST_PAUSE_S
        renewed = False
        for attempt in range(1, _TRIES + 1):
            try:
                status, content, after = await self._once(method, path, body, query or {}, content_type)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == _TRIES:
                    text = str(error) or type(error).__name__
                    raise UnreachableError(f"{self.connection.server} does not answer: {text}") from error
            else:
                if status < 400:
                    return content
                refused = RefusedError(status, content, f"{method} {path}")
                if status == _UNAUTHORIZED and not renewed:
                    renewed = True
                    self._credentials.forget()
                elif status not in _BUSY or attempt == _TRIES or refused.untyped:
                    raise refused
                else:
                    pause = max(pause, after)
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last try returns or raises")

    async def _once(
        self, method: str, path: str, body: object, query: Mapping[str, str], content_type: str
    ) -> tuple[int, Object, float]:
        session = await self._open()
        headers = {**await self._credentials.headers(), "Accept": "application/json"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body), content_type
        async with session.request(
            method,
            self.connection.server + path,
            params=query,
            data=data,
            headers=headers,
            proxy=self.connection.proxy,
            server_hostname=self.connection.server_name,
        ) as answer:
            text = await answer.text()
            after = answer.headers.get("Retry-After", "")
            return answer.status, _object(text), float(after) if after.isdigit() else 0.0

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                context = await self._context()
                connector = aiohttp.TCPConnector(ssl=context, limit=32)
                limit = aiohttp.ClientTimeout(total=_CALL_LIMIT_S)
                self._session = aiohttp.ClientSession(connector=connector, timeout=limit)
            return self._session

    async def _context(self) -> ssl.SSLContext:
        one = self.connection
        try:
            context = ssl.create_default_context(cadata=one.authority)
        except ssl.SSLError as error:
            raise KubeconfigError("the kubeconfig's certificate authority is no PEM certificate") from error
        if not one.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        pair = await self._credentials.certificate()
        if pair is not None:
            # The standard library takes certificates from files only; the folder is ours alone and gone at once.
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "client.pem"
                path.touch(mode=0o600)
                path.write_text("\n".join(pair))
                try:
                    context.load_cert_chain(path)
                except ssl.SSLError as error:
                    raise KubeconfigError("the kubeconfig's client certificate and key do not fit") from error
        return context


def _object(text: str) -> Object:
    try:
        content = json.loads(text)
    except ValueError:
        return {"message": text.strip()[:500]}
    return content if isinstance(content, dict) else {"items": content}
