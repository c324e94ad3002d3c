"""A supervisor in this process with a stand-in for the router (`cluster`), and a whole local cluster (`local`).

The stand-in keeps what it is told and forwards nothing.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from aks_inference_runtime.api.client import (
    EndpointSubmission,
    LocalSettings,
    SupervisorClient,
    SupervisorInfo,
    destroy,
    launch,
)
from aks_inference_runtime.api.content import directory_digest
from aks_inference_runtime.api.endpoint import Code, EndpointVersion, Environment, ScoringEndpoint
from aks_inference_runtime.api.errors import Conflict, InvalidInput, OperationFailed
from aks_inference_runtime.api.status import EndpointStatus
from aks_inference_runtime.local.keeper import end_keepers
from aks_inference_runtime.local.process import STATE_VARIABLE, kill_all, marked
from aks_inference_runtime.local.records import StatePaths
from aks_inference_runtime.local.supervisor import Supervisor
from aks_inference_runtime.router.answers import AnswerKey
from aks_inference_runtime.router.gate.client import GateClient
from aks_inference_runtime.router.model import ReplicaTarget, RouterState, VersionKey, VersionLoad
from testbed.processes import free_ports

SCRIPT = """
import json, os, time

def init():
    print("init of", os.getpid())

def run(data):
    body = json.loads(data)
    time.sleep(body.get("sleep", 0))
    return {"pid": os.getpid(), "answer": ANSWER, "model_dir": os.environ["AZUREML_MODEL_DIR"]}
"""


class StandInRouter:
    """Implements router.model.Router."""

    def __init__(self) -> None:
        self.state = RouterState()
        self.history: list[RouterState] = []
        self.loads: dict[VersionKey, VersionLoad] = {}
        self.answers: dict[AnswerKey, int] = {}
        self.started = False

    async def start(self) -> None:
        self.started = True

    async def apply(self, state: RouterState) -> None:
        self.state = state
        self.history.append(state)

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        return self.loads

    def problems(self) -> Mapping[str, str]:
        return {}

    async def drained(self, replica_id: str, timeout_s: float) -> bool:
        target = next((t for t in self.targets() if t.id == replica_id), None)
        deadline = time.monotonic() + timeout_s
        while target is not None and (await GateClient(target.control).status()).running:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def detach(self) -> None:
        self.started = False

    async def stop(self) -> None:
        self.started = False

    def targets(self, ready: bool | None = None, version: str | None = None) -> list[ReplicaTarget]:
        return [
            target
            for endpoint in self.state.endpoints.values()
            for v in endpoint.versions
            for target in v.replicas
            if ready in (None, target.ready) and version in (None, v.name)
        ]


class Cluster:
    """A supervisor, its router, and short words for tests."""

    def __init__(self, root: Path, run: Path) -> None:
        self.root = root
        self.paths = StatePaths(root / "state", run)
        self.settings = LocalSettings(name="test", state_directory=str(root / "state"), port=18_890)
        self.router = StandInRouter()
        self.supervisor = self.new()

    def new(self) -> Supervisor:
        return Supervisor(self.settings, self.paths, self.router)

    def code(self, name: str, script: str = SCRIPT, answer: object = 1) -> Code:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "score.py").write_text(script.replace("ANSWER", repr(answer)))
        return Code(source_directory=str(folder), entry_script="score.py", digest=directory_digest(folder))

    def version(self, name: str, code: Code | None = None, **settings: object) -> EndpointVersion:
        return EndpointVersion.model_validate(
            {"name": name, "code": code or self.code("code"), "traffic_percentile": 100, "is_default": True} | settings
        )

    def endpoint(self, name: str, *versions: EndpointVersion, **spec: object) -> EndpointSubmission:
        endpoint = ScoringEndpoint.model_validate(
            {"metadata": {"name": name}, "spec": {"versions": [v.model_dump() for v in versions], **spec}}
        )
        return EndpointSubmission(endpoint=endpoint)

    def status(self, name: str) -> EndpointStatus:
        return self.supervisor.status(self.supervisor.endpoint(name))

    async def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                statuses = [view.status.model_dump_json(indent=1) for view in self.supervisor.views()]
                raise AssertionError(f"not within {seconds} s: {what}\n" + "\n".join(statuses))
            await asyncio.sleep(0.02)

    async def served(self, name: str, seconds: float = 200) -> EndpointStatus:
        await self.until(lambda: self.status(name).observed_generation == self.status(name).generation, name, seconds)
        return self.status(name)

    async def score(self, target: ReplicaTarget, body: dict[str, object] | None = None) -> tuple[int, object]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(target.path))) as session,
            session.post("http://gate/score", json=body or {}) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    run = Path(tempfile.mkdtemp(prefix="aks-test-", dir="/tmp"))
    (tmp_path / "state").mkdir(mode=0o700)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    made = Cluster(tmp_path, run)
    await made.supervisor.start()
    try:
        yield made
    finally:
        await made.supervisor.shutdown()
        kill_all(marked(made.paths.root))
        shutil.rmtree(run, ignore_errors=True)
        assert os.environ[STATE_VARIABLE]


@pytest.fixture
def bare() -> Environment:
    """The environment that all these tests share: the scoring server alone."""
    return Environment()


PAUSE_S = 0.01
"""Of a client after an answer: what is changed meanwhile needs the machine, too."""
LOCAL_SCRIPT = """
import json, os, time

