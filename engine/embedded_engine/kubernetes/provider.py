"""The provider protocol over the operations."""

import asyncio
import os
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2_grpc, status_pb2
from pulumi.runtime.proto import provider_pb2 as pb

from embedded_engine import model, values
from embedded_engine.errors import EngineError
from embedded_engine.kubernetes import clusters, objects, operations
from embedded_engine.kubernetes.client import Client
from embedded_engine.kubernetes.errors import KubernetesError, RefusedError, UnknownKindError, UnreachableError
from embedded_engine.kubernetes.kubeconfig import connection
from embedded_engine.kubernetes.operations import NotReadyError, Target
from embedded_engine.kubernetes.telling import Log
from embedded_engine.model import Properties
from embedded_engine.values import from_struct, to_struct

T = TypeVar("T")
# gRPC's generated types say nothing to a checker.
Context = grpc.aio.ServicerContext[Any, Any]

_SETTINGS = ("kubeconfig", "context", "cluster", "namespace")
_KNOWN_SETTINGS = frozenset((*_SETTINGS, "version", "enableServerSideApply", "pluginDownloadURL"))
_UNPROCESSABLE = 422
_FORGETS = "PULUMI_K8S_DELETE_UNREACHABLE"
"""The official plugin's: what was on a cluster that does not answer goes from the state."""


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """One configured provider."""

    def __init__(self, engine_address: str) -> None:
        self._log = Log(engine_address)
        self._client: Client | None = None
        self._namespace = "default"
        self._moves = clusters.Moves()
        self._running: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            await self._client.close()

    # -- the process

    async def Handshake(self, request: pb.ProviderHandshakeRequest, context: Context) -> pb.ProviderHandshakeResponse:
        self._log.engine = request.engine_address or self._log.engine
        return pb.ProviderHandshakeResponse(accept_secrets=True)

    async def GetPluginInfo(self, request: empty_pb2.Empty, context: Context) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version="")

    async def Cancel(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        for task in self._running:
            task.cancel()
        return empty_pb2.Empty()

    # -- configuration

    async def CheckConfig(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        """What this provider does not know it refuses: a setting that does nothing would be worse."""
        failures = [
            pb.CheckFailure(property=name, reason=f"needs the official plugin; without it: {', '.join(_SETTINGS)}")
            for name in sorted(request.news)
            if name not in _KNOWN_SETTINGS and not name.startswith("__")
        ]
        if values.unwrap(from_struct(request.news)).get("enableServerSideApply") in (False, "false"):
            reason = "this provider applies on the server only; use the official plugin for the other way"
            failures.append(pb.CheckFailure(property="enableServerSideApply", reason=reason))
        return pb.CheckResponse(inputs=request.news, failures=failures)

    async def DiffConfig(self, request: pb.DiffRequest, context: Context) -> pb.DiffResponse:
        """Another cluster is another provider, with all that it has; another way to the same one changes nothing."""
        old, new = values.unwrap(from_struct(request.old_inputs)), values.unwrap(from_struct(request.news))
        changed = [name for name, _ in objects.differences(old, new)]
        places = [name for name in changed if name in clusters.SETTINGS]
        replaces = places if places and await self._is_elsewhere(request.urn, old, new) else []
        kind = pb.DiffResponse.DIFF_SOME if changed else pb.DiffResponse.DIFF_NONE
        return pb.DiffResponse(changes=kind, diffs=changed, replaces=replaces)

    async def _is_elsewhere(self, urn: str, old: Properties, new: Properties) -> bool:
        if values.contains_unknown(old) or values.contains_unknown(new):
            return False
        before, now = (clusters.reached(given, os.environ) for given in (old, new))
        if before is None or now is None:
            return False
        namespaces = [str(given["namespace"]) for given in (new, old) if given.get("namespace")]
        move = await self._moves.of(before, now, namespaces)
        if move is clusters.Move.UNCERTAIN:
            await self._log.warn(
                urn,
                f"{now.server} has another certificate authority, and the cluster before cannot be asked: it is taken "
                "for the same one; if it was made anew, `up --refresh` applies everything there",
            )
        if move is clusters.Move.UNKNOWN:
            await self._log.warn(
                urn,
                f"{before.server} and {now.server} may be one cluster or two, which the users of the kubeconfigs may "
                "not see: they are taken for one; let both of them read the namespace kube-system, whose uid tells; if "
                "they are two, destroy the stack with the kubeconfig before first, or, where that cluster is gone, "
                "`up --refresh` applies everything there",
            )
        return move is clusters.Move.OTHER

    async def Configure(self, request: pb.ConfigureRequest, context: Context) -> pb.ConfigureResponse:
        given = values.unwrap(from_struct(request.args))
        kubeconfig, name, cluster, namespace = (given.get(key) or None for key in _SETTINGS)
        try:
            where = connection(kubeconfig, name, cluster, os.environ)
        except KubernetesError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._client = Client(where)
        self._namespace = namespace or where.namespace
        return pb.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    # -- resources

    async def Check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        news = values.plain_outputs(from_struct(request.news))
        try:
            olds = from_struct(request.olds)
            namespace = await self._usual_namespace(request.urn, olds, news)
            checked = objects.completed(request.urn, olds, news, namespace, request.randomSeed)
        except KubernetesError as error:
            return pb.CheckResponse(inputs=request.news, failures=[pb.CheckFailure(reason=str(error))])
        return pb.CheckResponse(inputs=to_struct(checked))

    async def _usual_namespace(self, urn: str, olds: Properties, news: Properties) -> str:
        """For an object that the program puts in none; empty: the kind has no namespaces, or it stays as it is."""
        if self._namespace == "default" or objects.namespace_of(values.unwrap(news)):
            return ""
        try:
            kind = await self.client.kind(*objects.of_token(model.urn_type(urn)))
        except UnknownKindError:
            return objects.namespace_of(values.unwrap(olds))
        return self._namespace if kind.namespaced else ""

    async def _ignores_namespace(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether a namespace differs that means nothing: states from before hold them."""
        if objects.namespace_of(old) == objects.namespace_of(new):
            return False
        try:
            return not (await self.client.kind(new["apiVersion"], new["kind"])).namespaced
        except UnknownKindError:
            return False

    async def Diff(self, request: pb.DiffRequest, context: Context) -> pb.DiffResponse:
        old, new = from_struct(request.old_inputs), from_struct(request.news)
        plain_old, plain_new = objects.manifest(old), objects.manifest(new)
        if await self._run(context, self._ignores_namespace(plain_old, plain_new)):
            plain_old, plain_new = objects.without_namespace(plain_old), objects.without_namespace(plain_new)
        found = dict(objects.differences(plain_old, plain_new))
        for ignored in request.ignoreChanges:
            below = (f"{ignored}.", f"{ignored}[")
            found = {path: kind for path, kind in found.items() if path != ignored and not path.startswith(below)}
        if not found:
            return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE)
        replaces = objects.unchangeable(plain_old, plain_new)
        if not replaces and not values.contains_unknown(new):
            replaces = await self._run(context, self._refused(plain_new, request.urn))
        detailed = {
            path: pb.PropertyDiff(kind=_kind(kind, any(path.startswith(r) for r in replaces)), inputDiff=True)
            for path, kind in found.items()
        }
        # Nothing of the old name may be left when its name is taken again.
        same = objects.identity(plain_old, True) == objects.identity(plain_new, True)
        return pb.DiffResponse(
            changes=pb.DiffResponse.DIFF_SOME,
            diffs=sorted({path.split(".")[0].split("[")[0] for path in found}),
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and same,
            detailedDiff=detailed,
            hasDetailedDiff=True,
        )

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.CreateResponse:
        inputs, manager = from_struct(request.properties), objects.manager_of(request.urn)
        live = await self._change(context, request, inputs, manager)
        state = to_struct(objects.outputs(live, inputs, manager, preview=request.preview))
        identity = "" if request.preview else (await self._target(live)).id
        return pb.CreateResponse(id=identity, properties=state)

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.UpdateResponse:
        inputs, manager = from_struct(request.news), _manager(request.urn, from_struct(request.olds))
        live = await self._change(context, request, inputs, manager)
        return pb.UpdateResponse(properties=to_struct(objects.outputs(live, inputs, manager, preview=request.preview)))

    async def Read(self, request: pb.ReadRequest, context: Context) -> pb.ReadResponse:
        return await self._run(context, self._read(request))

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> empty_pb2.Empty:
        outputs = objects.manifest(from_struct(request.properties))

        async def remove() -> None:
            try:
                served = await operations.served_version(self.client, outputs["apiVersion"], outputs["kind"])
                if not served:
                    return
                target = await self._target({**outputs, "apiVersion": served}, request.id)
                await operations.delete(self.client, outputs, target, request.timeout, self._log.teller(request.urn))
            except UnreachableError as error:
                if os.environ.get(_FORGETS) != "true":
                    raise UnreachableError(f"{error}; if that cluster is gone: {_FORGETS}=true") from error
                await self._log.warn(request.urn, f"taken for gone: {error}")

        await self._run(context, remove())
        return empty_pb2.Empty()

    async def Invoke(self, request: pb.InvokeRequest, context: Context) -> pb.InvokeResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{request.tok} needs the official plugin")

    # -- how

    @property
    def client(self) -> Client:
        """Once configured."""
        assert self._client is not None  # noqa: S101 - the engine configures before it calls
        return self._client

    async def _target(self, live: dict[str, Any], identity: str = "") -> Target:
        target = await operations.target_of(self.client, live)
        if identity:
            namespace, name = objects.of_identity(identity)
            return Target(target.kind, namespace or target.namespace, name)
        return target

    async def _change(
        self, context: Context, request: pb.CreateRequest | pb.UpdateRequest, inputs: Properties, manager: str
    ) -> dict[str, Any]:
        return await self._run(context, self._applied(request, inputs, manager), inputs, manager)

    async def _applied(
        self, request: pb.CreateRequest | pb.UpdateRequest, inputs: Properties, manager: str
    ) -> dict[str, Any]:
        plain = objects.manifest(inputs)
        if request.preview:
            try:
                return await self._previewed(request.urn, inputs, plain, manager)
            except RefusedError as error:
                if error.status != _UNPROCESSABLE or not isinstance(request, pb.CreateRequest):
                    raise
                return await self._previewed_beside(plain, manager, error)
        tell = self._log.teller(request.urn)
        live = await operations.apply_anew(self.client, plain, manager, request.timeout, tell)
        return await operations.until_ready(self.client, live, request.timeout, tell)

    async def _previewed(self, urn: str, inputs: Properties, plain: dict[str, Any], manager: str) -> dict[str, Any]:
        """What the server would make of it; the inputs where it cannot know yet."""
        if values.contains_unknown(inputs):
            return plain
        try:
            return await operations.apply(self.client, plain, manager, dry_run=True)
        except UnknownKindError:
            # Its definition may be made in the same run.
            return plain
        except RefusedError as error:
            # So may its namespace.
            if error.status == 404:
                return plain
            # So may its definition change, by another provider: this one need not see it.
            if error.undeclared and objects.is_custom(plain["apiVersion"]):
                await self._log.warn(
                    urn,
                    f"not known yet: the definition of {plain['kind']} in the cluster does not have the field "
                    f"{error.undeclared}; if this run does not change the definition, it is refused when it is applied",
                )
                return plain
            raise

    async def _previewed_beside(self, plain: dict[str, Any], manager: str, refused: RefusedError) -> dict[str, Any]:
        """A replacement, while the old object still has the name: judged under another name."""
        if await self.client.read((await self._target(plain)).path) is None:
            raise refused
        beside = {**plain, "metadata": {**plain["metadata"], "name": objects.beside(objects.name_of(plain))}}
        made = await operations.apply(self.client, beside, manager, dry_run=True)
        return {**made, "metadata": {**made["metadata"], "name": objects.name_of(plain)}}

    async def _refused(self, plain: dict[str, Any], urn: str) -> list[str]:
        """Fields that the server says cannot change."""
        try:
            await operations.apply(self.client, plain, objects.manager_of(urn), dry_run=True)
        except UnknownKindError:
            return []
        except RefusedError as error:
            if error.status != _UNPROCESSABLE:
                # The update itself says it, with its own manager.
                return []
            return [field for field, message in error.causes if "immutable" in message or "may not change" in message]
        return []

    async def _read(self, request: pb.ReadRequest) -> pb.ReadResponse:
        state, inputs = from_struct(request.properties), from_struct(request.inputs)
        version, kind = objects.of_token(model.urn_type(request.urn))
        namespace, name = objects.of_identity(request.id)
        if not await operations.served_version(self.client, version, kind):
            return pb.ReadResponse()
        # Of another version it would not be what the program declares.
        target = Target(await self.client.kind(version, kind), namespace or "default", name)
        live = await self.client.read(target.path)
        if live is None:
            return pb.ReadResponse()
        manager = _manager(request.urn, state)
        if inputs:
            # As if applied with force: what somebody else changed since is seen as a difference.
            plain = objects.manifest(inputs)
            try:
                wanted = await self.client.apply(target.path, plain, manager, force=True, dry_run=True)
            except RefusedError as error:
                if not error.undeclared:
                    raise
                # Of another definition: what it would give is not known, so neither is a difference.
                wanted = live
            inputs = objects.drifted(inputs, wanted, live)
        else:
            inputs = _imported(live)
        outputs = objects.outputs(live, inputs, manager)
        return pb.ReadResponse(id=request.id, properties=to_struct(outputs), inputs=to_struct(inputs))

    async def _run(
        self, context: Context, work: Awaitable[T], inputs: Properties | None = None, manager: str = ""
    ) -> T:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        try:
            return await task
        except NotReadyError as error:
            target = await self._target(error.live)
            await _abort_partly(context, target.id, error, inputs or {}, manager)
        except EngineError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except asyncio.CancelledError:
            if not task.cancelled():
                task.cancel()
                raise
            await context.abort(grpc.StatusCode.CANCELLED, "cancelled")
        finally:
            self._running.discard(task)


def _manager(urn: str, state: Properties) -> str:
    """The one that it was made with; the official plugin's are random."""
    kept = values.unwrap(state.get("__fieldManager"))
    return kept if isinstance(kept, str) and kept else objects.manager_of(urn)


def _imported(live: dict[str, Any]) -> Properties:
    """Inputs for an object that the program adopts: what is declared, without what the server adds."""
    metadata = {key: live["metadata"][key] for key in ("name", "namespace", "labels") if key in live["metadata"]}
    return {**{key: value for key, value in live.items() if key not in ("status", "metadata")}, "metadata": metadata}


def _kind(change: str, replaces: bool) -> pb.PropertyDiff.Kind.ValueType:
    return pb.PropertyDiff.Kind.Value(f"{change.upper()}_REPLACE" if replaces else change.upper())


async def _abort_partly(
    context: Context, identity: str, error: NotReadyError, inputs: Properties, manager: str
) -> NoReturn:
    """It exists, under this id, but it is not well."""
    detail = pb.ErrorResourceInitFailed(
        id=identity,
        properties=to_struct(objects.outputs(error.live, inputs, manager)),
        inputs=to_struct(inputs),
        reasons=[str(error)],
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
    status.details.add().Pack(detail)
    await context.abort(
        grpc.StatusCode.UNKNOWN,
        str(error).splitlines()[0],
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )
    raise AssertionError("abort raises")
