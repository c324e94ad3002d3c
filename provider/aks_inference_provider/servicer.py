"""The provider protocol: components by the host that it extends, custom resources by `resources`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
import pulumi
from google.protobuf import empty_pb2, struct_pb2
from pulumi.provider.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2 as pb
from pulumi.runtime.proto import status_pb2

from aks_inference.program import GivenTarget, is_constructed, use_deployment
from aks_inference_provider.differences import Diff, top, without_ignored
from aks_inference_provider.errors import OperationCancelled, ProviderError, ResourcePartlyFailed
from aks_inference_provider.fields import Failure, did_you_mean
from aks_inference_provider.host import Host
from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources import RESOURCES
from aks_inference_provider.resources.base import Caution, Computed, CustomResource, Noting, Operation, Raw, State, Urn
from aks_inference_provider.wire import UNKNOWN, has_secret, plain, secret, to_raw, to_struct
from aks_inference_runtime.api.errors import AksInferenceError

Context = grpc.aio.ServicerContext[Any, Any]
_T = TypeVar("_T")

# What the engine itself puts among a provider's settings.
_ENGINE_SETTINGS = frozenset({"version", "pluginDownloadURL", "parameterization"})


class Servicer(ProviderServicer):
    """One process serves all components and custom resources of the package."""

    def __init__(self, host: Host, engine_address: str) -> None:
        super().__init__(host, sys.argv[1:], engine_address)
        self._log = EngineLog(engine_address)
        self._running: set[asyncio.Task[Any]] = set()

    # -- the process

    async def Handshake(self, request: pb.ProviderHandshakeRequest, context: Context) -> pb.ProviderHandshakeResponse:
        """The engine's address, and what kinds of values this plugin takes."""
        self.engine_address = request.engine_address or self.engine_address
        self._log.connect(self.engine_address)
        return pb.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True, accept_outputs=True)

    async def Cancel(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        """Ends the waits that are under way; each answers its own call."""
        for task in self._running:
            task.cancel()
        return empty_pb2.Empty()

    # -- settings: there are none

    async def CheckConfig(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        """Refuses every setting: credentials and targets travel with the resources."""
        names = [name for name in request.news if name not in _ENGINE_SETTINGS and not name.startswith("__")]
        return pb.CheckResponse(
            inputs=request.news,
            failures=[pb.CheckFailure(property=name, reason=did_you_mean(name, ())) for name in sorted(names)],
        )

    async def DiffConfig(self, request: pb.DiffRequest, context: Context) -> pb.DiffResponse:
        """No setting means no difference."""
        return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE)

    async def Configure(self, request: pb.ConfigureRequest, context: Context) -> pb.ConfigureResponse:
        """What kinds of values this plugin takes."""
        return pb.ConfigureResponse(acceptSecrets=True, acceptResources=True, acceptOutputs=True, supportsPreview=True)

    # -- components

    async def Construct(self, request: pb.ConstructRequest, context: Context) -> pb.ConstructResponse:
        """As the base class; a RunError is a message for the user and no crash."""
        use_deployment(request.monitorEndpoint, _given_target(request))
        try:
            answer: pb.ConstructResponse = await super().Construct(request, context)
        except pulumi.RunError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        is_constructed(answer.urn)
        return answer

    # -- custom resources

    async def Check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        """The inputs with their defaults, and everything wrong with them at once."""
        resource, urn = await self._resource(request.urn, context)
        checked = await self._run(context, resource.check(urn, to_raw(request.olds), to_raw(request.news)))
        inputs = marked(resource, checked.inputs)
        for note in checked.notes:
            self._log.send(urn.text, note, warning=isinstance(note, Caution), ephemeral=False)
        await self._log.flush()
        return pb.CheckResponse(inputs=to_struct(inputs), failures=[_failure(each) for each in checked.failures])

    async def Diff(self, request: pb.DiffRequest, context: Context) -> pb.DiffResponse:
        """What has to happen, property by property."""
        resource, _ = await self._resource(request.urn, context)
        state = _state(resource, request.id, request, request.olds)
        diff = await self._run(context, resource.diff(state, to_raw(request.news)))
        return _diff_response(without_ignored(diff, request.ignoreChanges))

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.CreateResponse:
        """Makes it; in a preview, what can be known of it."""
        resource, urn = await self._resource(request.urn, context)
        inputs = to_raw(request.properties)
        if request.preview:
            await self._note(context, resource, urn, inputs, None)
            return pb.CreateResponse(properties=_outputs(resource, inputs, resource.preview(inputs, None)))
        made = await self._change(
            context, resource, urn, inputs, lambda op: resource.create(op, inputs), request.timeout
        )
        return pb.CreateResponse(id=made.id, properties=_outputs(resource, inputs, made.computed))

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.UpdateResponse:
        """Makes it what the inputs say; in a preview, what can be known of it."""
        resource, urn = await self._resource(request.urn, context)
        inputs = to_raw(request.news)
        state = _state(resource, request.id, request, request.olds)
        if request.preview:
            await self._note(context, resource, urn, inputs, state)
            return pb.UpdateResponse(properties=_outputs(resource, inputs, resource.preview(inputs, state)))
        computed = await self._change(
            context, resource, urn, inputs, lambda op: resource.update(op, state, inputs), request.timeout
        )
        return pb.UpdateResponse(properties=_outputs(resource, inputs, computed))

    async def Read(self, request: pb.ReadRequest, context: Context) -> pb.ReadResponse:
        """As it really is; without an id where it is gone."""
        resource, urn = await self._resource(request.urn, context)
        state = State(request.id, to_raw(request.inputs), to_raw(request.properties))
        found = await self._change(
            context, resource, urn, state.inputs, lambda op: resource.read(op, state), request.timeout
        )
        if found is None:
            return pb.ReadResponse()
        return pb.ReadResponse(
            id=found.id,
            inputs=to_struct(marked(resource, found.inputs)),
            properties=_outputs(resource, found.inputs, found.outputs),
        )

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> empty_pb2.Empty:
        """Removes it."""
        resource, urn = await self._resource(request.urn, context)
        state = _state(resource, request.id, request, request.properties)
        await self._change(context, resource, urn, state.inputs, lambda op: resource.delete(op, state), request.timeout)
        return empty_pb2.Empty()

    # -- how

    async def _resource(self, text: str, context: Context) -> tuple[CustomResource, Urn]:
        urn = Urn.parse(text)
        resource = RESOURCES.get(urn.type)
        if resource is None:
            known = ", ".join(sorted(RESOURCES))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no custom resource {urn.type!r}; there are {known}")
        return resource, urn

    async def _note(
        self, context: Context, resource: CustomResource, urn: Urn, inputs: Raw, state: State | None
    ) -> None:
        if not isinstance(resource, Noting):
            return
        progress = Progress(self._log, urn.text)
        for note in await self._run(context, resource.notes(inputs, state)):
            (progress.warn if isinstance(note, Caution) else progress.info)(note)
        await progress.flush()

    async def _change(
        self,
        context: Context,
        resource: CustomResource,
        urn: Urn,
        inputs: Raw,
        effect: Callable[[Operation], Awaitable[_T]],
        timeout_s: float,
    ) -> _T:
        """Runs an effect as a task that Cancel can end."""
        progress = Progress(self._log, urn.text)
        try:
            return await self._run(context, effect(Operation(urn, progress, timeout_s)), resource, inputs)
        finally:
            await progress.flush()

    async def _run(
        self,
        context: Context,
        work: Awaitable[_T],
        resource: CustomResource | None = None,
        inputs: Raw | None = None,
    ) -> _T:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        try:
            return await task
        except ResourcePartlyFailed as error:
            assert resource is not None and inputs is not None  # noqa: S101, PT018 - only effects raise it
            await _abort_partly(context, resource, inputs, error)
        except (ProviderError, AksInferenceError) as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except asyncio.CancelledError:
            if not task.cancelled():
                # The call itself was given up, not the work: the engine is gone.
                task.cancel()
                raise
            await context.abort(grpc.StatusCode.CANCELLED, str(OperationCancelled("cancelled")))
        finally:
            self._running.discard(task)


def _given_target(request: pb.ConstructRequest) -> GivenTarget:
    """Of a component that is placed on one."""
    target = to_raw(request.inputs).get("target")
    text = plain(target)
    urns = request.inputDependencies["target"].urns if "target" in request.inputDependencies else ()
    known = text if isinstance(text, str) and text != UNKNOWN else None
    return GivenTarget(known, has_secret(target), frozenset(urns))


def marked(resource: CustomResource, raw: Raw) -> dict[str, Any]:
    """The properties, with those as secrets that the resource declares so."""
    hidden = {field.name for field in (*resource.inputs, *resource.outputs) if field.secret}
    return {key: secret(value) if key in hidden and value is not None else value for key, value in raw.items()}


def _outputs(resource: CustomResource, inputs: Raw, computed: Computed) -> struct_pb2.Struct:
    return to_struct(marked(resource, {**inputs, **computed}))


def _state(
    resource: CustomResource,
    resource_id: str,
    request: pb.DiffRequest | pb.UpdateRequest | pb.DeleteRequest,
    outputs: struct_pb2.Struct,
) -> State:
    """The old state; engines that do not send old inputs have them among the outputs."""
    olds = to_raw(outputs)
    names = {field.name for field in resource.inputs}
    inputs = (
        to_raw(request.old_inputs) if request.HasField("old_inputs") else {k: v for k, v in olds.items() if k in names}
    )
    return State(resource_id, inputs, olds, request.urn)


def _failure(failure: Failure) -> pb.CheckFailure:
    return pb.CheckFailure(property=failure.path, reason=failure.reason)


def _diff_response(diff: Diff) -> pb.DiffResponse:
    if not diff.properties:
        return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE, deleteBeforeReplace=diff.delete_before_replace)
    detailed: Mapping[str, pb.PropertyDiff] = {
        path: pb.PropertyDiff(
            kind=pb.PropertyDiff.Kind.Value(f"{each.change}_REPLACE" if each.replaces else str(each.change)),
            inputDiff=each.of_input,
        )
        for path, each in diff.properties.items()
    }
    return pb.DiffResponse(
        changes=pb.DiffResponse.DIFF_SOME,
        diffs=sorted({top(path) for path in diff.properties}),
        replaces=sorted({top(path) for path, each in diff.properties.items() if each.replaces}),
        deleteBeforeReplace=diff.delete_before_replace,
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )


async def _abort_partly(
    context: Context, resource: CustomResource, inputs: Raw, error: ResourcePartlyFailed
) -> NoReturn:
    """ErrorResourceInitFailed: it exists, under this id, but it is not well."""
    detail = pb.ErrorResourceInitFailed(
        id=error.resource_id,
        properties=_outputs(resource, inputs, error.computed),
        inputs=to_struct(marked(resource, inputs)),
        reasons=[error.reason],
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=error.reason)
    status.details.add().Pack(detail)
    await context.abort(
        grpc.StatusCode.UNKNOWN,
        error.reason.splitlines()[0],
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )
    raise AssertionError("abort raises")
