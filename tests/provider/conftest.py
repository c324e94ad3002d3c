"""The plugin as the engine sees it: a process, its gRPC protocol, and a stand-in for the engine's side.

The supervisor has a stand-in too, on a real Unix socket with the real wire objects, so that a test decides what a
deployment does. Tests against the real one are in `test_provider_end_to_end.py`.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from aiohttp import web
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    errors_pb2,
    provider_pb2,
    provider_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
    status_pb2,
)

from aks_inference_runtime.api.content import combined_digest, file_digest, model_files
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.errors import AksInferenceError, Conflict, NotFound
from aks_inference_runtime.api.problems import HTTP_STATUS, to_problem
from aks_inference_runtime.api.status import EndpointStatus, EndpointView, ModelRecord, ServiceState, VersionStatus
from aks_inference_runtime.api.supervisor import (
    API_PREFIX,
    EndpointKeys,
    EndpointSubmission,
    LocalSettings,
    ModelRegistration,
    SupervisorInfo,
    SupervisorRecord,
)
from aks_inference_runtime.api.target import LocalTarget, format_target

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(sys.executable).parent / "embedded-engine"
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


# -- the engine's side ------------------------------------------------------------------------------------------------


class FakeEngine(engine_pb2_grpc.EngineServicer):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.logs: list[engine_pb2.LogRequest] = []

    def Log(self, request: engine_pb2.LogRequest, context: Any) -> empty_pb2.Empty:
        self.logs.append(request)
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: Any) -> engine_pb2.GetRootResourceResponse:
        return engine_pb2.GetRootResourceResponse()


class FakeMonitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Registers whatever is asked; in a preview custom resources have no id and unknown outputs."""

    def __init__(self) -> None:
        self.registered: list[resource_pb2.RegisterResourceRequest] = []
        self.outputs: dict[str, dict[str, Any]] = {}
        self.preview = False

    def GetDeploymentInfo(self, request: Any, context: Any) -> resource_pb2.DeploymentInfo:
        return resource_pb2.DeploymentInfo(supportedFeatures=range(19))

    def SupportsFeature(self, request: Any, context: Any) -> resource_pb2.SupportsFeatureResponse:
        return resource_pb2.SupportsFeatureResponse(hasSupport=True)

    def RegisterResource(
        self, request: resource_pb2.RegisterResourceRequest, context: Any
    ) -> resource_pb2.RegisterResourceResponse:
        self.registered.append(request)
        urn = f"urn:pulumi:dev::proj::{request.type}::{request.name}"
        known = request.custom and not self.preview
        state = struct_pb2.Struct()
        state.CopyFrom(request.object)
        if known and request.type == "aks-inference:index:Model":
            state.update({"version": 3, "modelId": f"{request.object['name']}:3"})
        return resource_pb2.RegisterResourceResponse(urn=urn, id=f"{request.name}-id" if known else "", object=state)

    def RegisterResourceOutputs(self, request: Any, context: Any) -> empty_pb2.Empty:
        self.outputs[request.urn] = json_format.MessageToDict(request.outputs)
        return empty_pb2.Empty()

    def types(self) -> list[str]:
        return [request.type for request in self.registered]


