"""What a run tells: resources that begin, end or fail, messages, and the summary.

`to_json` gives the shape of the CLI's `--json` event lines; `Digest` collects the object that `preview --json` prints.
Events carry resources as they were at that moment; secrets are shown as `[secret]` in JSON.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedded_engine import model, values
from embedded_engine.model import Json, Resource

DEFAULT_PROVIDER = "pulumi:providers:"
STACK_TYPE = "pulumi:pulumi:Stack"
_REPLACEMENT_HALVES = (
    "create-replacement",
    "delete-replaced",
    "discard-replaced",
    "import-replacement",
    "read-replacement",
)


@dataclasses.dataclass(frozen=True)
class PropertyDiff:
    """`kind` is `add`, `delete` or `update`, with `-replace` where it forces a replacement."""

    kind: str
    input_diff: bool = False


@dataclasses.dataclass(frozen=True)
class StepMetadata:
    """A step as it is reported. `keys` forced a replacement, `diffs` are the top-level properties that changed.

    `op`: same, create, update, delete, replace, create-replacement, delete-replaced, read, read-replacement, refresh,
    discard, discard-replaced, import, import-replacement. `logical` is false for the halves of a replacement.
    """

    op: str
    urn: str
    type: str
    old: Resource | None
    new: Resource | None
    provider: str = ""
    keys: Sequence[str] = ()
    diffs: Sequence[str] = ()
    detailed_diff: Mapping[str, PropertyDiff] | None = None
    logical: bool = True

    def to_json(self) -> Json:
        metadata: Json = {"op": self.op, "urn": self.urn, "type": self.type}
        metadata["old"] = state_json(self.old)
        metadata["new"] = state_json(self.new)
        if self.keys:
            metadata["keys"] = list(self.keys)
        if self.diffs:
            metadata["diffs"] = list(self.diffs)
        # An empty object is the CLI's form of "the provider gave details, and there are none".
        metadata["detailedDiff"] = detailed_json(self.detailed_diff, "diffKind")
        if self.logical:
            metadata["logical"] = True
        metadata["provider"] = self.provider
        return metadata


@dataclasses.dataclass(frozen=True)
class ResourcePre:
    """A step begins."""

    metadata: StepMetadata
    planning: bool = False

    def to_json(self) -> Json:
        return {"resourcePreEvent": _planned(self.metadata, self.planning)}


@dataclasses.dataclass(frozen=True)
class ResourceOutputs:
    """A step has ended well; of a component: its outputs are known."""

    metadata: StepMetadata
    planning: bool = False

    def to_json(self) -> Json:
        return {"resOutputsEvent": _planned(self.metadata, self.planning)}


@dataclasses.dataclass(frozen=True)
class ResourceFailed:
    """A step has failed; a `Diagnostic` says why."""

    metadata: StepMetadata

    def to_json(self) -> Json:
        return {"resOpFailedEvent": {"metadata": self.metadata.to_json(), "status": 0, "steps": 0}}


@dataclasses.dataclass(frozen=True)
class Diagnostic:
    """A message of the engine, a provider or the program. `severity`: debug, info, info#err, warning, error.

    `aftermath`: it says no more than an error that was told before, if there was one. `at_once`: people see it when it
    is said and not when the run has ended.
    """

    severity: str
    message: str
    urn: str = ""
    stream: int = 0
    ephemeral: bool = False
    aftermath: bool = False
    at_once: bool = False

    @property
    def prefix(self) -> str:
        return f"{self.severity}: " if self.severity in ("error", "warning", "debug") else ""

    def to_json(self) -> Json:
        event: Json = {"urn": self.urn} if self.urn else {}
        event |= {"prefix": self.prefix, "message": self.message, "color": "never", "severity": self.severity}
        if self.stream:
            event["streamID"] = self.stream
        if self.ephemeral:
            event["ephemeral"] = True
        return {"diagnosticEvent": event}


@dataclasses.dataclass(frozen=True)
class Prelude:
    """The run begins; the configuration as it may be shown."""

    config: Mapping[str, str]

    def to_json(self) -> Json:
        return {"preludeEvent": {"config": dict(self.config)}}


@dataclasses.dataclass(frozen=True)
class Summary:
    """The run is over. `changes` counts by operation; `duration_s` in seconds; `stopped`: by SIGINT or SIGTERM."""

    changes: Mapping[str, int]
    duration_s: float
    succeeded: bool
    preview: bool = False
    stopped: bool = False

    def to_json(self) -> Json:
        summary: Json = {"maybeCorrupt": False, "durationSeconds": math.ceil(self.duration_s)}
        summary |= {"resourceChanges": dict(self.changes), "policyPacks": {}}
        summary |= {"isPreview": self.preview, "result": "succeeded" if self.succeeded else "failed"}
        return {"summaryEvent": summary}


Event = ResourcePre | ResourceOutputs | ResourceFailed | Diagnostic | Prelude | Summary
Sink = Callable[[Event], None]


def line(event: Event, sequence: int, clock: Callable[[], float] = time.time) -> Json:
    """An event as one line of `--json`; `timestamp` in seconds since the epoch."""
    return {"sequence": sequence, "timestamp": int(clock()), **event.to_json()}


def state_json(resource: Resource | None) -> Json | None:
    """A resource as the event lines show it."""
    if resource is None:
        return None
    state: Json = {"type": resource.type, "urn": resource.urn}
    for name, shown in (("custom", resource.custom), ("delete", resource.delete), ("protect", resource.protect)):
        if shown:
            state[name] = True
    state |= {"id": resource.id, "parent": resource.parent}
    state |= {"inputs": values.redact(resource.inputs), "outputs": values.redact(resource.outputs)}
    state["provider"] = resource.provider
    if resource.init_errors:
        state["initErrors"] = list(resource.init_errors)
    return state


def detailed_json(diff: Mapping[str, PropertyDiff] | None, kind_name: str) -> Json | None:
    if diff is None:
        return None
    return {path: {kind_name: entry.kind, "inputDiff": entry.input_diff} for path, entry in diff.items()}


def is_default_provider(resource: Resource) -> bool:
    """Default providers are the engine's own: they are in the state, but not in what is told."""
    if not resource.type.startswith(DEFAULT_PROVIDER):
        return False
    name = model.urn_name(resource.urn)
    return name == "default" or name.startswith("default_")


