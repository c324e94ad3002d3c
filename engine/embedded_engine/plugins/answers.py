"""What a provider answers: states, comparisons, failures, and the one error that a call can end with."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from pulumi.runtime.proto import errors_pb2, provider_pb2, status_pb2

from embedded_engine.errors import EngineError
from embedded_engine.events import PropertyDiff
from embedded_engine.model import Properties
from embedded_engine.values import from_struct

_KINDS = ("add", "add-replace", "delete", "delete-replace", "update", "update-replace")


class ProviderError(EngineError):
    """A call failed. `partial` holds what is there although it failed (ErrorResourceInitFailed).

    `lost`: the connection broke, so whether the call did anything is not known.
    """

    def __init__(
        self,
        message: str,
        partial: "State | None" = None,
        properties: Sequence[tuple[str, str]] = (),
        lost: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.partial = partial
        self.properties = tuple(properties)
        self.lost = lost


class DiffUnavailableError(EngineError):
    """The provider's configuration is not known yet, so it cannot compare."""


@dataclasses.dataclass(frozen=True)
class State:
    """What a resource is after Create, Update or Read. `inputs` is None where the provider said nothing of them."""

    id: str
    outputs: Properties | None
    inputs: Properties | None = None
    reasons: tuple[str, ...] = ()
    refresh_before_update: bool = False


@dataclasses.dataclass(frozen=True)
class Failure:
    property: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Diff:
    """`changes` is None where the provider cannot say; `detailed` is None where it gives no details."""

    changes: bool | None
    replaces: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    stables: tuple[str, ...] = ()
    delete_before_replace: bool = False
    detailed: Mapping[str, PropertyDiff] | None = None

    @property
    def replace(self) -> bool:
        detailed = (self.detailed or {}).values()
        return bool(self.replaces) or any(d.kind.endswith("-replace") for d in detailed)


@dataclasses.dataclass(frozen=True)
class Protocol:
    secrets: bool = False
    resources: bool = False
    outputs: bool = False
    preview: bool = False


def diff_of(answer: provider_pb2.DiffResponse) -> Diff:
    changes = {
        provider_pb2.DiffResponse.DIFF_UNKNOWN: None,
        provider_pb2.DiffResponse.DIFF_NONE: False,
        provider_pb2.DiffResponse.DIFF_SOME: True,
    }[answer.changes]
    detailed = (
        {path: PropertyDiff(_KINDS[entry.kind], entry.inputDiff) for path, entry in answer.detailedDiff.items()}
        if answer.hasDetailedDiff
        else None
    )
    return Diff(
        changes,
        tuple(answer.replaces),
        tuple(answer.diffs),
        tuple(answer.stables),
        answer.deleteBeforeReplace,
        detailed,
    )


def error_of(error: grpc.aio.AioRpcError) -> ProviderError:
    message = error.details() or ""
    partial: State | None = None
    properties: list[tuple[str, str]] = []
    for detail in _details(error):
        if detail.Is(provider_pb2.ErrorResourceInitFailed.DESCRIPTOR):
            failed = provider_pb2.ErrorResourceInitFailed()
            detail.Unpack(failed)
            reasons = tuple(failed.reasons)
            partial = State(
                failed.id,
                from_struct(failed.properties) if failed.HasField("properties") else None,
                from_struct(failed.inputs) if failed.HasField("inputs") else None,
                reasons,
                failed.refresh_before_update,
            )
            message = init_message(reasons)
        elif detail.Is(errors_pb2.InputPropertiesError.DESCRIPTOR):
            listed = errors_pb2.InputPropertiesError()
            detail.Unpack(listed)
            properties += [(e.property_path, e.reason) for e in listed.errors]
        elif detail.Is(errors_pb2.ErrorCause.DESCRIPTOR):
            cause = errors_pb2.ErrorCause()
            detail.Unpack(cause)
            message = f"{message}: {cause.message}"
        elif detail.Is(provider_pb2.ConfigureErrorMissingKeys.DESCRIPTOR):
            missing = provider_pb2.ConfigureErrorMissingKeys()
            detail.Unpack(missing)
            message += "".join(
                f"\n* missing required configuration {k.name}: {k.description}" for k in missing.missingKeys
            )
    lost = error.code() == grpc.StatusCode.UNAVAILABLE
    if lost:
        message = f"the plugin has ended or cannot be reached: {message}"
    return ProviderError(message, partial, properties, lost)


def _details(error: grpc.aio.AioRpcError) -> list[Any]:
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            status = status_pb2.Status()
            try:
                status.ParseFromString(value if isinstance(value, bytes) else value.encode())
            except DecodeError:
                return []
            return list(status.details)
    return []


def init_message(reasons: Sequence[str]) -> str:
    """The text for a resource that exists but is not well."""
    if not reasons:
        return "resource init failed"
    count = f"{len(reasons)} error{'s' if len(reasons) > 1 else ''} occurred:"
    return count + "".join(f"\n\t* {reason}" for reason in reasons) + "\n\n"