@dataclass
class Harness:
    """The plugin's process and what it talks to."""

    process: "subprocess.Popen[str]"
    stub: provider_pb2_grpc.ResourceProviderStub
    engine: FakeEngine
    monitor: FakeMonitor
    engine_address: str
    errors: Path

    # custom resources

    def urn(self, kind: str, name: str = "res") -> str:
        return f"urn:pulumi:dev::proj::my:component:Parent$aks-inference:index:{kind}::{name}"

    def check(self, kind: str, news: Mapping[str, Any], olds: Mapping[str, Any] | None = None) -> "Checked":
        answer = self.stub.Check(
            provider_pb2.CheckRequest(urn=self.urn(kind), olds=struct(olds or {}), news=struct(news))
        )
        return Checked(raw(answer.inputs), {each.property: each.reason for each in answer.failures})

    def diff(
        self,
        kind: str,
        olds: Mapping[str, Any],
        news: Mapping[str, Any],
        *,
        id: str = "x",
        ignore: tuple[str, ...] = (),
    ) -> provider_pb2.DiffResponse:
        return self.stub.Diff(
            provider_pb2.DiffRequest(
                id=id,
                urn=self.urn(kind),
                olds=struct(olds),
                old_inputs=struct(olds),
                news=struct(news),
                ignoreChanges=ignore,
            )
        )

    def create(self, kind: str, inputs: Mapping[str, Any], *, preview: bool = False, timeout: float = 0) -> "Created":
        answer = self.stub.Create(
            provider_pb2.CreateRequest(urn=self.urn(kind), properties=struct(inputs), preview=preview, timeout=timeout),
            timeout=60,
        )
        return Created(answer.id, raw(answer.properties))

    def update(
        self, kind: str, made: "Created", olds: Mapping[str, Any], news: Mapping[str, Any], *, preview: bool = False
    ) -> dict[str, Any]:
        answer = self.stub.Update(
            provider_pb2.UpdateRequest(
                id=made.id,
                urn=self.urn(kind),
                olds=struct(made.outputs),
                old_inputs=struct(olds),
                news=struct(news),
                preview=preview,
            ),
            timeout=60,
        )
        return raw(answer.properties)

    def read(
        self, kind: str, id: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> provider_pb2.ReadResponse:
        return self.stub.Read(
            provider_pb2.ReadRequest(id=id, urn=self.urn(kind), inputs=struct(inputs), properties=struct(outputs))
        )

    def delete(self, kind: str, made: "Created", inputs: Mapping[str, Any]) -> None:
        self.stub.Delete(
            provider_pb2.DeleteRequest(
                id=made.id, urn=self.urn(kind), properties=struct(made.outputs), old_inputs=struct(inputs)
            ),
            timeout=60,
        )

    # components

    def construct(
        self, kind: str, inputs: Mapping[str, Any], *, name: str = "", preview: bool = False
    ) -> provider_pb2.ConstructResponse:
        self.monitor.preview = preview
        return self.stub.Construct(
            provider_pb2.ConstructRequest(
                project="proj",
                stack="dev",
                organization="org",
                dryRun=preview,
                parallel=8,
                monitorEndpoint=self.engine_address,
                type=f"aks-inference:index:{kind}",
                name=name or kind.lower(),
                inputs=struct(inputs),
                accepts_output_values=True,
            ),
            timeout=60,
        )


@dataclass(frozen=True)
class Checked:
    inputs: dict[str, Any]
    failures: dict[str, str]


@dataclass(frozen=True)
class Created:
    id: str
    outputs: dict[str, Any]


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(values), struct_pb2.Struct())


def raw(message: struct_pb2.Struct) -> dict[str, Any]:
    return dict(json_format.MessageToDict(message))


class Values:
    """The forms in which a value can travel."""

    UNKNOWN = UNKNOWN

    @staticmethod
    def secret(value: Any) -> dict[str, Any]:
        return {SIGNATURE: SECRET, "value": value}

    @staticmethod
    def output(*known: Any, secret: bool = False) -> dict[str, Any]:
        """An output value; without `known` it is unknown. As the engine does, what is false is left out."""
        shape: dict[str, Any] = {SIGNATURE: OUTPUT}
        if known:
            shape["value"] = known[0]
        if secret:
            shape["secret"] = True
        return shape

    @staticmethod
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            if SIGNATURE in value:
                return Values.plain(value["value"])
            return {key: Values.plain(each) for key, each in value.items()}
        if isinstance(value, list):
            return [Values.plain(each) for each in value]
        return value


def property_errors(error: grpc.RpcError) -> dict[str, str]:
    """Path → reason of a structured input error."""
    for detail in _details(error):
        errors = errors_pb2.InputPropertiesError()
        if detail.Unpack(errors):
            return {each.property_path: each.reason for each in errors.errors}
    return {}


def partly(error: grpc.RpcError) -> provider_pb2.ErrorResourceInitFailed | None:
    """What a call that half worked left."""
    for detail in _details(error):
        failed = provider_pb2.ErrorResourceInitFailed()
        if detail.Unpack(failed):
            return failed
    return None


def _details(error: grpc.RpcError) -> list[Any]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return list(status_pb2.Status.FromString(value).details)
    return []


@pytest.fixture
def values() -> type[Values]:
    return Values


@pytest.fixture
def errors_of() -> Callable[[grpc.RpcError], dict[str, str]]:
    return property_errors


@pytest.fixture
def left_by() -> Callable[[grpc.RpcError], provider_pb2.ErrorResourceInitFailed | None]:
    return partly


@pytest.fixture(scope="session")
def start_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Harness]]:
    """Starts a plugin; `command` for another than this checkout's."""
    running: list[tuple[subprocess.Popen[str], grpc.Server]] = []

    def start(command: list[str] | None = None, env: Mapping[str, str] | None = None) -> Harness:
        engine, monitor = FakeEngine(), FakeMonitor()
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        errors = tmp_path_factory.mktemp("plugin") / "stderr"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [*(command or [sys.executable, str(ROOT / "provider")]), address],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=dict(env) if env is not None else None,
            )
        running.append((process, server))
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip().isdigit(), f"no port on stdout: {line!r}\n{errors.read_text()}"
        stub = provider_pb2_grpc.ResourceProviderStub(grpc.insecure_channel(f"127.0.0.1:{line.strip()}"))
        stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address=address), timeout=20)
        stub.Configure(provider_pb2.ConfigureRequest(acceptSecrets=True, acceptResources=True), timeout=20)
        return Harness(process, stub, engine, monitor, address, errors)

    yield start
    for process, server in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        server.stop(0).wait()