class Digest:
    """Collects events into the object that `preview --json` prints."""

    def __init__(self) -> None:
        self.steps: list[Json] = []
        self.diagnostics: list[Json] = []
        self.config: Json = {}
        self.summary: Summary | None = None

    def add(self, event: Event) -> None:
        match event:
            case ResourcePre(metadata=metadata):
                if _shown_in_digest(metadata):
                    self.steps.append(_digest_step(metadata))
            case Diagnostic(severity=severity) if severity != "debug" and not event.ephemeral:
                entry = {"urn": event.urn} if event.urn else {}
                self.diagnostics.append({**entry, "message": event.prefix + event.message, "severity": event.severity})
            case Prelude(config=config):
                self.config = dict(config)
            case Summary():
                self.summary = event
            case _:
                pass

    def to_json(self) -> Json:
        digest: Json = {"config": self.config} if self.config else {}
        if self.steps:
            digest["steps"] = self.steps
        if self.diagnostics:
            digest["diagnostics"] = self.diagnostics
        if self.summary:
            # Nanoseconds, as Go writes a duration.
            digest["duration"] = int(self.summary.duration_s * 1e9)
            digest["changeSummary"] = dict(self.summary.changes)
        return digest


def _planned(metadata: StepMetadata, planning: bool) -> Json:
    return {"metadata": metadata.to_json(), **({"planning": True} if planning else {})}


def _shown_in_digest(metadata: StepMetadata) -> bool:
    if metadata.op == "same":
        old, new = metadata.old, metadata.new
        changed = old is not None and new is not None and old.protect != new.protect
        return changed or (metadata.type == STACK_TYPE)
    # The two halves of a replacement are told by its logical step.
    return metadata.logical or metadata.op not in _REPLACEMENT_HALVES


def _digest_step(metadata: StepMetadata) -> Json:
    step: Json = {"op": metadata.op, "urn": metadata.urn}
    if metadata.provider:
        step["provider"] = metadata.provider
    if metadata.old is not None:
        step["oldState"] = _redacted_wire(metadata.old)
    if metadata.new is not None:
        step["newState"] = _redacted_wire(metadata.new)
    if metadata.diffs:
        step["diffReasons"] = list(metadata.diffs)
    if metadata.keys:
        step["replaceReasons"] = list(metadata.keys)
    step["detailedDiff"] = detailed_json(metadata.detailed_diff, "kind")
    return step


def _redacted_wire(resource: Resource) -> Json:
    wire = resource.to_wire()
    for key in ("inputs", "outputs"):
        if key in wire:
            shown: Any = values.redact(wire[key])
            wire[key] = shown
    return wire
