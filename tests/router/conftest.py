"""A test bed of real processes: stub replicas, gates, the router with its HAProxy."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from gate_clients import close_all
from router_pair import Pair

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.gate import GateClient, GateStatus
from aks_inference_runtime.router.model import EndpointRoute, ReplicaTarget, RouterState, VersionKey, VersionRoute
from testbed.processes import free_ports

STUB = Path(__file__).with_name("stub_replica.py")


@pytest_asyncio.fixture
async def closed_connections() -> AsyncIterator[None]:
    """Connections end also when a test fails."""
    yield
    await close_all()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def reason(self) -> str | None:
        return self.headers.get("x-aks-inference-reason")

    @property
    def version(self) -> str | None:
        return self.headers.get("x-aks-inference-version")


@dataclass
class Replica:
    id: str
    version: str
    stub: subprocess.Popen[str]
    gate: subprocess.Popen[bytes] | None
    port: int
    address: Path
    """The gate's."""
    control: Path | None

    def target(self, *, ready: bool = True) -> ReplicaTarget:
        return ReplicaTarget(self.id, "", 0, self.control, ready, self.address)

    async def status(self) -> GateStatus:
        assert self.control is not None
        return await GateClient(self.control).status()

    async def stats(self) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /_stats HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        data = await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
        writer.close()
        return json.loads(data)


@dataclass
class Bed:
    """Everything that one test starts."""

    directory: Path
    replicas: list[Replica] = field(default_factory=list)
    routers: list[HaproxyRouter] = field(default_factory=list)
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """What a test starts beside these."""
    port: int = 0
    numbers: Any = field(default_factory=itertools.count)
    session: aiohttp.ClientSession | None = None

    async def replica(
        self, version: str = "A", *, cap: int = 1, sleep_ms: float = 0, stub: Path = STUB, **gate: object
    ) -> Replica:
        replica_id = f"r{next(self.numbers)}"
        upstream = self.directory / f"{replica_id}.app"
        model = subprocess.Popen(
            [sys.executable, str(stub), "--path", str(upstream), "--sleep-ms", str(sleep_ms)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert model.stdout is not None
        port = int(await asyncio.to_thread(model.stdout.readline))
        control = self.directory / f"{replica_id}.gate"
        address = self.directory / f"{replica_id}.in"
        settings = {
            "replicaId": replica_id,
            "version": version,
            "upstreamPath": str(upstream),
            "control": str(control),
            "listenPath": str(address),
            "maxConcurrent": cap,
            **gate,
        }
        path = self.directory / f"{replica_id}.json"
        path.write_text(json.dumps(settings))
        process = subprocess.Popen([sys.executable, "-m", "aks_inference_runtime.router.gate", str(path)])
        replica = Replica(replica_id, version, model, process, port, address, control)
        self.replicas.append(replica)

        async def ready() -> bool:
            with contextlib.suppress(RuntimeUnavailable):
                return (await replica.status()).ready
            return False

        await self.until(ready)
        return replica

    async def router(self, *, start: bool = True, **options: Any) -> HaproxyRouter:
        if not self.port:
            self.port = free_ports(1)[0]
        router = HaproxyRouter(self.directory / "router", port=self.port, **options)
        if start:
            await router.start()
        self.routers.append(router)
        return router

    async def ask(
        self,
        name: str = "svc",
        *,
        method: str = "POST",
        data: Any = b"{}",
        key: str | None = None,
        path: str | None = None,
        port: int | None = None,
        timeout: float = 20,
        **headers: str,
    ) -> Answer:
        if self.session is None:
            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        url = f"http://127.0.0.1:{port or self.port}{path or f'/api/v1/service/{name}/score'}"
        began = asyncio.get_running_loop().time()
        async with self.session.request(
            method, url, data=data, headers=sent, timeout=aiohttp.ClientTimeout(timeout)
        ) as answer:
            body = await answer.read()
            return Answer(
                answer.status,
                {k.lower(): v for k, v in answer.headers.items()},
                body,
                asyncio.get_running_loop().time() - began,
            )

    async def until(self, condition: Callable[[], Awaitable[bool]], timeout_s: float = 15) -> None:
        async with asyncio.timeout(timeout_s):
            while not await condition():
                await asyncio.sleep(0.01)

    async def counts(self, router: HaproxyRouter, *, busy: int = 0, queued: int = 0) -> None:
        """Waits until version A of `svc` has this many requests."""

        async def seen() -> bool:
            load = router.load().get(VersionKey("svc", "A"))
            return load is not None and (load.busy, load.queued) == (busy, queued)

        await self.until(seen)

    def haproxy_pid(self, name: str = "p0") -> int:
        return int(json.loads((self.directory / "router" / f"{name}.json").read_bytes())["pid"])

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()
        for replica in self.replicas:
            for process in (replica.gate, replica.stub):
                if process is not None and process.poll() is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                if process is not None:
                    process.wait()
            assert replica.stub.stdout is not None
            replica.stub.stdout.close()
        for process in self.others:
            process.kill()
            process.wait()
        for router in self.routers:
            await router.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest_asyncio.fixture
async def bed() -> AsyncIterator[Bed]:
    bed = Bed(Path(tempfile.mkdtemp(prefix="aksr-")))
    try:
        yield bed
    finally:
        await bed.close()


@pytest_asyncio.fixture
async def pair(bed: Bed) -> AsyncIterator[Pair]:
    pair = Pair(free_ports(4))
    await pair.start()
    try:
        yield pair
    finally:
        await pair.stop()


@pytest.fixture
def make_bed() -> Callable[[], Bed]:
    """For tests with an event loop of their own; who takes one closes it."""
    return lambda: Bed(Path(tempfile.mkdtemp(prefix="aksr-")))


@pytest.fixture
def make_state() -> Callable[..., RouterState]:
    """A state with one endpoint `svc`: versions by name → (hundredths, replicas), settings by keyword."""

    def build(
        versions: dict[str, tuple[int, list[Any]]],
        *,
        keys: tuple[str, ...] = (),
        port: int | None = None,
        version_header_enabled: bool = True,
        scaled_to_zero: bool = False,
        **requests: int,
    ) -> RouterState:
        routes = tuple(
            VersionRoute(
                name,
                share,
                Requests(**requests),
                tuple(r if isinstance(r, ReplicaTarget) else r.target() for r in replicas),
                scaled_to_zero,
            )
            for name, (share, replicas) in versions.items()
        )
        digests = frozenset(hashlib.sha256(key.encode()).hexdigest() for key in keys)
        auth = AuthMode.KEY if keys else AuthMode.NONE
        return RouterState({"svc": EndpointRoute("svc", auth, digests, routes, version_header_enabled, port)})

    return build


@pytest.fixture
def unused_port() -> int:
    return free_ports(1)[0]
