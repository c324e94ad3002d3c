"""A supervisor in this process, with a stand-in for the router: it keeps what it is told and forwards nothing."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest

from aks_inference_runtime.api.content import directory_digest
from aks_inference_runtime.api.endpoint import Code, EndpointVersion, Environment, ScoringEndpoint
from aks_inference_runtime.api.status import EndpointStatus
from aks_inference_runtime.api.supervisor import EndpointSubmission, LocalSettings
from aks_inference_runtime.local.process import STATE_VARIABLE, kill_all, marked
from aks_inference_runtime.local.records import StatePaths
from aks_inference_runtime.local.supervisor import Supervisor
from aks_inference_runtime.router.gate.client import GateClient
from aks_inference_runtime.router.model import ReplicaTarget, RouterState, VersionKey, VersionLoad

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
        self.started = False

    async def start(self) -> None:
        self.started = True

    async def apply(self, state: RouterState) -> None:
        self.state = state
        self.history.append(state)

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        return self.loads

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

    async def served(self, name: str, seconds: float = 60) -> EndpointStatus:
        await self.until(lambda: self.status(name).observed_generation == self.status(name).generation, name, seconds)
        return self.status(name)

    async def score(self, target: ReplicaTarget, body: dict[str, object] | None = None) -> tuple[int, object]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{target.host}:{target.port}/score", json=body or {}) as answer,
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
