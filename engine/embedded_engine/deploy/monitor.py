"""The services that a program and its components call: ResourceMonitor and Engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    provider_pb2,
    resource_pb2,
    resource_pb2_grpc,
)

from embedded_engine import values
from embedded_engine.deploy import requests
from embedded_engine.deploy.assets import AssetError
from embedded_engine.deploy.cells import is_provider, package_of
from embedded_engine.deploy.construct import Constructor
from embedded_engine.deploy.deployment import Deployment
from embedded_engine.deploy.goals import Goal
from embedded_engine.deploy.registration import BailError, Result
from embedded_engine.deploy.requests import UnsupportedError
from embedded_engine.errors import EngineError
from embedded_engine.events import Diagnostic, Sink
from embedded_engine.plugins.client import OPTIONS
from embedded_engine.values import Message, Wire, from_struct, to_struct

T = TypeVar("T")

_FEATURE = resource_pb2.ResourceMonitorFeature
# Those that are refused by name when they are used are listed too: the SDK's own words for a missing feature would
# send people to update a CLI that they do not have.
FEATURES = [
    _FEATURE.Value(f"RESOURCE_MONITOR_FEATURE_{name}")
    for name in (
        "SECRETS",
        "RESOURCE_REFERENCES",
        "OUTPUT_VALUES",
        "ALIAS_SPECS",
        "DELETED_WITH",
        "REPLACE_WITH",
        "INVOKE_PARENT",
        "TRANSFORMS",
        "INVOKE_TRANSFORMS",
        "RESOURCE_HOOKS",
        "ERROR_HOOKS",
        "PARAMETERIZATION",
        "STATE_MIGRATIONS",
    )
]
_FEATURE_IDS = {
    "secrets",
    "resourceReferences",
    "outputValues",
    "aliasSpecs",
    "deletedWith",
    "replaceWith",
    "transforms",
    "invokeTransforms",
    "parameterization",
    "resourceHooks",
    "errorHooks",
}
_SEVERITIES = {
    engine_pb2.DEBUG: "debug",
    engine_pb2.INFO: "info",
    engine_pb2.WARNING: "warning",
    engine_pb2.ERROR: "error",
}
STOPPED = "resource monitor shut down"


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Serves one deployment. `finished` is set when the program says that it has registered everything."""

    def __init__(self, deployment: Deployment, folder: Path, root: Path) -> None:
        self.deployment = deployment
        self.options = deployment.options
        # Where relative paths of assets begin, and the folder of Pulumi.yaml.
        self.folder = folder
        self.root = root
        self.finished = asyncio.Event()
        self.address = ""
        self.constructor = Constructor(deployment, folder)

    # -- what is there

    async def GetDeploymentInfo(self, request: Message, context: Message) -> resource_pb2.DeploymentInfo:
        options = self.options
        return resource_pb2.DeploymentInfo(
            project=options.project,
            stack=options.stack,
            organization=options.organization,
            config=dict(options.config),
            configSecretKeys=sorted(options.secret_keys),
            dryRun=options.dry_run,
            parallel=options.parallel,
            supportedFeatures=FEATURES,
        )

    async def SupportsFeature(self, request: Message, context: Message) -> resource_pb2.SupportsFeatureResponse:
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in _FEATURE_IDS)

    async def SignalAndWaitForShutdown(self, request: Message, context: Message) -> empty_pb2.Empty:
        self.finished.set()
        return empty_pb2.Empty()

    # -- resources

    async def RegisterResource(self, request: Message, context: Message) -> resource_pb2.RegisterResourceResponse:
        return await self._serve(self._register(request), context)

    async def _register(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:
        requests.refuse_unsupported(request)
        try:
            properties = requests.properties_of(request, self.folder)
        except (AssetError, requests.NumberError) as error:
            raise EngineError(f"{request.type} resource '{request.name}': {error}") from error
        wanted = self.constructor.inherited(request)
        provider = ""
        if (request.custom and not is_provider(request.type)) or request.remote:
            provider = await self._provider_for(
                request.type, wanted.provider, request.version, request.pluginDownloadURL
            )
        if request.remote:
            return await self.constructor.construct(request, properties, provider, wanted, self.address)
        goal = requests.goal_of(request, properties, provider, wanted, self.root)
        result = await self.deployment.register(goal)
        self.constructor.registered(result.state.urn, goal, dict(wanted.providers))
        return _response(request, goal, result)

    async def ReadResource(self, request: Message, context: Message) -> resource_pb2.ReadResourceResponse:
        return await self._serve(self._read(request), context)

    async def _read(self, request: resource_pb2.ReadResourceRequest) -> resource_pb2.ReadResourceResponse:
        given = self.constructor.resolve_provider(request.provider, {}, request.parent, package_of(request.type))
        provider = await self._provider_for(request.type, given, request.version, request.pluginDownloadURL)
        result = await self.deployment.read(requests.read_goal_of(request, provider, self.root))
        wire = Wire(secrets=request.acceptSecrets, resources=request.acceptResources)
        return resource_pb2.ReadResourceResponse(
            urn=result.state.urn, properties=to_struct(result.state.outputs, wire), result=_outcome(result)
        )

    async def RegisterResourceOutputs(self, request: Message, context: Message) -> empty_pb2.Empty:
        try:
            outputs = requests.plain_properties(request.outputs, self.folder)
        except requests.NumberError as error:
            self._tell(EngineError(f"outputs of {request.urn}: {error}"))
            await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPED)
        await self._serve(self.deployment.outputs(request.urn, outputs), context)
        return empty_pb2.Empty()

    async def ExistsResource(self, request: Message, context: Message) -> NoReturn:
        await self._refuse(context, "asking whether a resource exists (ExistsResource)")

    # -- functions

    async def Invoke(self, request: Message, context: Message) -> resource_pb2.ResourceInvokeResponse:
        return await self._serve(self._invoke(request), context)

    async def _invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:
        if request.packageRef:
            raise UnsupportedError("parameterized packages")
        args = values.plain_outputs(from_struct(request.args))
        given = self.constructor.resolve_provider(request.provider, {}, request.parent, package_of(request.tok))
        if request.tok.startswith("pulumi:pulumi:") and not given:
            provider: Any = self.deployment.builtin
        else:
            reference = await self._provider_for(request.tok, given, request.version, request.pluginDownloadURL)
            provider = self.deployment.registry.require(reference, request.tok)
        try:
            found, failures = await provider.invoke(request.tok, args, self.options.dry_run)
        except EngineError as error:
            raise EngineError(f"invocation of {request.tok} returned an error: {error}") from error
        keep = request.acceptResources or request.tok == "pulumi:pulumi:getResource"
        response = resource_pb2.ResourceInvokeResponse(
            failures=[provider_pb2.CheckFailure(property=f.property, reason=f.reason) for f in failures]
        )
        getattr(response, "return").CopyFrom(to_struct(found, Wire(resources=keep)))
        return response

    async def Call(self, request: Message, context: Message) -> provider_pb2.CallResponse:
        return await self._serve(self._call(request), context)

    async def _call(self, request: resource_pb2.ResourceCallRequest) -> provider_pb2.CallResponse:
        if request.packageRef:
            raise UnsupportedError("parameterized packages")
        reference = self.constructor.caller_provider(request)
        reference = await self._provider_for(request.tok, reference, request.version, request.pluginDownloadURL)
        return await self.constructor.call(request, reference, self.address)

    async def _provider_for(self, token: str, reference: str, version: str, url: str) -> str:
        """The provider that is named, or the package's default one."""
        return reference or await self.deployment.defaults.reference(token, version, url.rstrip("/"))

    # -- what is refused by name

    async def RegisterStackTransform(self, request: Message, context: Message) -> NoReturn:
        await self._refuse(context, "stack transforms")

    async def RegisterStackInvokeTransform(self, request: Message, context: Message) -> NoReturn:
        await self._refuse(context, "invoke transforms")

    async def RegisterResourceHook(self, request: Message, context: Message) -> NoReturn:
        await self._refuse(context, "resource hooks")

    async def RegisterErrorHook(self, request: Message, context: Message) -> NoReturn:
        await self._refuse(context, "error hooks")

    async def RegisterPackage(self, request: Message, context: Message) -> NoReturn:
        await self._refuse(context, "parameterized packages")

    async def _refuse(self, context: Message, what: str) -> NoReturn:
        """Ends the run with a sentence; the program's traceback would bury it."""
        self._tell(UnsupportedError(what))
        await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPED)
        raise AssertionError  # abort has raised

    def _tell(self, error: EngineError) -> None:
        self.deployment.emit(Diagnostic("error", str(error)))
        self.deployment.fail()

    # -- serving

    async def _serve(self, work: Awaitable[T], context: Message) -> T:
        """The answer; a run that stops answers nothing more."""
        task = self.deployment.track(_coroutine(work))
        task.add_done_callback(_retrieved)
        stopping = asyncio.ensure_future(self.deployment.stopping.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not task.done():
            await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPED)
        try:
            answer: T = task.result()
        except BailError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPED)
        except UnsupportedError as error:
            self._tell(error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPED)
        except EngineError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return answer


