"""The engine's side of the plugin's protocol, and what its values look like on the wire."""

import base64
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
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

ROOT = Path(__file__).resolve().parents[3]
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SERVED = sorted(
    [
        "kubernetes:networking.k8s.io/v1:NetworkPolicy",
        "aks-inference:index:EndpointKeys",
        "aks-inference:index:EndpointName",
        "kubernetes:policy/v1:PodDisruptionBudget",
        "kubernetes:core/v1:Secret",
        "kubernetes:core/v1:ConfigMap",
        "kubernetes:core/v1:Service",
        "kubernetes:apps/v1:Deployment",
        "kubernetes:aks-inference.dev/v1:ScoringEndpoint",
    ]
)
"""What a service on a cluster is made of."""


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
        self.kubeconfig = "apiVersion: v1"
        self.ids: dict[str, str] = {}
        """By type, where they have a form."""

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
        if known and request.type == "aks-inference:index:EndpointKeys":
            state.update({"primaryKey": "made-up", "secondaryKey": "made-up-too", "digests": "[]"})
        made = self.ids.get(request.type, f"{request.name}-id") if known else ""
        return resource_pb2.RegisterResourceResponse(urn=urn, id=made, object=state)

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest, context: Any) -> provider_pb2.InvokeResponse:
        """A kubeconfig is all that components ask for."""
        value = base64.b64encode(self.kubeconfig.encode()).decode()
        return provider_pb2.InvokeResponse(**{"return": struct({"kubeconfigs": [{"name": "user", "value": value}]})})

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
        self,
        kind: str,
        inputs: Mapping[str, Any],
        *,
        name: str = "",
        preview: bool = False,
        depends: Mapping[str, Iterable[str]] | None = None,
    ) -> provider_pb2.ConstructResponse:
        """`depends`: input → the URNs that it comes from."""
        urns = provider_pb2.ConstructRequest.PropertyDependencies
        return self.construct_as(
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
                inputDependencies={key: urns(urns=tuple(found)) for key, found in (depends or {}).items()},
                accepts_output_values=True,
            )
        )

    def construct_as(self, request: provider_pb2.ConstructRequest) -> provider_pb2.ConstructResponse:
        self.monitor.preview = request.dryRun
        return self.stub.Construct(request, timeout=60)


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
