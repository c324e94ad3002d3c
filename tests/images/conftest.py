"""Real registries, a proxy before them that injects faults, small images."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import os
import socket
import ssl
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from push_story import Story
from registries import RegistryProcess, start_referrers_registry, start_registry, stop
from wheel_index import WheelIndex

from aks_inference_runtime.images import CredentialStore, RegistryClient, TransportOptions
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.backoff import Backoff
from aks_inference_runtime.images.registry.manifest import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    Descriptor,
    image_manifest,
    json_bytes,
    sha256,
)
from aks_inference_runtime.images.registry.upload import UploadSource

DEADLINE_S = 20.0


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """Without a login. Tests share it and use repositories of their own."""
    running = start_registry(tmp_path_factory.mktemp("registry"))
    yield running
    stop(running)


@pytest.fixture(scope="session")
def referrers_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """The other kind: with the referrers API, and small blobs in one request."""
    running = start_referrers_registry(tmp_path_factory.mktemp("referrers-registry"))
    yield running
    stop(running)


@pytest.fixture(autouse=True)
def _unknown_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process knows of registries is by their ports, which other tests' servers had before."""
    monkeypatch.setattr("aks_inference_runtime.images.registry.upload._wholly", {})


@pytest.fixture
def registry_with(tmp_path: Path) -> Iterator[Callable[[Mapping[str, object]], RegistryProcess]]:
    """Starts a registry with settings of the test's own."""
    running: list[RegistryProcess] = []

    def start(extra: Mapping[str, object]) -> RegistryProcess:
        folder = tmp_path / f"registry-{len(running)}"
        folder.mkdir()
        running.append(start_registry(folder, extra))
        return running[-1]

    yield start
    for one in running:
        stop(one)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Fault = Callable[[web.Request], "str | web.Response | None"]


@dataclass
class Proxy:
    """Passes requests on, unless its fault says otherwise; remembers what it saw."""

    upstream: str
    scheme: str = "http"
    fault: Fault = lambda _request: None
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    host: str = ""
    body_bytes: int = 0

    def requests(self, method: str) -> list[str]:
        return [path for kind, path, _ in self.seen if kind == method]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs, request.headers.get("Authorization")))
        action = self.fault(request)
        if isinstance(action, web.Response):
            await request.read()
            return action
        cut_request = int(action.removeprefix("cut-request:")) if action and action.startswith("cut-request") else None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {"transfer-encoding", "expect"}}
        headers["X-Forwarded-Proto"] = self.scheme
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as session:
            try:
                body = self._body(request, cut_request) if request.body_exists else None
                async with session.request(
                    request.method,
                    f"http://{self.upstream}{request.path_qs}",
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                ) as answer:
                    return await self._answer(request, answer, action)
            except (aiohttp.ClientError, ConnectionError):
                if request.transport is not None:
                    request.transport.abort()
                return web.Response(status=502)

    async def _body(self, request: web.Request, cut: int | None) -> AsyncIterator[bytes]:
        passed = 0
        async for piece in request.content.iter_any():
            if cut is not None and passed + len(piece) > cut:
                yield piece[: cut - passed]
                # The upstream must have it before the line breaks: it keeps what it was sent.
                await asyncio.sleep(0.05)
                raise ConnectionResetError("cut by the test")
            passed += len(piece)
            self.body_bytes += len(piece)
            yield piece

    async def _answer(
        self, request: web.Request, answer: aiohttp.ClientResponse, action: "str | web.Response | None"
    ) -> web.StreamResponse:
        content = await answer.read()
        if action == "lose-answer":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if action == "corrupt" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"transfer-encoding", "connection", "keep-alive"}:
                response.headers[name] = value
        await response.prepare(request)
        if isinstance(action, str) and action.startswith("cut-answer:"):
            await response.write(content[: int(action.removeprefix("cut-answer:"))])
            await asyncio.sleep(0.01)
            assert request.transport is not None
            request.transport.abort()
            return response
        if request.method != "HEAD":
            await response.write(content)
        await response.write_eof()
        return response


@contextlib.asynccontextmanager
async def serve(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: object = None
) -> AsyncIterator[str]:
    """An HTTP server on a free port; gives host and port."""
    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    try:
        await web.SockSite(runner, listener, ssl_context=tls).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()
        listener.close()


@pytest.fixture
async def server() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts servers that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler, tls: ssl.SSLContext | None = None) -> str:
            return await stack.enter_async_context(serve(handler, tls))

        yield start


