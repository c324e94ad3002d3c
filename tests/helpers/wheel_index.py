"""A package index over HTTP, with the files of a folder, that wants a login and can break off."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from aks_inference_runtime.packages.download import Wanted, download
from aks_inference_runtime.packages.settings import PipSettings

Fault = Callable[[web.Request], Any]


@dataclass
class WheelIndex:
    """Files of a folder as an index has them."""

    folder: Path
    url: str = ""
    login: str | None = None
    """USER:PASSWORD that each request must have."""
    faults: list[Fault] = field(default_factory=list)
    """What becomes of the next requests for files, one each."""
    asked: list[str] = field(default_factory=list)
    redirect: str | None = None
    """Files are elsewhere."""
    authorizations: list[str | None] = field(default_factory=list)
    algorithm: str = "sha256"
    page_headers: dict[str, str] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets go what waits."""

    async def page(self, request: web.Request) -> web.Response:
        self._judge(request)
        name = request.match_info["name"].replace("-", "_")
        found = [path for path in sorted(self.folder.iterdir()) if path.name.startswith(f"{name}-")]
        if not found:
            raise web.HTTPNotFound
        links = "".join(
            f'<a href="/files/{one.name}#{self.algorithm}={digest(one, self.algorithm)}">{one.name}</a>'
            for one in found
        )
        return web.Response(text=links, content_type="text/html", headers=self.page_headers)

    async def file(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.append(request.headers.get("Authorization"))
        self._judge(request)
        name = request.match_info["name"]
        self.asked.append(name)
        if self.faults:
            return await self.faults.pop(0)(request)  # type: ignore[no-any-return]
        if self.redirect is not None:
            raise web.HTTPFound(f"{self.redirect}/files/{name}")
        return web.FileResponse(self.folder / name)

    def _judge(self, request: web.Request) -> None:
        if self.login is not None:
            expected = f"Basic {base64.b64encode(self.login.encode()).decode()}"
            if request.headers.get("Authorization") != expected:
                raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Basic"})

    def wanted(self, name: str, **more: Any) -> Wanted:
        """A file of it, as a lock file tells."""
        path = self.folder / name
        told: dict[str, Any] = {"url": f"{self.url}/files/{name}"}
        told |= {"digests": {"sha256": digest(path)}, "size": path.stat().st_size, **more}
        return Wanted(name, **told)


def digest(path: Path, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, path.read_bytes(), usedforsecurity=False).hexdigest()


async def fetched(index: WheelIndex, tmp_path: Path, *wanted: Wanted, settings: PipSettings | None = None) -> list[str]:
    own = settings or PipSettings(indexes=(f"{index.url}/simple",))
    return await download(wanted, tmp_path / "wheels", own, lambda _line: None, wait_s=0.001)