@pytest.fixture(scope="session")
def shared_plugin(start_plugin: Callable[..., Harness]) -> Harness:
    return start_plugin()


@pytest.fixture
def plugin(shared_plugin: Harness) -> Harness:
    """The plugin of the session, with an engine that has seen nothing yet."""
    shared_plugin.engine.logs.clear()
    shared_plugin.monitor.registered.clear()
    shared_plugin.monitor.outputs.clear()
    shared_plugin.monitor.preview = False
    return shared_plugin


# -- the supervisor's side --------------------------------------------------------------------------------------------


@dataclass
class StandIn:
    """A supervisor of which a test decides what its deployments come to."""

    directory: Path
    socket: Path
    port: int = 8890
    becomes: ServiceState = ServiceState.HEALTHY
    """What a declared endpoint is at once; TRANSITIONING: it never gets further."""
    message: str = ""
    models: dict[tuple[str, int], ModelRecord] = field(default_factory=dict)
    has_stored: bool = True
    """Whether a model `stored:1` is there, which endpoints may name without registering it."""
    endpoints: dict[str, tuple[ScoringEndpoint, int]] = field(default_factory=dict)
    keys: dict[str, EndpointKeys] = field(default_factory=dict)
    used: set[tuple[str, int]] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    down: dict[str, bool] | None = None
    """What it was told at the end."""

    @property
    def target(self) -> str:
        return format_target(LocalTarget(name="local", state_directory=str(self.directory), port=self.port))

    def settings(self) -> LocalSettings:
        return LocalSettings(name="local", state_directory=str(self.directory), port=self.port)

    def info(self) -> SupervisorInfo:
        return SupervisorInfo(
            name="local",
            pid=1,
            started=0,
            version="0",
            url=f"http://127.0.0.1:{self.port}",
            port=self.port,
            state_directory=str(self.directory),
            socket=str(self.socket),
        )

    def put_model(self, m: ModelRegistration) -> ModelRecord:
        files = {name: file_digest(path) for name, path in model_files(Path(m.source_path), m.child_paths).items()}
        digest = combined_digest(files)
        mutable = {"tags": m.tags, "description": m.description}
        versions = sorted(version for name, version in self.models if name == m.name)
        for version in versions:
            record = self.models[m.name, version]
            identity = (record.digest, record.properties, record.framework, record.framework_version)
            if identity == (digest, m.properties, m.framework, m.framework_version):
                self.models[m.name, version] = record.model_copy(update=mutable)
                return self.models[m.name, version]
        record = ModelRecord(
            name=m.name,
            version=max(versions, default=0) + 1,
            digest=digest,
            files=files,
            created_time="2026-01-01T00:00:00Z",
            framework=m.framework,
            framework_version=m.framework_version,
            properties=m.properties,
            tags=m.tags,
            description=m.description,
        )
        self.models[m.name, record.version] = record
        return record

    def delete_model(self, name: str, version: int) -> None:
        if (name, version) not in self.models:
            raise NotFound(f"no model {name}:{version}")
        if (name, version) in self.used:
            raise Conflict(f"model {name}:{version} is used by endpoint svc")
        del self.models[name, version]

    def put_endpoint(self, s: EndpointSubmission) -> EndpointStatus:
        name = s.endpoint.metadata.name
        old, generation = self.endpoints.get(name, (None, 0))
        present = self.keys.get(name) or EndpointKeys(primary_key="generated-1", secondary_key="generated-2")
        keys = EndpointKeys(
            primary_key=s.primary_key or present.primary_key, secondary_key=s.secondary_key or present.secondary_key
        )
        if (old, self.keys.get(name)) != (s.endpoint, keys):
            generation += 1
        self.endpoints[name] = (s.endpoint, generation)
        self.keys[name] = keys
        return self.status(name)

    def status(self, name: str) -> EndpointStatus:
        endpoint, generation = self.endpoints[name]
        served = generation if self.becomes is ServiceState.HEALTHY else generation - 1
        return EndpointStatus(
            name=name,
            state=self.becomes,
            generation=generation,
            observed_generation=served,
            message=self.message,
            versions=tuple(VersionStatus(name=v.name, state=self.becomes) for v in endpoint.spec.versions),
        )

    def view(self, name: str) -> EndpointView:
        if name not in self.endpoints:
            raise NotFound(f"no endpoint {name}")
        return EndpointView(endpoint=self.endpoints[name][0], status=self.status(name))

    def delete_endpoint(self, name: str) -> None:
        self.view(name)
        del self.endpoints[name], self.keys[name]