def init():
    print("init of a replica")

def run(data):
    time.sleep(json.loads(data).get("sleep", 0))
    folder = os.environ["AZUREML_MODEL_DIR"]
    return {"pid": os.getpid(), "answer": ANSWER, "files": sorted(os.listdir(folder)), "folder": folder}
"""


class Local:
    """A cluster under a temporary folder and short words for tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.settings = LocalSettings(name="test", state_directory=str(self.state), port=free_ports(1)[0])
        self.client = SupervisorClient(self.state)
        self.run_directory: Path | None = None

    async def launch(self) -> SupervisorInfo:
        info = await launch(self.settings)
        self.run_directory = Path(info.socket).parent
        return info

    def declared(
        self, endpoint: str, answer: object = 1, script: str = LOCAL_SCRIPT, **version: Any
    ) -> EndpointSubmission:
        spec = version.pop("spec", {})
        source = self.root / f"source-{endpoint}-{answer}"
        source.mkdir(exist_ok=True)
        (source / "score.py").write_text(script.replace("ANSWER", repr(answer)))
        code = {
            "source_directory": str(source),
            "entry_script": "score.py",
            "digest": directory_digest(source),
        }
        one = {"name": "ver-a", "is_default": True, "traffic_percentile": 100, "code": code} | version
        return EndpointSubmission(
            endpoint=ScoringEndpoint.model_validate(
                {"metadata": {"name": endpoint}, "spec": {"versions": [one]} | spec}
            )
        )

    async def deploy(self, submission: EndpointSubmission, seconds: float = 200) -> EndpointStatus:
        status = await self.client.put_endpoint(submission)
        return await self.client.wait_endpoint(status.name, status.generation, seconds)

    def kill_supervisor(self, pid: int) -> None:
        """For good: its keeper first."""
        end_keepers(self.state)
        os.kill(pid, signal.SIGKILL)
        end_keepers(self.state)  # one that it had started in between

    async def status(self, name: str) -> EndpointStatus:
        return (await self.client.get_endpoint(name)).status

    async def until(
        self, name: str, condition: Callable[[EndpointStatus], bool], seconds: float = 60
    ) -> EndpointStatus:
        try:
            async with asyncio.timeout(seconds):
                while not condition(status := await self.status(name)):
                    await asyncio.sleep(0.05)
                return status
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {await self.status(name)}") from None

    async def key(self, name: str) -> str:
        return (await self.client.keys(name)).primary_key

    def processes(self) -> list[psutil.Process]:
        """Ours by their mark, and HAProxy by the folder in its command line."""
        found = marked(self.state)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self.run_directory and any(str(self.run_directory) in part for part in process.cmdline()):
                    found.append(process)
        return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    made = Local(tmp_path)
    try:
        yield made
    finally:
        try:
            await destroy(made.state)
        except (InvalidInput, OperationFailed, Conflict):
            kill_all(made.processes())  # the test broke the state on purpose
            if made.run_directory:
                shutil.rmtree(made.run_directory, ignore_errors=True)
        left = made.processes()
        kill_all(left)
        assert left == []
        assert made.run_directory is None or not made.run_directory.exists()


class Clients:
    """Clients that ask one request after the other and count what they get."""

    def __init__(self, status: EndpointStatus, key: str, count: int, body: dict[str, Any] | None = None) -> None:
        self.seen: Counter[Any] = Counter()
        self.answers: Counter[Any] = Counter()
        self._status, self._key, self._count, self._body = status, key, count, body or {}
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Clients":
        self._tasks = [asyncio.create_task(self._loop()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _loop(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self._stop.is_set():
                try:
                    status, reason, body = await score_once(session, self._status, self._key, self._body)
                except aiohttp.ClientConnectionError:
                    self.seen["disconnected", None] += 1
                    continue
                except aiohttp.ClientPayloadError:
                    self.seen["cut", None] += 1
                    continue
                self.seen[status, reason] += 1
                if isinstance(body, dict):
                    self.answers[body.get("answer")] += 1
                await asyncio.sleep(PAUSE_S)

    async def at_least(self, requests: int) -> None:
        target = self.seen.total() + requests
        async with asyncio.timeout(30):
            while self.seen.total() < target:
                await asyncio.sleep(0.02)


async def score_once(
    session: aiohttp.ClientSession, status: EndpointStatus, key: str, body: dict[str, Any] | None = None
) -> tuple[int, str | None, Any]:
    headers = {"authorization": f"Bearer {key}"}
    async with session.post(status.scoring_uri, json=body or {}, headers=headers) as answer:
        return answer.status, answer.headers.get("x-aks-inference-reason"), await answer.json()


@pytest.fixture
def clients() -> type[Clients]:
    """Clients that ask one request after the other: `clients(status, key, count, body)`."""
    return Clients


@pytest.fixture
def score() -> Callable[..., Any]:
    """One request: `score(session, status, key, body)`."""
    return score_once
