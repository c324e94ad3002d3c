"""The whole system as a user has it: a program, the engine, the plugin, a supervisor, its router and replicas.

Starting it takes longest, so that all tests share one stack; each leaves it as it was. The scoring environment holds
the server alone and is kept in the user's cache, as the product keeps it.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from aks_inference_runtime.api.client import SupervisorClient
from aks_inference_runtime.api.status import EndpointStatus
from testbed import left_over
from testbed.processes import free_ports

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(sys.executable).parent / "embedded-engine"
LIMIT_S = 120
PAUSE_S = 0.02
"""Of a client between its requests: what is changed meanwhile needs the machine, too."""
HEAD = """
import os
import pulumi
from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, RegisteredModel

config = pulumi.Config()
cluster = LocalInferenceCluster("local", port=config.require_int("port"), state_directory=config.require("state"))
model = RegisteredModel("weights", target=cluster, model_path="weights.bin")
inference = {"entry_script": "score.py", "source_directory": "source"}
common = {"models": [model], "inference_config": inference, "num_replicas": 1}
"""
STEADY = """
ModelWebService(
    "steady",
    target=cluster,
    models=[model],
    inference_config=inference,
    num_replicas=2,
    max_request_wait_time=5000,
    primary_key=config.get_secret("primary"),
    secondary_key=config.get_secret("secondary"),
)
"""
SCORE = """
import json, os, time

def init():
    print("init of a replica")

def run(data):
    body = json.loads(data or "{}") if len(data) < 1000 else {}
    with open(os.environ["SCORE_LOG"] if "SCORE_LOG" in os.environ else os.devnull, "a") as log:
        log.write(body.get("name", "") + "\\n")
    time.sleep(body.get("sleep", 0))
    return {"pid": os.getpid(), "model": open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "weights.bin")).read()}
"""


class System:
    """A project with a stack `dev`, and the local cluster that it declares."""

    def __init__(self, folder: Path, name: str = "proj", port: int | None = None) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.state = folder / "state"
        self.backend = folder / "backend"
        self.port = port or free_ports(1)[0]
        self.client = SupervisorClient(self.state)
        self.steady = STEADY
        self._program = ""
        (self.project / "source").mkdir(parents=True)
        self.backend.mkdir(exist_ok=True)
        (self.project / "source" / "score.py").write_text(SCORE)
        (self.project / "weights.bin").write_text("one")
        described = {
            "name": name,
            "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
            "plugins": {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]},
        }
        (self.project / "Pulumi.yaml").write_text(json.dumps(described))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")} | {
            "PULUMI_BACKEND_URL": f"file://{self.backend}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
        }

    # the project

    def write(self, extra: str = "", steady: str | None = None) -> None:
        """The program: the cluster, a model, the service `steady`, and more."""
        self._program = HEAD + (self.steady if steady is None else steady) + extra
        (self.project / "__main__.py").write_text(self._program)

    def script(self, name: str, text: str) -> str:
        """A folder with an entry script, as an inference configuration in Python."""
        (self.project / name).mkdir(exist_ok=True)
        (self.project / name / "score.py").write_text(text)
        return repr({"entry_script": "score.py", "source_directory": name})

    @property
    def state_file(self) -> Path:
        """The engine's."""
        (found,) = (self.backend / ".pulumi" / "stacks").rglob("dev.json")
        return found

    def declared(self) -> dict[str, Any]:
        """What the engine's state holds: inputs by URN."""
        latest = json.loads(self.state_file.read_text())["checkpoint"]["latest"]
        return {resource["urn"]: resource.get("inputs") for resource in latest["resources"]}

    # the engine

    def start(self, *arguments: str, stack: bool = True) -> subprocess.Popen[str]:
        """The engine's process, in a session of its own as from a shell."""
        return subprocess.Popen(
            [str(ENGINE), *arguments, *(["--stack", "dev"] if stack else []), "--non-interactive"],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, stack: bool = True, code: int | None = 0, script_fails: bool = False) -> str:
        """Runs the engine to its end with an exit code; None: any but 0.

        Whatever is wrong, a user sees no traceback but one of the user's own script.
        """
        process = self.start(*arguments, stack=stack)
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        text = out + err
        right = process.returncode != 0 if code is None else process.returncode == code
        assert right, f"{arguments}: {process.returncode}\n{text}"
        assert script_fails or "Traceback" not in text, text
        return text

    def up(self, code: int = 0) -> str:
        return self.run("up", "--yes", "--skip-preview", code=code)

    async def up_async(self, code: int = 0) -> str:
        return await asyncio.to_thread(self.up, code)

    def config(self, name: str, value: str, *flags: str) -> None:
        self.run("config", "set", *flags, name, value)

    def preview(self) -> dict[str, Any]:
        text = self.run("preview", "--json")
        return dict(json.loads(text[text.index("{") :]))

    # what runs

    async def status(self, name: str = "steady") -> EndpointStatus:
        return (await self.client.get_endpoint(name)).status

    async def key(self, name: str = "steady") -> str:
        return (await self.client.keys(name)).primary_key

    async def until(
        self, condition: Callable[[EndpointStatus], object], name: str = "steady", seconds: float = 90
    ) -> EndpointStatus:
        deadline = time.monotonic() + seconds
        while not condition(status := await self.status(name)):
            assert time.monotonic() < deadline, f"not within {seconds} s: {status}"
            await asyncio.sleep(0.05)
        return status

    def replica_pids(self, name: str = "steady") -> list[int]:
        records = [json.loads(path.read_text()) for path in (self.state / "replicas").glob("*.json")]
        return [record["serverPid"] for record in records if record["endpoint"] == name]

    def uri(self, name: str = "steady") -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/service/{name}/score"

    async def score(self, body: dict[str, Any] | None = None, name: str = "steady", key: str | None = None) -> Any:
        """One request: status, reason, version, body."""
        async with aiohttp.ClientSession() as session:
            headers = {"authorization": f"Bearer {key or await self.key(name)}"}
            async with session.post(self.uri(name), json=body or {}, headers=headers) as answer:
                return Answer(answer.status, answer.headers, await answer.text())

    def load(self, clients: int, key: str, name: str = "steady", body: dict[str, Any] | None = None) -> "Load":
        return Load(self.uri(name), clients, key, body or {})

    def run_directories(self) -> list[Path]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return [Path(json.loads((self.state / "supervisor.json").read_text())["runDirectory"])]
        return []

    def processes(self, run: list[Path]) -> list[psutil.Process]:
        """All that belongs to the cluster: its folders stand in what they were started with."""
        wanted = [str(self.state), *map(str, run)]
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and left_over.names(process, *wanted):
                    found.append(process)
        return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def end(self) -> None:
        """Destroys the stack; nothing may be left."""
        run = self.run_directories()
        try:
            self.run("destroy", "--yes", "--skip-preview")
            left = self.processes(run)
            assert [(p.pid, p.cmdline()) for p in left] == []
            assert not self.state.exists() or self.state.is_mount()
            assert not any(folder.exists() for folder in run)
        finally:
            for process in self.processes(run):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            for folder in run:
                shutil.rmtree(folder, ignore_errors=True)