@pytest.fixture
async def proxy(registry: RegistryProcess, server: Callable[..., Awaitable[str]]) -> Proxy:
    """A proxy before the shared registry."""
    made = Proxy(registry.host)
    made.host = await server(made.handle)
    return made


@pytest.fixture
def quick() -> Callable[..., RegistryClient]:
    """A client whose waits take no time; what it would have waited is in `quick.waited`."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    def make(store: CredentialStore | None = None, *, tries: int = 6, **options: object) -> RegistryClient:
        settings = TransportOptions(backoff=Backoff(tries=tries), sleep=sleep, chunk_bytes=512 * 1024)
        return RegistryClient(store, replace(settings, **options))  # type: ignore[arg-type]

    make.waited = waited  # type: ignore[attr-defined]
    return make


@dataclass(frozen=True)
class SmallImage:
    """What push_base pushed."""

    reference: ImageReference
    layer: Descriptor


@pytest.fixture
def push_base() -> Callable[..., Awaitable[SmallImage]]:
    """Pushes an image with an interpreter's file (and other files) in one layer; of no use but as a base."""

    async def push(
        client: RegistryClient,
        name: str,
        files: Mapping[str, bytes] | None = None,
        config: Mapping[str, object] | None = None,
    ) -> SmallImage:
        reference = ImageReference.parse(name)
        layer, diff_id = tar_layer({"usr/bin/python3.11": b"#!/bin/sh\n", "etc/os-release": RELEASE, **(files or {})})
        described = Descriptor(OCI_LAYER_GZIP, sha256(layer), len(layer))
        await client.push_blob(reference, described, UploadSource.of(layer))
        raw = json_bytes(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "2024-01-01T00:00:00Z",
                "config": {"Env": ["PATH=/usr/bin:/bin", "BASE=1"], **(config or {})},
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            }
        )
        config_blob = Descriptor(OCI_CONFIG, sha256(raw), len(raw))
        await client.push_blob(reference, config_blob, UploadSource.of(raw))
        manifest = image_manifest(config_blob, (described,))
        await client.push_manifest(reference, manifest)
        return SmallImage(reference.at(manifest.digest), described)

    return push


RELEASE = b'ID=debian\nVERSION_ID="12"\n'


def tar_layer(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A layer and its uncompressed digest."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, content in sorted(files.items()):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            header.mode = 0o755
            tar.addfile(header, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0), sha256(plain.getvalue())


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    files: Mapping[str, bytes] | None = None,
    requires: tuple[str, ...] = (),
    scripts: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """A wheel as build tools make it."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    content: dict[str, bytes] = {f"{name.replace('-', '_')}/__init__.py": f"__version__ = '{version}'\n".encode()}
    content |= files or {}
    content[f"{info}/METADATA"] = metadata.encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    if scripts:
        lines = "".join(f"{script} = {target}\n" for script, target in scripts.items())
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}".encode()
    record = "".join(f"{path},sha256={_urlsafe(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, data in content.items():
            archive.writestr(one, data)
    return path


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes all packages from; it asks no index."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    return folder


@pytest.fixture(name="make_wheel")
def make_wheel_fixture() -> Callable[..., Path]:
    return make_wheel


@pytest.fixture(name="tar_layer")
def tar_layer_fixture() -> Callable[[Mapping[str, bytes]], tuple[bytes, str]]:
    return tar_layer


@pytest.fixture
def no_docker_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the machine's docker settings, and a cache of the test's own."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition with a deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[[Callable[[], bool], str], None]:
    return wait_until


@pytest.fixture
def proxy_before() -> Callable[..., Proxy]:
    """Proxies before other registries; serve them with `server`."""
    return Proxy


@pytest.fixture
async def make_index(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Makes indexes."""
    runners: list[tuple[web.AppRunner, WheelIndex]] = []

    async def make() -> WheelIndex:
        index = WheelIndex(tmp_path / f"index-{len(runners)}")
        index.folder.mkdir()
        app = web.Application()
        app.add_routes([web.get("/simple/{name}/", index.page), web.get("/files/{name}", index.file)])
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        index.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append((runner, index))
        return index

    yield make
    for runner, index in runners:
        index.over.set()
        await runner.cleanup()


@pytest.fixture
async def index(make_index: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> WheelIndex:
    """One, which pip is told of."""
    made: WheelIndex = await make_index()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{made.url}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return made


@pytest.fixture
def story(push_base: Any, tmp_path: Path) -> Any:
    async def begin(client: RegistryClient, host: str) -> Story:
        base = await push_base(client, f"{host}/push/base:1")
        tagged = str(base.reference).partition("@")[0]
        return Story(client, host, tagged, tmp_path)

    return begin