def _application(stand_in: StandIn) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        stand_in.calls.append(f"{request.method} {request.path.removeprefix(API_PREFIX)}")
        body = await request.text()
        parts = request.path.removeprefix(API_PREFIX).strip("/").split("/")
        try:
            found = _route(stand_in, request.method, parts, body)
        except AksInferenceError as error:
            return web.json_response(to_problem(error).to_wire(), status=HTTP_STATUS[type(error)])
        return web.json_response(found)

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    return application


def _route(s: StandIn, method: str, parts: list[str], body: str) -> Any:
    match method, parts:
        case "GET", ["info"]:
            return s.info().to_wire()
        case "POST", ["shutdown"]:
            s.down = json.loads(body)
            return None
        case "POST", ["models"]:
            return s.put_model(ModelRegistration.model_validate_json(body)).to_wire()
        case "GET", ["models"]:
            first = ModelRecord(name="stored", version=1, digest="sha256:0")
            return [record.to_wire() for record in [*([first] if s.has_stored else []), *s.models.values()]]
        case "GET", ["models", name, version]:
            return s.models[name, int(version)].to_wire()
        case "DELETE", ["models", name, version]:
            return s.delete_model(name, int(version))
        case "PUT", ["endpoints", _]:
            return s.put_endpoint(EndpointSubmission.model_validate_json(body)).to_wire()
        case "GET", ["endpoints", name]:
            return s.view(name).to_wire()
        case "DELETE", ["endpoints", name]:
            return s.delete_endpoint(name)
        case "GET", ["endpoints", name, "keys"]:
            return s.keys[name].to_wire()
    raise NotFound(f"no such call: {method} {parts}")


@pytest.fixture
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A stand-in that answers on the socket that `supervisor.json` names."""
    directory = tmp_path_factory.mktemp("state")
    run = tmp_path_factory.mktemp("run")
    stand_in = StandIn(directory, run / "api.sock")
    record = SupervisorRecord(settings=stand_in.settings(), run_directory=str(run))
    (directory / "supervisor.json").write_text(record.model_dump_json(by_alias=True))
    started = threading.Event()
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        runner = web.AppRunner(_application(stand_in))
        await runner.setup()
        await web.UnixSite(runner, str(stand_in.socket)).start()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        started.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    yield stand_in
    stop[0]()
    thread.join(10)


# -- whole stacks -----------------------------------------------------------------------------------------------------


class Stack:
    """A project with a stack of its own backend."""

    def __init__(self, folder: Path, program: str) -> None:
        self.project = folder / "project"
        (self.project / "source").mkdir(parents=True)
        (self.project / "source" / "score.py").write_text(
            "def init():\n    pass\n\n\ndef run(data):\n    return data\n"
        )
        (self.project / "model.bin").write_bytes(b"one")
        self.program(program)
        described = {
            "name": "proj",
            "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
            "plugins": {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]},
        }
        (self.project / "Pulumi.yaml").write_text(json.dumps(described))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")} | {
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
        }
        self.run("stack", "init", "dev", stack=False)

    def program(self, text: str) -> None:
        (self.project / "__main__.py").write_text(text)

    def configure(self, **values: str) -> None:
        """As `config set` of plain values, without a command each."""
        path = self.project / "Pulumi.dev.yaml"
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        config = content.setdefault("config", {})
        config.update({f"proj:{key}": value for key, value in values.items()})
        path.write_text(json.dumps(content))

    def run(self, *arguments: str, stack: bool = True, code: int = 0) -> str:
        done = subprocess.run(
            [str(ENGINE), *arguments, *(["--stack", "dev"] if stack else []), "--non-interactive"],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command that the caller ends."""
        return subprocess.Popen(
            [str(ENGINE), *arguments, "--stack", "dev", "--non-interactive"],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def preview(self) -> dict[str, Any]:
        text = self.run("preview", "--json")
        return dict(json.loads(text[text.index("{") :]))

    def up(self, code: int = 0) -> str:
        return self.run("up", "--yes", "--skip-preview", code=code)

    def outputs(self) -> dict[str, Any]:
        return dict(json.loads(self.run("stack", "output", "--json", "--show-secrets")))


@pytest.fixture
def make_stack(tmp_path: Path) -> Callable[[str], Stack]:
    """A stack of a program."""
    return lambda program: Stack(tmp_path, program)