class Answer:
    """Of one request."""

    def __init__(self, status: int, headers: Any, text: str) -> None:
        self.status = status
        self.reason = headers.get("x-aks-inference-reason")
        self.version = headers.get("x-aks-inference-version")
        self.text = text

    def __repr__(self) -> str:
        return f"{self.status} {self.reason} {self.version} {self.text[:200]}"


class Load:
    """Clients that send one request after the other and count the answers: (status, reason) and versions."""

    def __init__(self, uri: str, clients: int, key: str, body: dict[str, Any]) -> None:
        self.uri, self.key, self._body = uri, key, body
        self.seen: Counter[Any] = Counter()
        self.versions: Counter[str | None] = Counter()
        self.slowest_s = 0.0
        self._clients = clients
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._client()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _client(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self._stopped:
                headers = {"authorization": f"Bearer {self.key}"}
                began = time.monotonic()
                try:
                    async with session.post(self.uri, json=self._body, headers=headers) as answer:
                        await answer.read()
                        self.seen[answer.status, answer.headers.get("x-aks-inference-reason")] += 1
                        self.versions[answer.headers.get("x-aks-inference-version")] += 1
                        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                except aiohttp.ClientError as error:
                    self.seen["reset", type(error).__name__] += 1
                    await asyncio.sleep(0.05)
                await asyncio.sleep(PAUSE_S)

    async def more(self, requests: int) -> None:
        """Waits until so many more were answered well."""
        target = self.seen[200, None] + requests
        async with asyncio.timeout(30):
            while self.seen[200, None] < target:
                await asyncio.sleep(0.02)

    @property
    def failed(self) -> dict[Any, int]:
        return {key: count for key, count in self.seen.items() if key != (200, None)}


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def shared() -> Iterator[System]:
    """The stack that all tests share."""
    with tempfile.TemporaryDirectory(prefix="aks-system-") as folder:
        left_over.claim(Path(folder))
        made = System(Path(folder))
        made.run("stack", "init", "dev", stack=False)
        made.config("port", str(made.port))
        made.config("state", str(made.state))
        made.config("primary", "primary-one", "--secret")
        made.config("secondary", "secondary-one", "--secret")
        made.write()
        try:
            made.up()
            yield made
        finally:
            made.write()
            made.end()


@pytest.fixture
def system(shared: System) -> Iterator[System]:
    """The shared stack; whatever a test declared beside `steady` is gone after it."""
    before = shared.declared()
    shared.write()
    yield shared
    shared.write()
    if shared.declared() != before:
        shared.up()


@pytest.fixture
def new_system(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., System]:
    """Makes another project with a stack of its own; it is destroyed after the test."""

    def make(name: str = "other", **more: Any) -> System:
        made = System(tmp_path / name, name, **more)
        made.run("stack", "init", "dev", stack=False)
        made.config("port", str(made.port))
        made.config("state", str(made.state))
        made.write()
        request.addfinalizer(made.end)
        return made

    return make
