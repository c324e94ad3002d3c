"""A provider's calls over gRPC: property values in, property values out, errors as one exception.

What a plugin does not understand (secrets, references, previews, unknown values) is taken care of here, so that the
rest of the engine need not ask.
"""

import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from embedded_engine import model, values
from embedded_engine.model import Properties
from embedded_engine.plugins.answers import (
    Diff,
    DiffUnavailableError,
    Failure,
    Protocol,
    ProviderError,
    State,
    diff_of,
    error_of,
)
from embedded_engine.values import Message, Wire, from_struct, to_struct

MESSAGE_LIMIT = 400 * 1024 * 1024
# Of errors: the state of what is there although it failed travels in the trailer. As the CLI's gRPC has it; the usual
# 16 KiB of this one would lose the error together with the state.
TRAILER_LIMIT = 16 * 1024 * 1024
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_metadata_size", TRAILER_LIMIT),
    ("grpc.absolute_max_metadata_size", TRAILER_LIMIT),
)
CANCEL_LIMIT_S = 5.0


class Provider:
    """A plugin that is running. `configured` is False while its configuration is not known (previews only)."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.protocol = Protocol()
        self.configured = True
        self._handshaken = False
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
        # The generated stubs are typed for the synchronous kind of channel.
        self._stub: Any = provider_pb2_grpc.ResourceProviderStub(self._channel)

    async def handshake(self, engine_address: str, folder: Path) -> None:
        """An old plugin that knows no Handshake says what it understands when it is configured."""
        request = provider_pb2.ProviderHandshakeRequest(
            engine_address=engine_address,
            root_directory=str(folder),
            program_directory=str(folder),
            configure_with_urn=True,
            supports_views=True,
            supports_refresh_before_update=True,
            invoke_with_preview=True,
            accepts_byte_string=True,
        )
        answer = await _if_known(self._stub.Handshake(request, wait_for_ready=True))
        if answer is not None:
            self._handshaken = True
            self.protocol = Protocol(answer.accept_secrets, answer.accept_resources, answer.accept_outputs, True)
        # As the CLI does at every start; some plugins count on it.
        await _if_known(self._stub.GetPluginInfo(empty_pb2.Empty()))

    async def close(self) -> None:
        await self.cancel()
        await self._channel.close(grace=None)

    async def cancel(self) -> None:
        """Asks it to give up what it is doing."""
        # It need not know the call, and may have ended.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._stub.Cancel(empty_pb2.Empty(), timeout=CANCEL_LIMIT_S)

    # configuration

    async def check_config(
        self, urn: str, olds: Properties, news: Properties, unknowns: bool
    ) -> tuple[Properties, list[Failure]]:
        wire = Wire(secrets=False, resources=False, unknowns=unknowns)
        request = provider_pb2.CheckRequest(
            **_about(urn),
            olds=to_struct(olds, wire),
            news=to_struct(news, wire),
        )
        answer = await _if_known(self._stub.CheckConfig(request))
        if answer is None:
            return news, []
        inputs = values.annotate_secrets(from_struct(answer.inputs), news)
        return inputs, [Failure(f.property, f.reason) for f in answer.failures]

    async def diff_config(self, urn: str, old_inputs: Properties, old_outputs: Properties, news: Properties) -> Diff:
        wire = Wire(secrets=False, resources=False)
        request = provider_pb2.DiffRequest(
            **_about(urn),
            olds=to_struct(old_outputs, wire),
            news=to_struct(news, wire),
            old_inputs=to_struct(old_inputs, wire),
        )
        answer = await _if_known(self._stub.DiffConfig(request))
        return Diff(None) if answer is None else diff_of(answer)

    async def configure(self, urn: str, identity: str, inputs: Properties) -> None:
        """With unknown values in the configuration it stays unconfigured: calls answer what is safe to assume."""
        inputs = {k: v for k, v in inputs.items() if k != "__internal"}
        self.configured = not values.contains_unknown(inputs)
        if not self.configured:
            return
        package = model.urn_type(urn).removeprefix("pulumi:providers:")
        variables = {f"{package}:config:{key}": _variable(value) for key, value in inputs.items() if key != "version"}
        request = provider_pb2.ConfigureRequest(
            variables=variables,
            args=to_struct(inputs),
            acceptSecrets=True,
            acceptResources=True,
            sends_old_inputs=True,
            sends_old_inputs_to_delete=True,
            id=identity,
            **_about(urn),
        )
        answer = await _if_known(self._stub.Configure(request)) or provider_pb2.ConfigureResponse()
        if not self._handshaken:
            self.protocol = Protocol(
                answer.acceptSecrets, answer.acceptResources, answer.acceptOutputs, answer.supportsPreview
            )

    # resources

    def _wire(self, unknowns: bool = True, elide_assets: bool = False) -> Wire:
        return Wire(self.protocol.secrets, self.protocol.resources, unknowns, elide_assets)

    async def check(
        self, urn: str, olds: Properties, news: Properties, seed: bytes, unknowns: bool
    ) -> tuple[Properties, list[Failure]]:
        if not self.configured:
            return news, []
        request = provider_pb2.CheckRequest(
            **_about(urn),
            olds=to_struct(olds, self._wire(unknowns)),
            news=to_struct(news, self._wire(unknowns)),
            randomSeed=seed,
        )
        answer = await self._call(self._stub.Check, request)
        inputs = from_struct(answer.inputs) if answer.HasField("inputs") else {}
        failures = [Failure(f.property, f.reason) for f in answer.failures]
        return self._annotated(inputs, news), failures

    async def diff(
        self,
        urn: str,
        identity: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
        ignore: Sequence[str],
        unknowns: bool,
    ) -> Diff:
        """Raises `DiffUnavailableError` where the configuration is not known."""
        if not self.configured:
            raise DiffUnavailableError(
                "The provider for this resource has inputs that are not known during preview.\n"
                "This preview may not correctly represent the changes that will be applied during an update."
            )
        wire = self._wire(unknowns, elide_assets=True)
        request = provider_pb2.DiffRequest(
            id=identity,
            **_about(urn),
            olds=to_struct(old_outputs, wire),
            news=to_struct(news, wire),
            old_inputs=to_struct(old_inputs, wire),
            ignoreChanges=list(ignore),
        )
        return diff_of(await self._call(self._stub.Diff, request))

    async def create(self, urn: str, inputs: Properties, timeout_s: float, preview: bool) -> State:
        """A provider that knows no previews is taken to answer with the inputs; one without its configuration, with
        nothing that is known.
        """
        if preview and not self.configured:
            return State("", {})
        if preview and not self.protocol.preview:
            return State("", inputs)
        request = provider_pb2.CreateRequest(
            **_about(urn),
            properties=to_struct(inputs, self._wire(preview)),
            timeout=timeout_s,
            preview=preview,
        )
        answer = await self._call(self._stub.Create, request, inputs)
        outputs = self._annotated(from_struct(answer.properties), inputs)
        return State(answer.id, outputs, refresh_before_update=answer.refresh_before_update)

    async def update(
        self,
        urn: str,
        identity: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
        timeout_s: float,
        ignore: Sequence[str],
        preview: bool,
    ) -> State:
        if preview and not self.configured:
            return State(identity, {})
        if preview and not self.protocol.preview:
            return State(identity, news)
        wire = self._wire(preview, elide_assets=True)
        request = provider_pb2.UpdateRequest(
            id=identity,
            **_about(urn),
            olds=to_struct(old_outputs, wire),
            news=to_struct(news, self._wire(preview)),
            old_inputs=to_struct(old_inputs, wire),
            timeout=timeout_s,
            ignoreChanges=list(ignore),
            preview=preview,
        )
        answer = await self._call(self._stub.Update, request, news)
        outputs = self._annotated(from_struct(answer.properties), news)
        return State(identity, outputs, refresh_before_update=answer.refresh_before_update)

    async def delete(self, urn: str, identity: str, inputs: Properties, outputs: Properties, timeout_s: float) -> None:
        wire = self._wire(unknowns=False, elide_assets=True)
        request = provider_pb2.DeleteRequest(
            id=identity,
            **_about(urn),
            properties=to_struct(outputs, wire),
            old_inputs=to_struct(inputs, wire),
            timeout=timeout_s,
        )
        await self._call(self._stub.Delete, request)

    async def read(self, urn: str, identity: str, inputs: Properties | None, state: Properties | None) -> State:
        """A resource that is not there has no id. `inputs` and `state` are None at an import."""
        if not self.configured:
            return State(identity, {}, {})
        wire = self._wire(elide_assets=True)
        request = provider_pb2.ReadRequest(
            id=identity,
            **_about(urn),
            properties=None if state is None else to_struct(state, wire),
            inputs=None if inputs is None else to_struct(inputs, wire),
        )
        answer = await self._call(self._stub.Read, request, inputs or {})
        found = answer.HasField("properties")
        return State(
            answer.id,
            self._annotated(from_struct(answer.properties), state or {}) if found else None,
            self._annotated(from_struct(answer.inputs), inputs or {}) if answer.HasField("inputs") else None,
            refresh_before_update=answer.refresh_before_update,
        )

    # functions and components

    async def invoke(self, token: str, args: Properties, preview: bool) -> tuple[Properties, list[Failure]]:
        if not self.configured:
            return {}, []
        request = provider_pb2.InvokeRequest(
            tok=token, args=to_struct(args, self._wire(unknowns=False)), preview=preview
        )
        answer = await self._call(self._stub.Invoke, request)
        result = from_struct(getattr(answer, "return"))
        if values.contains_secret(args) and not self.protocol.secrets:
            result = {key: values.secret(value) for key, value in result.items()}
        return result, [Failure(f.property, f.reason) for f in answer.failures]

    async def construct(self, request: provider_pb2.ConstructRequest) -> provider_pb2.ConstructResponse:
        answer: provider_pb2.ConstructResponse = await self._call(self._stub.Construct, request)
        return answer

    async def call(self, request: provider_pb2.CallRequest) -> provider_pb2.CallResponse:
        answer: provider_pb2.CallResponse = await self._call(self._stub.Call, request)
        return answer

    async def _call(self, method: Message, request: Message, inputs: Properties | None = None) -> Message:
        """`inputs`: what is secret among them is secret in what a failure tells, too."""
        try:
            return await method(request)
        except grpc.aio.AioRpcError as error:
            told = error_of(error)
            raise (told if inputs is None else self._with_secrets(told, inputs)) from error

    def _annotated(self, outs: Properties, ins: Properties) -> Properties:
        return outs if self.protocol.secrets else values.annotate_secrets(outs, ins)

    def _with_secrets(self, error: ProviderError, ins: Properties) -> ProviderError:
        if error.partial is None or error.partial.outputs is None or self.protocol.secrets:
            return error
        outputs = values.annotate_secrets(error.partial.outputs, ins)
        return ProviderError(error.message, dataclasses.replace(error.partial, outputs=outputs), error.properties)


def _about(urn: str) -> dict[str, Any]:
    """What every request on a resource says of it."""
    return {"urn": urn, "name": model.urn_name(urn), "type": model.urn_type(urn)}


async def _if_known(answer: Awaitable[Message]) -> Message | None:
    """The answer to a call that a plugin need not know; None from one that does not. Raises `ProviderError`."""
    try:
        return await answer
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise error_of(error) from error


def _variable(value: model.Value) -> str:
    plain = values.unwrap(value)
    return plain if isinstance(plain, str) else json.dumps(plain, separators=(",", ":"))
