"""Real servers: Azurite (npm) for Blob Storage, an MLflow tracking server (PyPI, in an environment of its own), a
registry (Debian's docker-registry), and a web server that breaks off where a test says so."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from testbed.processes import free_ports

AZURITE = "azurite@3.37.0"
MLFLOW = "mlflow==3.17.2"
DEADLINE_S = 60.0
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's documented one."""


TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aks-inference-tests"
"""Where programs for tests are kept between runs; named before any test changes the variable."""


@contextlib.contextmanager
def made_once(name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that is filled once, also by two test runs at a time; gives whether it still has to be."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    target = TOOLS / name
    with (TOOLS / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = target / "done"
        if not done.is_file():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            yield target, True
            if any(target.iterdir()):
                done.touch()
        else:
            yield target, False


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until


@dataclass
class Azurite:
    """A blob service; `account` is its own name for itself."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path
    program: list[str]
    account: str = "devstoreaccount1"
    host: str = "127.0.0.1"

    @property
    def connection_string(self) -> str:
        endpoint = f"http://{self.host}:{self.port}/{self.account}"
        return f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={KEY};BlobEndpoint={endpoint};"

    def container(self, name: str) -> object:
        """A new client of a container that is there."""
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import BlobServiceClient

        client = BlobServiceClient.from_connection_string(self.connection_string).get_container_client(name)
        with contextlib.suppress(ResourceExistsError):
            client.create_container()
        return client

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def start(self) -> None:
        self.process = start_azurite(self.program, self.folder, self.port, self.host)


def start_azurite(program: list[str], folder: Path, port: int, host: str = "127.0.0.1") -> "subprocess.Popen[bytes]":
    log = (folder / "azurite.log").open("ab")
    with log:
        process = subprocess.Popen(
            [*program, "--blobHost", host, "--blobPort", str(port), "--location", str(folder), "--silent"],
            stdout=log,
            stderr=log,
        )

    def listening() -> bool:
        assert process.poll() is None, (folder / "azurite.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex((host, port)) == 0

    wait_until(listening, "azurite")
    return process


def install_azurite() -> list[str] | str:
    """Its command, or why there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "no node and npm: Azurite cannot be installed"
    with made_once(re.sub(r"[^a-z0-9.]", "-", AZURITE)) as (folder, new):
        if new:
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"]
            done = subprocess.run(
                [*command, "--prefix", str(folder), AZURITE], capture_output=True, text=True, check=False, timeout=280
            )
            if done.returncode:
                return f"Azurite could not be installed: {done.stderr.strip()[-300:]}"
    main = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    return [node, str(main), "--skipApiVersionCheck"]


@contextlib.contextmanager
def running_azurite(folder: Path, host: str = "127.0.0.1") -> Iterator[Azurite]:
    """One that ends with the context; skips where it cannot be installed. `host`: its address."""
    program = install_azurite()
    if isinstance(program, str):
        pytest.skip(program)
    port = free_ports(1)[0]
    running = Azurite(start_azurite(program, folder, port, host), port, folder, program, host=host)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="session")
def shared_azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with running_azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def azurite(shared_azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """The shared one, known to the code under test by its connection string."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", shared_azurite.connection_string)
    return shared_azurite


@pytest.fixture
def own_azurite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azurite]:
    """One that the test may kill and start again."""
    folder = tmp_path / "azurite"
    folder.mkdir()
    with running_azurite(folder) as running:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", running.connection_string)
        yield running


@pytest.fixture
def start_own_azurite(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Azurite]]:
    """One with its files in a folder that the test names."""
    with contextlib.ExitStack() as running:

        def start(folder: Path) -> Azurite:
            started = running.enter_context(running_azurite(folder))
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", started.connection_string)
            return started

        yield start


@dataclass
class Mlflow:
    """A tracking server, and its own Python with the whole of mlflow."""

    uri: str
    python: Path

    def run(self, code: str, *arguments: str) -> str:
        """What a program prints that logs to this server."""
        environment = {**os.environ, "MLFLOW_TRACKING_URI": self.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run(
            [str(self.python), "-W", "ignore", "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]


def python_with(*packages: str) -> Path:
    """The Python of an environment with packages that the project's own does not have."""
    uv = Path(sys.executable).with_name("uv")
    with made_once(re.sub(r"[^a-z0-9.]+", "-", " ".join(packages))) as (folder, new):
        python = folder / "venv" / "bin" / "python"
        if new:
            subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
            # uv needs a tenth of pip's time, where it is there.
            with_uv = [str(uv), "pip", "install", "-q", "--python", str(python), *packages]
            command = with_uv if uv.exists() else [str(python), "-m", "pip", "install", "-q", *packages]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
            if done.returncode:
                pytest.skip(f"{packages} could not be installed: {done.stderr.strip()[-300:]}")
    return python


@pytest.fixture(scope="session")
def tool_python() -> Callable[..., Path]:
    return python_with


@pytest.fixture(scope="session")
def mlflow_python(tool_python: Callable[..., Path]) -> Path:
    return tool_python(MLFLOW)


@pytest.fixture(scope="session")
def mlflow(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_ports(1)[0]
    command = [
        str(mlflow_python),
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)

    def healthy() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(healthy, "mlflow", 120)
        yield Mlflow(f"http://127.0.0.1:{port}", mlflow_python)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)


@dataclass
class Registry:
    """docker-registry."""

    host: str
    process: "subprocess.Popen[str]"


@pytest.fixture(scope="session")
def oci_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        pytest.skip("no registry program: install Debian's docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (folder / "registry.yml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [program, "serve", str(folder / "registry.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    found = None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
            break
    assert found, "".join(lines)
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    yield Registry(found[1], process)
    process.kill()
    process.wait(DEADLINE_S)
    drain.join(DEADLINE_S)
    process.stderr.close()


@dataclass
class Files:
    """A web server's files, and how it misbehaves."""

    url: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[web.Request, int], str] = lambda _request, _count: ""
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    etags: bool = True
    sent: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, request.headers.get("Range")))
        fault = self.fault(request, len(self.seen))
        if fault.isdigit():
            return web.Response(status=int(fault))
        body = self.content.get(request.path)
        if body is None:
            return web.Response(status=404)
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        headers = {"ETag": etag} if self.etags else {}
        status, offset = 200, 0
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if wanted and self.etags and request.headers.get("If-Range") in (None, etag):
            status, offset = 206, int(wanted[1])
            headers["Content-Range"] = f"bytes {offset}-{len(body) - 1}/{len(body)}"
        answer = web.StreamResponse(status=status, headers=headers)
        answer.content_length = len(body) - offset
        await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        rest = body[offset:]
        if fault.startswith("cut:"):
            await answer.write(rest[: int(fault.removeprefix("cut:"))])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
            return answer
        self.sent += len(rest)
        await answer.write(rest)
        await answer.write_eof()
        return answer


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    made = Files()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{port}"
    try:
        yield made
    finally:
        await runner.cleanup()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches and logins of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "cache"


@pytest.fixture
def write_files() -> Callable[[Path, Mapping[str, bytes]], Path]:
    def write(folder: Path, contents: Mapping[str, bytes]) -> Path:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    return write


Made = Callable[..., Awaitable[object]]
