"""What `bench/run chaos` and `cluster` disturb: routers, replicas and autoscalers as processes, their objects."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from bench import control_plane as plane
from bench import idle_gates
from bench.harness import ROOT

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.kubernetes import (
    AUTOSCALER_NAME,
    GATE_VARIABLE,
    REPLICA_VARIABLE,
    SETTINGS_VARIABLE,
)
from aks_inference_runtime.router.ownership import owner_of
from testbed.api import Api as SyncApi
from testbed.processes import Running, free_ports
from testbed.routers import GATE, KEY, STUB, Bed, own_address

NAME = "svc"
REPLICAS = 5
SERVICE_MS = 15.0
WAIT_MS = 5_000
ROUTERS = {"router-0": "127.0.0.2", "router-1": "127.0.0.3"}
AUTOSCALERS = {"autoscaler-0": "127.0.0.20", "autoscaler-1": "127.0.0.21"}
BACK_S = 1.0
"""After which a kubelet starts a container again; the first time at once, later with back-off."""
READY_S = 60.0

Records = list[tuple[float, float, int, str]]


@dataclass
class Replica:
    """A pod's two containers: the same uid, address and ports however often they start."""

    uid: str
    address: str
    ports: list[int]
    """Of the gate: data, control, readiness; then the stub's."""
    folder: Path
    cap: int = 1
    service_ms: float = SERVICE_MS
    most: int = 0
    gate: Running | None = None
    stub: Running | None = None

    def start(self) -> None:
        """Both."""
        data, control, ready, upstream = self.ports
        stub = [sys.executable, STUB, "--port", str(upstream), "--sleep-ms", str(self.service_ms)]
        self.stub = Running(f"{self.uid}-stub", stub, self.folder / f"{self.uid}-stub.log")
        told = {"endpoint": NAME, "version": "blue", "accessLog": True, "maxConcurrent": self.cap}
        told |= {"listenHost": self.address, "listenPort": data, "upstreamPort": upstream}
        environment = {**os.environ, GATE_VARIABLE: json.dumps(told)}
        gate = [sys.executable, "-c", GATE, self.folder / f"{self.uid}.sock", str(control), str(ready)]
        environment[REPLICA_VARIABLE] = self.uid
        self.gate = Running(self.uid, gate, self.folder / f"{self.uid}.log", env=environment)

    def end(self) -> None:
        """At once."""
        for one in (self.gate, self.stub):
            if one is not None:
                with contextlib.suppress(ProcessLookupError):
                    one.process.send_signal(signal.SIGCONT)
                one.process.kill()
                one.process.wait()

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Keeps the highest count that its stub has seen."""
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{self.ports[3]}/_stats") as answer:
                self.most = max(self.most, int((await answer.json(content_type=None))["most"]))

    def slice(self, endpoint: str) -> dict[str, Any]:
        """Its EndpointSlice."""
        data, control, *_ = self.ports
        target = {"kind": "Pod", "name": self.uid, "uid": self.uid}
        return {
            "metadata": {"name": self.uid, "labels": plane.of_version(endpoint)},
            "addressType": "IPv4",
            "ports": [{"name": "gate", "port": data}, {"name": "gate-control", "port": control}],
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": True}, "targetRef": target}],
        }


@dataclass
class Load:
    """The clients' process."""

    process: subprocess.Popen[bytes]
    output: Path
    refused: list[tuple[float, str]] = field(default_factory=list)
    """Once it is ended: when a connection was refused, and by whom; it went to the next router."""

    async def end(self) -> Records:
        """What became of each request."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if await asyncio.to_thread(self.process.wait, 40):
            raise RuntimeError("the clients failed")
        told = json.loads(await asyncio.to_thread(self.output.read_text))
        self.refused = [tuple(one) for one in told["refused"]]
        return [tuple(record) for record in told["answers"]]


@dataclass
class Chaos:
    """Everything that runs."""

    there: plane.Plane
    bed: Bed
    session: aiohttp.ClientSession
    replicas: list[Replica] = field(default_factory=list)
    autoscalers: dict[str, Running] = field(default_factory=dict)
    loads: list[subprocess.Popen[bytes]] = field(default_factory=list)
    number: int = REPLICAS
    """Of replicas."""
    cap: int = 1
    service_ms: float = SERVICE_MS
    groups: dict[str, int] = field(default_factory=dict)
    """Of the routers' processes; none: as this one."""
    idle: int = 0
    """Further endpoints, without load, that both routers own."""
    endpoints: list[str] = field(default_factory=lambda: [NAME])
    _idle: list[Running] = field(default_factory=list)
    tls: bool = False
    """Whether the routers serve with TLS, too, by the certificate of a Secret that is made by who wants it."""
    _next: Any = None

    def __post_init__(self) -> None:
        self._next = cycle(range(self.number))
        self.bed.groups = self.groups

    @property
    def server_pid(self) -> int:
        """Of the API server."""
        return self.there.server_pid

    @property
    def owner(self) -> str:
        """The router that owns the endpoint while all are well."""
        return str(owner_of(NAME, ROUTERS))

    def haproxy(self, router: str, process: str) -> int:
        """Pid of one of a router's HAProxy processes."""
        return int(json.loads((self.bed.folder / router / "router" / f"{process}.json").read_bytes())["pid"])

    async def running_haproxy(self, router: str, process: str) -> int:
        """The same, once it is back from the fault before."""
        async with asyncio.timeout(READY_S):
            while True:
                with contextlib.suppress(OSError, ValueError):
                    pid = self.haproxy(router, process)
                    os.kill(pid, 0)
                    return pid
                await asyncio.sleep(0.02)

    def agent_pid(self, router: str) -> int:
        """Of a router's agent."""
        return self.bed.routers[router].process.pid

    def next_replica(self) -> Replica:
        """One after the other."""
        return self.replicas[next(self._next)]

    def gate_pid(self) -> int:
        """Of the next replica's gate."""
        gate = self.next_replica().gate
        assert gate is not None
        return gate.process.pid

    async def begin(self) -> None:
        """Starts all of it and waits until it serves."""
        if self.tls:
            self.bed.tell(httpsPort=self.bed.https_port, allowInsecureConnections=True)
        scaling = {"autoscaleEnabled": True, "autoscaleMinReplicas": REPLICAS, "autoscaleMaxReplicas": REPLICAS}
        self.bed.endpoint(NAME, requests={"maxRequestWaitTime": WAIT_MS}, scaling=scaling)
        space = f"namespaces/{plane.NAMESPACE}"
        await self.there.make(f"/apis/apps/v1/{space}/deployments", [plane.deployment(NAME, REPLICAS)])
        for _ in range(self.number):
            await self.announce(self.replica())
        await self._begin_idle()
        for name, address in ROUTERS.items():
            await asyncio.to_thread(self.bed.router, name, address)
        for name in AUTOSCALERS:
            self._autoscaler(name)
        await self.bed.ready(self.session, seconds=READY_S)
        if await self.lost_endpoints():
            raise RuntimeError("it does not serve")

    async def _begin_idle(self) -> None:
        """Each with one replica."""
        names = list(idle_gates.named(self.idle, ROUTERS))
        gates = [idle_gates.IdleGate(name, self.bed.address, free_ports(3, self.bed.address)) for name in names]
        if gates:
            self._idle = await asyncio.to_thread(idle_gates.start, gates, self.bed.folder)
        path = f"/apis/apps/v1/namespaces/{plane.NAMESPACE}/deployments"
        await self.there.make(path, [plane.deployment(name, 1) for name in names])
        for gate in gates:
            self.bed.endpoint(gate.endpoint)
            one = Replica(gate.uid, gate.address, gate.ports, self.bed.folder)
            await self._announce(one.slice(gate.endpoint))
        self.endpoints += names

    def replica(self) -> Replica:
        """One more, that no router knows yet."""
        ports = [*free_ports(3, self.bed.address), *free_ports(1)]
        uid = f"{NAME}-{len(self.replicas)}"
        made = Replica(uid, self.bed.address, ports, self.bed.folder, self.cap, self.service_ms)
        made.start()
        self.replicas.append(made)
        return made

    async def announce(self, replica: Replica) -> None:
        """As the controller of EndpointSlices does once it is ready."""
        await self._announce(replica.slice(NAME))

    async def _announce(self, endpoint_slice: dict[str, Any]) -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{plane.NAMESPACE}/endpointslices"
        await self.there.make(path, [endpoint_slice])

    async def withdraw(self, replica: Replica) -> None:
        """The same once it ends."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{plane.NAMESPACE}/endpointslices"
        await self.there.api.delete(f"{path}/{replica.uid}")

    async def lost_endpoints(self) -> int:
        """Endpoints that some router does not serve, after a while."""
        asked = [self._served(router, name) for name in self.endpoints for router in ROUTERS]
        served = await asyncio.gather(*asked)
        return sum(not all(served[at : at + len(ROUTERS)]) for at in range(0, len(served), len(ROUTERS)))

    async def _served(self, router: str, name: str) -> bool:
        try:
            async with asyncio.timeout(READY_S):
                while await self._ask(router, name) != 200:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def most(self) -> list[int]:
        """The highest count at once, of each replica."""
        for replica in self.replicas:
            await replica.look(self.session)
        return [replica.most for replica in self.replicas]

    async def load(self, rate: float, trusted: str | None = None) -> Load:
        """Clients of all routers, until they are ended; with TLS where authorities are `trusted`."""
        settings, output = self.bed.folder / "load.json", self.bed.folder / "answers.json"
        port = self.bed.http_port if trusted is None else self.bed.https_port
        targets = [[address, port] for address in ROUTERS.values()]
        told = {"targets": targets, "path": f"/api/v1/service/{NAME}/score", "key": KEY, "rate": rate}
        settings.write_text(json.dumps({**told, "trusted": trusted}))
        command = [sys.executable, "-m", "bench.steady_clients", str(settings), str(output)]
        process = await asyncio.to_thread(subprocess.Popen, command, stdin=subprocess.PIPE, cwd=ROOT)
        self.loads.append(process)
        return Load(process, output)

    async def kill_replica(self) -> None:
        """Gate and server of one, which a kubelet starts again."""
        replica = self.next_replica()
        await replica.look(self.session)
        await asyncio.to_thread(replica.end)
        await asyncio.sleep(BACK_S)
        replica.start()

    async def kill_router(self) -> None:
        """The owner's pod: its agent, and at once all HAProxy processes, one that is just being started, too."""
        name = self.owner
        self.bed.routers[name].process.kill()
        await asyncio.to_thread(self.bed.routers[name].process.wait)
        for pid in self.bed.haproxy_pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(BACK_S)
        self.bed.start_router(name)

    async def leader(self) -> Running | None:
        """The autoscaler that leads; None: nobody does just now."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{plane.NAMESPACE}/leases/{AUTOSCALER_NAME}"
        with contextlib.suppress(AksInferenceError):
            return self.autoscalers.get(str((await self.there.api.get(path))["spec"].get("holderIdentity")))
        return None

    async def kill_leader(self) -> None:
        """Which a kubelet starts again."""
        if (found := await self.leader()) is not None:
            found.process.kill()
            await asyncio.to_thread(found.process.wait)
            await asyncio.sleep(BACK_S)
            self._autoscaler(found.name)

    def end(self) -> None:
        """All of it."""
        for clients in self.loads:
            clients.kill()
            clients.wait()
        for replica in self.replicas:
            replica.end()
        for one in (*self.autoscalers.values(), *self._idle):
            one.process.kill()
            one.process.wait()
        self.bed.end()

    async def _ask(self, router: str, name: str) -> int:
        headers = {"authorization": f"Bearer {KEY}"}
        try:
            async with self.session.post(self.bed.url(router, name), data=b"{}", headers=headers) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    def _autoscaler(self, name: str) -> None:
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.there.kubeconfig),
            "POD_NAME": name,
            "POD_IP": AUTOSCALERS[name],
            SETTINGS_VARIABLE: str(self.bed.settings),
        }
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        command = [sys.executable, "-m", "aks_inference_runtime.kubernetes.autoscaler"]
        self.autoscalers[name] = Running(name, command, self.bed.folder / f"{name}.log", env=environment)


@asynccontextmanager
async def chaos_bed(folder: Path, **settings: Any) -> AsyncIterator[Chaos]:
    """Until the block ends; `settings`: of `Chaos`. Raises harness.Missing."""
    async with plane.control_plane(folder / "plane") as there, aiohttp.ClientSession() as session:
        cluster = SimpleNamespace(api=SyncApi(there.kubeconfig), kubeconfig=there.kubeconfig, has_controllers=False)
        bed = Bed(cluster, plane.NAMESPACE, folder, own_address())
        bed.begin()
        chaos = Chaos(there, bed, session, **settings)
        try:
            await chaos.begin()
            yield chaos
        finally:
            chaos.end()
