"""Components that a plugin builds, the methods on them, and what resources have from their parents."""

from collections.abc import Mapping
from pathlib import Path

from pulumi.runtime.proto import provider_pb2, resource_pb2

from embedded_engine import values
from embedded_engine.deploy import requests
from embedded_engine.deploy.builtin import Builtin
from embedded_engine.deploy.cells import package_of, package_of_urn, split_reference
from embedded_engine.deploy.deployment import Deployment
from embedded_engine.deploy.goals import Goal
from embedded_engine.deploy.paths import lookup
from embedded_engine.deploy.registration import BailError
from embedded_engine.deploy.requests import Wanted
from embedded_engine.errors import EngineError
from embedded_engine.events import Diagnostic
from embedded_engine.model import Properties
from embedded_engine.paths import PathError, parse
from embedded_engine.plugins.answers import ProviderError
from embedded_engine.plugins.client import Provider
from embedded_engine.values import Message, Wire, from_struct, to_struct


class Constructor:
    """Knows the goals of the resources that are there, and the providers that components hand to their children."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self._deployment = deployment
        self._folder = folder
        self._goals: dict[str, Goal] = {}
        self._providers: dict[str, Mapping[str, str]] = {}

    # -- parents

    def registered(self, urn: str, goal: Goal, providers: Mapping[str, str]) -> None:
        self._goals[urn] = goal
        if not goal.custom:
            self._providers[urn] = providers

    def inherited(self, request: Message) -> Wanted:
        """What the request says, completed from the parent."""
        protect = request.protect if request.HasField("protect") else None
        retain = request.retainOnDelete if request.HasField("retainOnDelete") else None
        deleted_with = request.deletedWith
        provider = request.provider
        parent = self._goals.get(request.parent)
        if parent is not None:
            protect = parent.protect if protect is None else protect
            retain = parent.retain_on_delete if retain is None else retain
            deleted_with = deleted_with or parent.deleted_with
            if not provider and parent.provider:
                own = package_of_urn(split_reference(parent.provider)[0]) == package_of(request.type)
                provider = parent.provider if own and (request.custom or request.remote) else ""
        providers = dict(request.providers)
        if request.custom or request.remote:
            provider = self.resolve_provider(provider, providers, request.parent, package_of(request.type))
        if not request.custom:
            providers = {**self._providers.get(request.parent, {}), **providers}
        return Wanted(provider, providers, protect, retain, deleted_with)

    def resolve_provider(self, given: str, providers: Mapping[str, str], parent: str, package: str) -> str:
        return given or providers.get(package) or self._providers.get(parent, {}).get(package, "")

    # -- components

    async def construct(
        self,
        request: resource_pb2.RegisterResourceRequest,
        properties: Properties,
        reference: str,
        wanted: Wanted,
        monitor: str,
    ) -> resource_pb2.RegisterResourceResponse:
        deployment = self._deployment
        provider = deployment.registry.require(reference, request.name)
        if isinstance(provider, Builtin):
            raise EngineError(f"the provider of {request.type} builds no components")
        by_property = requests.property_dependencies(request, properties)
        if not provider.configured:
            # Its configuration is not known yet: the component is shown, and nothing of what is in it.
            goal = Goal(type=request.type, name=request.name, custom=False, properties={}, parent=request.parent)
            result = await deployment.register(goal)
            return resource_pb2.RegisterResourceResponse(urn=result.state.urn)
        message = self._construct_request(request, properties, wanted, by_property, provider, monitor)
        try:
            answer = await provider.construct(message)
        except ProviderError as error:
            if deployment.stopping.is_set():
                raise BailError(error.message) from error
            self._tell(request, error, properties)
            deployment.fail()
            raise BailError(error.message) from error
        state = values.plain_outputs(from_struct(answer.state))
        response = resource_pb2.RegisterResourceResponse(
            urn=answer.urn, object=to_struct(state, Wire(request.acceptSecrets, request.acceptResources))
        )
        raw = from_struct(answer.state)
        for key in raw:
            urns = set(answer.stateDependencies[key].urns) if key in answer.stateDependencies else set()
            urns |= values.output_dependencies(raw[key])
            response.propertyDependencies[key].urns.extend(sorted(urns))
        self._providers[answer.urn] = wanted.providers
        return response

    def _construct_request(
        self,
        request: resource_pb2.RegisterResourceRequest,
        properties: Properties,
        wanted: Wanted,
        by_property: Mapping[str, tuple[str, ...]],
        provider: Provider,
        monitor: str,
    ) -> provider_pb2.ConstructRequest:
        options = self._deployment.options
        if provider.protocol.outputs:
            sent = {key: values.as_output_values(value, by_property.get(key, ())) for key, value in properties.items()}
        else:
            sent = values.plain_outputs(properties)
        message = provider_pb2.ConstructRequest(
            project=options.project,
            stack=options.stack,
            organization=options.organization,
            config=dict(options.config),
            configSecretKeys=sorted(options.secret_keys),
            dryRun=options.dry_run,
            parallel=options.parallel,
            monitorEndpoint=monitor,
            type=request.type,
            name=request.name,
            parent=request.parent,
            inputs=to_struct(sent, Wire(provider.protocol.secrets, provider.protocol.resources)),
            inputDependencies={
                key: provider_pb2.ConstructRequest.PropertyDependencies(urns=by_property.get(key, ()))
                for key in by_property
            },
            providers=wanted.providers,
            dependencies=sorted(request.dependencies),
            additionalSecretOutputs=list(request.additionalSecretOutputs),
            deletedWith=wanted.deleted_with,
            ignoreChanges=list(request.ignoreChanges),
            replaceOnChanges=list(request.replaceOnChanges),
            replace_with=list(request.replace_with),
            aliases=[*request.aliases],
            accepts_output_values=True,
        )
        if wanted.protect is not None:
            message.protect = wanted.protect
        if wanted.retain_on_delete is not None:
            message.retainOnDelete = wanted.retain_on_delete
        if request.deleteBeforeReplaceDefined or request.deleteBeforeReplace:
            message.deleteBeforeReplace = request.deleteBeforeReplace
        if request.HasField("customTimeouts"):
            for name in ("create", "update", "delete", "read"):
                setattr(message.customTimeouts, name, getattr(request.customTimeouts, name))
        return message

    def _tell(
        self, request: resource_pb2.RegisterResourceRequest, error: ProviderError, properties: Properties
    ) -> None:
        """One message for the component, with a line for each input that is wrong."""
        message = error.message
        for where, reason in error.properties:
            try:
                known, value = lookup(parse(where), values.plain_outputs(properties))
            except PathError:
                known, value = False, None
            shown = f" with value '{values.describe(value)}'" if known else ""
            message += f"\n\t\t- property {where}{shown} has a problem: {reason}"
        text = f"{request.type} resource '{request.name}' has a problem: {message}"
        self._deployment.emit(Diagnostic("error", text))

    # -- methods

    def caller_provider(self, request: resource_pb2.ResourceCallRequest) -> str:
        """The provider of the resource that the method is called on; empty where the request does not say."""
        args = from_struct(request.args)
        self_reference = args.get("__self__")
        if request.tok.startswith("pulumi:providers:") and isinstance(self_reference, dict):
            return f"{self_reference.get('urn')}::{values.unwrap(self_reference.get('id'))}"
        if request.provider:
            return request.provider
        if isinstance(self_reference, dict):
            goal = self._goals.get(str(self_reference.get("urn")))
            return goal.provider if goal else ""
        return ""

    async def call(
        self, request: resource_pb2.ResourceCallRequest, reference: str, monitor: str
    ) -> provider_pb2.CallResponse:
        options = self._deployment.options
        provider = self._deployment.registry.require(reference, request.tok)
        if isinstance(provider, Builtin):
            raise EngineError(f"the provider of {request.tok} has no methods")
        dependencies = {key: list(entry.urns) for key, entry in request.argDependencies.items()}
        args = from_struct(request.args)
        if provider.protocol.outputs:
            args = {
                key: value if key == "__self__" else values.as_output_values(value, dependencies.get(key, ()))
                for key, value in args.items()
            }
        message = provider_pb2.CallRequest(
            tok=request.tok,
            args=to_struct(args, Wire(provider.protocol.secrets, provider.protocol.resources)),
            argDependencies={
                key: provider_pb2.CallRequest.ArgumentDependencies(urns=urns) for key, urns in dependencies.items()
            },
            project=options.project,
            stack=options.stack,
            organization=options.organization,
            config=dict(options.config),
            configSecretKeys=sorted(options.secret_keys),
            dryRun=options.dry_run,
            parallel=options.parallel,
            monitorEndpoint=monitor,
            accepts_output_values=True,
        )
        try:
            return await provider.call(message)
        except ProviderError as error:
            raise EngineError(f"call to function '{request.tok}' failed: {error.message}") from error