class Engine(engine_pb2_grpc.EngineServicer):
    """Takes what programs and plugins say; nothing any more once the run is stopping."""

    def __init__(self, emit: Sink, stopping: asyncio.Event) -> None:
        self._emit = emit
        self._stopping = stopping
        self._root = ""

    async def Log(self, request: Message, context: Message) -> empty_pb2.Empty:
        severity = _SEVERITIES.get(request.severity, "info")
        if severity != "debug" and not self._stopping.is_set():
            self._emit(Diagnostic(severity, request.message, request.urn, request.streamId, request.ephemeral))
        return empty_pb2.Empty()

    async def GetRootResource(self, request: Message, context: Message) -> engine_pb2.GetRootResourceResponse:
        return engine_pb2.GetRootResourceResponse(urn=self._root)

    async def SetRootResource(self, request: Message, context: Message) -> engine_pb2.SetRootResourceResponse:
        self._root = request.urn
        return engine_pb2.SetRootResourceResponse()

    async def StartDebugging(self, request: Message, context: Message) -> NoReturn:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, str(UnsupportedError("attaching a debugger")))
        raise AssertionError  # abort has raised

    async def RequirePulumiVersion(self, request: Message, context: Message) -> engine_pb2.RequirePulumiVersionResponse:
        return engine_pb2.RequirePulumiVersionResponse()


