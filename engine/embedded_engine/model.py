"""The state of a stack in memory: resources, operations under way, and the snapshot that holds both.

The shapes are those of a version 3 checkpoint. Property values are Pulumi's wire JSON (plain `dict`, `list`, `str`,
numbers, `bool`, `None`, with signature dicts for secrets, assets and the like); a secret holds its plain value here and
is encrypted only on its way to the disk (`embedded_engine.secrets`).

Objects are compared and hashed by identity, and their contents are never changed in place: a changed resource is a new
object (`dataclasses.replace`). So a resource that did not change needs not be written out again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from embedded_engine.errors import StateError

Json = dict[str, Any]
Properties = dict[str, Any]
# A property value in wire form.
Value = Any

CHECKPOINT_VERSION = 3


class OperationKind(StrEnum):
    """What was under way, as the checkpoint names it."""

    CREATING = "creating"
    UPDATING = "updating"
    DELETING = "deleting"
    READING = "reading"
    IMPORTING = "importing"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Resource:
    """One resource of a checkpoint.

    `custom_timeouts` are seconds by `create`, `update`, `delete`. `created` and `modified` are RFC 3339 in UTC.
    `provider` is `<urn>::<id>`. `extra` keeps fields that this engine has no use for, so that they are written back.
    """

    urn: str
    type: str
    custom: bool
    delete: bool = False
    id: str = ""
    inputs: Properties = dataclasses.field(default_factory=dict)
    outputs: Properties = dataclasses.field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    taint: bool = False
    external: bool = False
    dependencies: tuple[str, ...] = ()
    init_errors: tuple[str, ...] = ()
    provider: str = ""
    property_dependencies: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    pending_replacement: bool = False
    additional_secret_outputs: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    custom_timeouts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    import_id: str = ""
    retain_on_delete: bool = False
    deleted_with: str = ""
    replace_with: tuple[str, ...] = ()
    created: str = ""
    modified: str = ""
    source_position: str = ""
    stack_trace: tuple[Json, ...] = ()
    ignore_changes: tuple[str, ...] = ()
    hide_diff: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    refresh_before_update: bool = False
    view_of: str = ""
    extra: Json = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return urn_name(self.urn)

    def to_wire(self) -> Json:
        """The checkpoint's form; fields that are empty are left out."""
        wire: Json = {}
        for field, key in _WIRE_KEYS.items():
            value = getattr(self, field)
            if value or key in _ALWAYS:
                wire[key] = _plain(value)
        return {**wire, **self.extra}

    @classmethod
    def from_wire(cls, wire: Json) -> Resource:
        """Reads the checkpoint's form. Raises `ModelError` naming the field that is missing or of a wrong kind."""
        where = f"resource {wire.get('urn', '(without a urn)')}"
        fields: dict[str, Any] = {}
        for field, key in _WIRE_KEYS.items():
            if wire.get(key) is not None:
                fields[field] = _typed(where, key, wire[key], _KINDS[field])
                if field in _TEXTS:
                    fields[field] = _strings(where, key, fields[field])
            elif key in _ALWAYS:
                raise ModelError(f"{where}: `{key}` is missing")
        if needs := fields.get("property_dependencies"):
            # The CLI writes null for an empty list.
            fields["property_dependencies"] = {
                name: list(_strings(where, f"propertyDependencies.{name}", _typed(where, name, urns or [], list)))
                for name, urns in needs.items()
            }
        extra = {k: v for k, v in wire.items() if k not in _FIELD_OF_KEY}
        return cls(**fields, extra=extra)


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """An operation that had begun and of which the end is not known."""

    resource: Resource
    kind: OperationKind

    def to_wire(self) -> Json:
        return {"resource": self.resource.to_wire(), "type": self.kind.value}

    @classmethod
    def from_wire(cls, wire: Json) -> Operation:
        kind = wire.get("type")
        if kind not in tuple(OperationKind):
            raise ModelError(f"pending operation of an unknown kind {kind!r}")
        return cls(
            Resource.from_wire(_typed("pending operation", "resource", wire.get("resource"), dict)), OperationKind(kind)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """The whole state at one moment. A resource stands after all that it needs.

    `manifest` and `metadata` are the checkpoint's own; the time in `manifest` is set by the backend when it writes.
    `extra` keeps fields of the deployment that this engine has no use for.
    """

    resources: tuple[Resource, ...] = ()
    operations: tuple[Operation, ...] = ()
    manifest: Json = dataclasses.field(default_factory=dict)
    metadata: Json = dataclasses.field(default_factory=dict)
    secrets_providers: Json | None = None
    extra: Json = dataclasses.field(default_factory=dict)

    def to_deployment(self, encode: Callable[[Json], Json] = lambda wire: wire) -> Json:
        """The `deployment` of a version 3 checkpoint; `encode` turns each resource's wire form into the stored one."""
        deployment: Json = {"manifest": self.manifest}
        if self.secrets_providers:
            deployment["secrets_providers"] = self.secrets_providers
        if self.resources:
            deployment["resources"] = [encode(r.to_wire()) for r in self.resources]
        if self.operations:
            deployment["pending_operations"] = [
                {"resource": encode(o.resource.to_wire()), "type": o.kind.value} for o in self.operations
            ]
        return {**deployment, "metadata": self.metadata, **self.extra}

    @classmethod
    def from_deployment(cls, deployment: Json, decode: Callable[[Json], Json] = lambda wire: wire) -> Snapshot:
        """Reads a `deployment`; `decode` is the inverse of `to_deployment`'s `encode`. Raises `ModelError`."""
        known = ("manifest", "secrets_providers", "resources", "pending_operations", "metadata")
        resources = _typed("deployment", "resources", deployment.get("resources") or [], list)
        operations = _typed("deployment", "pending_operations", deployment.get("pending_operations") or [], list)
        for entry in [*resources, *operations]:
            _typed("deployment", "an entry of resources or pending_operations", entry, dict)
        return cls(
            resources=tuple(Resource.from_wire(decode(r)) for r in resources),
            operations=tuple(
                Operation.from_wire(
                    {**o, "resource": decode(_typed("pending operation", "resource", o.get("resource"), dict))}
                )
                for o in operations
            ),
            manifest=_typed("deployment", "manifest", deployment.get("manifest") or {}, dict),
            metadata=_typed("deployment", "metadata", deployment.get("metadata") or {}, dict),
            secrets_providers=_typed("deployment", "secrets_providers", deployment.get("secrets_providers") or {}, dict)
            or None,
            extra={k: v for k, v in deployment.items() if k not in known},
        )

    def resource(self, urn: str) -> Resource | None:
        """The live resource of this URN: not one that waits for its deletion."""
        return next((r for r in self.resources if r.urn == urn and not r.delete), None)


class ModelError(StateError):
    """A checkpoint that does not have the shape of version 3. The text names the place."""


def urn_name(urn: str) -> str:
    """`web` of `urn:pulumi:dev::project::a:b:C$x:y:Z::web`."""
    return urn.split("::", 3)[-1]


def urn_type(urn: str) -> str:
    """The type's token without its parents: `x:y:Z` of `urn:pulumi:dev::project::a:b:C$x:y:Z::web`."""
    parts = urn.split("::", 3)
    return parts[2].rpartition("$")[2] if len(parts) == 4 else ""


# In the order in which the CLI writes them.
_WIRE_KEYS = {
    "urn": "urn",
    "custom": "custom",
    "delete": "delete",
    "id": "id",
    "type": "type",
    "inputs": "inputs",
    "outputs": "outputs",
    "parent": "parent",
    "protect": "protect",
    "taint": "taint",
    "external": "external",
    "dependencies": "dependencies",
    "init_errors": "initErrors",
    "provider": "provider",
    "property_dependencies": "propertyDependencies",
    "pending_replacement": "pendingReplacement",
    "additional_secret_outputs": "additionalSecretOutputs",
    "aliases": "aliases",
    "custom_timeouts": "customTimeouts",
    "import_id": "importID",
    "retain_on_delete": "retainOnDelete",
    "deleted_with": "deletedWith",
    "replace_with": "replaceWith",
    "created": "created",
    "modified": "modified",
    "source_position": "sourcePosition",
    "stack_trace": "stackTrace",
    "ignore_changes": "ignoreChanges",
    "hide_diff": "hideDiff",
    "replace_on_changes": "replaceOnChanges",
    "refresh_before_update": "refreshBeforeUpdate",
    "view_of": "viewOf",
}
_FIELD_OF_KEY = {key: field for field, key in _WIRE_KEYS.items()}
_ALWAYS = ("urn", "custom", "type")
_KINDS: dict[str, type] = {
    field.name: (
        bool
        if field.type == "bool"
        else str
        if field.type == "str"
        else tuple
        if str(field.type).startswith("tuple")
        else dict
    )
    for field in dataclasses.fields(Resource)
}

_TEXTS = frozenset(field.name for field in dataclasses.fields(Resource) if field.type == "tuple[str, ...]")


def _plain(value: Value) -> Value:
    """Tuples and mappings of the model as JSON knows them."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _typed(where: str, key: str, value: Value, kind: type) -> Value:
    wanted: type = list if kind is tuple else kind
    if isinstance(value, wanted):
        return tuple(value) if isinstance(value, list) and kind is tuple else value
    raise ModelError(f"{where}: `{key}` must be {_NAMES[wanted]}, not {type(value).__name__}")


def _strings(where: str, key: str, values: Sequence[Value]) -> Sequence[str]:
    for value in values:
        _typed(where, f"an entry of {key}", value, str)
    return values


_NAMES: dict[type, str] = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
