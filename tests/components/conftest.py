"""A real program against a fake engine: the SDK runs as the language host runs it, over gRPC, without a CLI."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    provider_pb2,
    resource_pb2,
    resource_pb2_grpc,
)

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'

# What `pulumi-language-python-exec` does, as far as it matters here: RunError is printed without a traceback.
RUNNER = """
import asyncio, logging, runpy, sys
import pulumi, pulumi.runtime
pulumi.runtime.configure(pulumi.runtime.Settings(
    project="proj", stack="dev", monitor=sys.argv[1], engine=sys.argv[1], dry_run=sys.argv[2] == "preview",
    parallel=4, organization="org"))
logging.getLogger("asyncio").setLevel(logging.CRITICAL)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
ok = False
try:
    body = lambda: runpy.run_path(sys.argv[3], run_name="__main__") and None
    loop.run_until_complete(pulumi.runtime.run_in_stack(body))
    ok = True
except pulumi.RunError as error:
    pulumi.log.error(str(error))
finally:
    loop.close()
    sys.stdout.flush()
sys.exit(0 if ok else 1)
"""


@dataclass
class Registration:
    """What the engine was asked to register."""

    type: str
    name: str
    custom: bool
    parent: str
    inputs: dict[str, Any]
    request: Any


@dataclass
class FakeEngine(resource_pb2_grpc.ResourceMonitorServicer, engine_pb2_grpc.EngineServicer):
    """Registers everything, with the outputs that the plugin would give."""

    preview: bool = False
    registered: list[Registration] = field(default_factory=list)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: list[tuple[str, str, str]] = field(default_factory=list)
    root: str = ""

    def GetDeploymentInfo(self, request: Any, context: Any) -> Any:
        return resource_pb2.DeploymentInfo(supportedFeatures=range(19))

    def SupportsFeature(self, request: Any, context: Any) -> Any:
        return resource_pb2.SupportsFeatureResponse(hasSupport=True)

    def RegisterResource(self, request: Any, context: Any) -> Any:
        inputs = json_format.MessageToDict(request.object)
        self.registered.append(
            Registration(request.type, request.name, request.custom, request.parent, inputs, request)
        )
        urn = f"urn:pulumi:dev::proj::{request.type}::{request.name}"
        answer = struct_pb2.Struct()
        answer.CopyFrom(request.object)
        answer.update(self._extra(request.type, inputs))
        identity = "" if not request.custom or self.preview else self._identity(request)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identity, object=answer)

    @staticmethod
    def _identity(request: Any) -> str:
        if not request.type.startswith("azure-native:"):
            return f"{request.name}-id"
        return f"/subscriptions/sub-1/resourceGroups/rg/providers/Microsoft.X/{request.type[13:]}/{request.name}"

    def _extra(self, token: str, inputs: dict[str, Any]) -> dict[str, Any]:
        later = (lambda value: UNKNOWN) if self.preview else (lambda value: value)
        match token.rsplit(":", 1)[-1]:
            case "LocalRuntime":
                target = TARGET.replace('local"', f'{inputs["name"]}"', 1)
                return {"target": target, "url": f"http://127.0.0.1:{inputs['port']}", "stateDirectory": "/tmp/state"}
            case "Model":
                return {"version": later(1.0), "modelId": later(f"{inputs['name']}:1"), "createdTime": later("now")}
            case "LocalEndpoint":
                name = inputs["endpoint"]["metadata"]["name"]
                uri = f"http://127.0.0.1:8890/api/v1/service/{name}/score"
                keys = {"primaryKey": later("k1"), "secondaryKey": later("k2")}
                return {"scoringUri": uri, "swaggerUri": uri, "state": later("Healthy"), **keys}
            case "EndpointKeys":
                return {name: later(f"{name}-of-it") for name in ("primaryKey", "secondaryKey", "digests")}
            case "UserAssignedIdentity":
                return {"name": inputs.get("resourceName", "identity1"), "principalId": later("principal-1")}
            case "ManagedCluster":
                kubelet = {"kubeletidentity": {"objectId": later("kubelet-1")}}
                return {"name": inputs["resourceName"], "fqdn": later("prod-1.hcp"), "identityProfile": kubelet}
            case "ResourceGroup":
                return {"name": "group1"}
            case _:
                return {}

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:
        self.outputs[request.urn.rsplit("::", 1)[-1]] = json_format.MessageToDict(request.outputs)
        return empty_pb2.Empty()

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        return provider_pb2.InvokeResponse()

    def Log(self, request: Any, context: Any) -> Any:
        severity = engine_pb2.LogSeverity.Name(request.severity)
        self.logs.append((severity, request.urn.rsplit("::", 1)[-1], request.message))
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: Any) -> Any:
        return engine_pb2.GetRootResourceResponse(urn=self.root)

    def SetRootResource(self, request: Any, context: Any) -> Any:
        self.root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def of(self, token: str) -> list[Registration]:
        """Registrations of one type, by the last part of its token."""
        return [r for r in self.registered if r.type.endswith(f":{token}")]

    def said(self, severity: str = "INFO") -> str:
        """All messages of one severity."""
        return "\n".join(message for level, _, message in self.logs if level == severity)


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    code: int
    stderr: str
    engine: FakeEngine

    @property
    def error(self) -> str:
        """The error that a user sees."""
        return self.engine.said("ERROR")


Run = Callable[..., Outcome]


@pytest.fixture
def run_program(tmp_path: Path) -> Iterator[Run]:
    """Runs the text of a program in a folder that holds `score.py` and `model.joblib`."""
    (tmp_path / "score.py").write_text("def init():\n    pass\n\ndef run(data):\n    return data\n")
    (tmp_path / "model.joblib").write_bytes(b"weights")
    servers = []

    def run(program: str, preview: bool = True) -> Outcome:
        engine = FakeEngine(preview=preview)
        server = grpc.server(futures.ThreadPoolExecutor(8))
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(engine, server)
        engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        (tmp_path / "__main__.py").write_text(textwrap.dedent(program))
        mode = "preview" if preview else "up"
        arguments = [sys.executable, "-c", RUNNER, f"127.0.0.1:{port}", mode, str(tmp_path / "__main__.py")]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return Outcome(done.returncode, done.stderr + done.stdout, engine)

    yield run
    for server in servers:
        server.stop(None)


@pytest.fixture
def as_json() -> Callable[[object], str]:
    """A value as text, for looking into."""
    return lambda value: json.dumps(value, sort_keys=True)