@contextlib.asynccontextmanager
async def serving(add: Callable[[grpc.aio.Server], None]) -> AsyncIterator[str]:
    """A server on a free local port; the address."""
    server = grpc.aio.server(options=OPTIONS)
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=0)


def _response(
    request: resource_pb2.RegisterResourceRequest, goal: Goal, result: Result
) -> resource_pb2.RegisterResourceResponse:
    state = result.state
    outputs: Mapping[str, Any] = state.outputs if goal.custom else {}
    if not request.supportsPartialValues:
        outputs = {key: value for key, value in outputs.items() if not values.contains_unknown(value)}
    # In a preview an id that is not known yet is none.
    identity = "" if values.is_unknown(state.id) and not is_provider(goal.type) else state.id
    wire = Wire(secrets=request.acceptSecrets, resources=request.acceptResources)
    return resource_pb2.RegisterResourceResponse(
        urn=state.urn,
        id=identity,
        object=to_struct(dict(outputs), wire),
        result=_outcome(result),
        unknown=result.unknown,
    )


def _outcome(result: Result) -> Message:
    return resource_pb2.SUCCESS if result.outcome == "success" else resource_pb2.FAIL


async def _coroutine(work: Awaitable[T]) -> T:
    return await work


def _retrieved(task: "asyncio.Task[Any]") -> None:
    """Why it failed has been told; asyncio need not say it again."""
    if not task.cancelled():
        task.exception()
