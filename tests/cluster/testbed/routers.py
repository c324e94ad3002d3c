"""Router pods as processes of this machine, a real API server: the helpers of their tests."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from aks_inference_runtime.api.kubernetes import (
    COMPONENT_LABEL,
    ENDPOINT_LABEL,
    GATE_VARIABLE,
    KEYS_FIELD,
    PART_OF,
    PART_OF_LABEL,
    REPLICA_VARIABLE,
    ROUTER_COMPONENT,
    ROUTER_TOKEN_VARIABLE,
    SETTINGS_VARIABLE,
    VERSION_LABEL,
    keys_secret_name,
)
from aks_inference_runtime.router.ownership import owner_of
from testbed.processes import Running, free_ports

STUB = Path(__file__).parents[2] / "router" / "stub_replica.py"
KEY = "a-key-of-the-test"
GATE = """
import asyncio, os, sys
from pathlib import Path
from aks_inference_runtime.kubernetes import gate
asyncio.run(gate.run(gate.settings_of(os.environ, Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])))
"""


def own_address() -> str:
    """An address of this machine that is not a loopback one: EndpointSlices take no others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])


@dataclass
class Bed:
    cluster: Any
    namespace: str
    folder: Path
    address: str
    http_port: int = 0
    https_port: int = 0
    owner_port: int = 0
    running: list[Running] = field(default_factory=list)
    routers: dict[str, Running] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    stubs: list[int] = field(default_factory=list)
    settings: Path = Path()
    token: Path = Path()
    agent_port: int = 0
    groups: dict[str, int] = field(default_factory=dict)
    """Of the processes of routers that have one of their own, by which their packets can be told."""

    def begin(self) -> None:
        self.http_port, self.https_port, self.owner_port, self.agent_port = free_ports(4)
        self.settings = self.folder / "settings.json"
        self.tell()
        self.token = self.folder / "token"
        self.token.write_text("what-routers-show-each-other")

    def tell(self, **more: Any) -> None:
        """What routers that start from now on are told beside their ports."""
        told = {"namespace": self.namespace, "httpPort": self.http_port, "ownerPort": self.owner_port}
        self.settings.write_text(json.dumps({**told, "agentPort": self.agent_port, **more}))

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.cluster.api.create(path, body)
        assert answer.status == 201, answer.message
        return answer.body

    def endpoint(self, name: str, **version: Any) -> None:
        versions = [
            {
                "name": "blue",
                "isDefault": True,
                "trafficPercentile": 100,
                "code": {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"},
                **version,
            }
        ]
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": {"versions": versions}}
        self.create(f"/apis/{API_VERSION}/namespaces/{self.namespace}/scoringendpoints", body)
        digest = base64.b64encode(hashlib.sha256(KEY.encode()).hexdigest().encode()).decode()
        metadata = {"name": keys_secret_name(name), "labels": {ENDPOINT_LABEL: name}}
        body = {"metadata": metadata, "data": {KEYS_FIELD: digest}}
        self.create(f"/api/v1/namespaces/{self.namespace}/secrets", body)

    def replica(self, endpoint: str, number: int, *, cap: int = 1, sleep_ms: float = 0) -> None:
        stub = subprocess.Popen(
            [sys.executable, str(STUB), "--sleep-ms", str(sleep_ms)], stdout=subprocess.PIPE, text=True
        )
        assert stub.stdout is not None
        upstream = int(stub.stdout.readline())
        stub.stdout.close()
        self.stubs.append(upstream)
        uid = f"{endpoint}-uid-{number}"
        data, control, ready = free_ports(3, self.address)
        told = {
            "version": "blue",
            "listenHost": self.address,
            "listenPort": data,
            "upstreamPort": upstream,
            "maxConcurrent": cap,
        }
        gate = Running(
            uid,
            [sys.executable, "-c", GATE, self.folder / f"{uid}.sock", str(control), str(ready)],
            self.folder / f"{uid}.log",
            env={**os.environ, GATE_VARIABLE: json.dumps(told), REPLICA_VARIABLE: uid},
        )
        ended = Running(f"{uid}-stub", ["true"], self.folder / "true.log")
        ended.process.wait()
        ended.process = stub  # type: ignore[assignment]
        self.running += [gate, ended]
        labels = {ENDPOINT_LABEL: endpoint, VERSION_LABEL: "blue"}
        slice_ = {
            "metadata": {"name": f"{endpoint}-{number}", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "gate", "port": data}, {"name": "gate-control", "port": control}],
            "endpoints": [
                {
                    "addresses": [self.address],
                    "conditions": {"ready": True},
                    "targetRef": {"kind": "Pod", "name": uid, "uid": uid},
                }
            ],
        }
        self.create(f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices", slice_)

    def router(self, name: str, address: str, cores: str | None = None) -> None:
        labels = {PART_OF_LABEL: PART_OF, COMPONENT_LABEL: ROUTER_COMPONENT}
        container: dict[str, Any] = {"name": "router", "image": "none"}
        if cores is not None:
            container["resources"] = {"requests": {"cpu": cores}}
        pod = {
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [container], "automountServiceAccountToken": False},
        }
        if not self.cluster.has_controllers:  # nobody else makes the namespace's account
            account = {"metadata": {"name": "default"}}
            self.cluster.api.create(f"/api/v1/namespaces/{self.namespace}/serviceaccounts", account)
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        deadline = time.monotonic() + 20
        while (answer := self.cluster.api.create(path, pod)).status != 201:
            assert time.monotonic() < deadline, answer.message  # the namespace's account is still to come
            time.sleep(0.1)
        ready = [{"type": "Ready", "status": "True"}]
        running = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
        status = {"status": running}
        answer = self.cluster.api.call("PATCH", f"{path}/{name}/status", status, "application/merge-patch+json")
        assert answer.status == 200, answer.message
        self.addresses[name] = address
        self.start_router(name)

    def start_router(self, name: str) -> None:
        """The process of a router whose pod is there: the first one, or again as a kubelet does."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "POD_NAME": name,
            "POD_IP": self.addresses[name],
            SETTINGS_VARIABLE: str(self.settings),
            ROUTER_TOKEN_VARIABLE: str(self.token),
            "AKS_INFERENCE_DIRECTORY": str(self.folder / name),
        }
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        command = [sys.executable, "-m", "aks_inference_runtime.kubernetes.router"]
        group = {"group": self.groups[name]} if name in self.groups else {}
        one = Running(name, command, self.folder / f"{name}.log", env=environment, **group)
        self.routers[name] = one
        self.running.append(one)

    def resized(self, name: str, cores: str) -> None:
        """A pod has other cores from now on, as its kubelet says."""
        state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        told = {"name": "router", "image": "none", "imageID": "", "ready": True, "restartCount": 0, "state": state}
        status = {"containerStatuses": [{**told, "resources": {"requests": {"cpu": cores}}}]}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/status"
        answer = self.cluster.api.call("PATCH", path, {"status": status}, "application/merge-patch+json")
        assert answer.status == 200, answer.message

    def remove_pod(self, name: str) -> None:
        self.cluster.api.delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}", gracePeriodSeconds="0")

    def haproxy_pids(self, name: str) -> list[int]:
        """Of a router; one that is just being started, too."""
        records = [*(self.folder / name).glob("router*/p*.json"), *(self.folder / name).glob("router*/p*.starting")]
        return [int(json.loads(record.read_bytes())["pid"]) for record in records]

    def url(self, router: str, endpoint: str) -> str:
        return f"http://{self.addresses[router]}:{self.http_port}/api/v1/service/{endpoint}/score"

    async def ready(self, session: aiohttp.ClientSession, *names: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        for name in names or self.routers:
            url = f"http://{self.addresses[name]}:{self.agent_port}/readyz"
            while True:
                assert self.routers[name].process.poll() is None, self.routers[name].tail()
                assert time.monotonic() < deadline, self.routers[name].tail()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.05)

    def end(self) -> None:
        for one in self.running:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()
        # After the agents, which start again what dies.
        for name in self.routers:
            for pid in self.haproxy_pids(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(name="bed")
def routers_bed(cluster: Any, namespace: str, tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(cluster, namespace, tmp_path, own_address())
    try:
        bed.begin()
        yield bed
    finally:
        bed.end()


@pytest_asyncio.fixture(name="session")
async def routers_session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def ask(session: aiohttp.ClientSession, url: str, key: str = KEY) -> int:
    return (await told_by(session, url, key))[0]


async def told_by(session: aiohttp.ClientSession, url: str, key: str = KEY) -> tuple[int, str]:
    """The status, and what a failed test shows of it."""
    headers = {"authorization": f"Bearer {key}"}
    async with session.post(url, data=b"{}", headers=headers, timeout=aiohttp.ClientTimeout(10)) as answer:
        body = await answer.text()
        return answer.status, f"{answer.status} {dict(answer.headers)} {body[:200]}"


async def served(session: aiohttp.ClientSession, url: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while (status := await ask(session, url)) != 200:
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.05)


async def most(session: aiohttp.ClientSession, port: int) -> int:
    async with session.get(f"http://127.0.0.1:{port}/_stats") as answer:
        return int((await answer.json(content_type=None))["most"])


class Load:
    """Closed-loop clients of one router."""

    def __init__(self, session: aiohttp.ClientSession, url: str, clients: int) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self.slowest = 0.0
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._client(session, url)) for _ in range(clients)]

    async def _client(self, session: aiohttp.ClientSession, url: str) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                status, told = await told_by(session, url)
            except (aiohttp.ClientError, TimeoutError) as error:
                status, told = 0, repr(error)
            took = time.monotonic() - began
            self.answers[status] += 1
            if status != 200:
                self.failures.append(f"after {took:.3f} s: {told}")
            self.slowest = max(self.slowest, took)

    async def serves(self, count: int = 30) -> None:
        """Waits until so many more were served."""
        served = self.answers[200]
        async with asyncio.timeout(30):
            while self.answers[200] < served + count:
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


@pytest.fixture(name="name")
def routed_name(bed: Bed) -> str:
    """An endpoint with two replicas that serve one request at once each, owned by router-1 of two."""
    found = next(
        candidate
        for candidate in (f"svc-{bed.namespace[-4:]}-{n}" for n in range(100))
        if owner_of(candidate, ["router-0", "router-1"]) == "router-1"
    )
    bed.endpoint(found, requests={"maxRequestWaitTime": 5_000})
    for number in range(2):
        bed.replica(found, number, sleep_ms=10)
    return found
