"""Requests of a program as goals: what they mean, and what of them is refused by name. Pure but for asset hashes."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from embedded_engine import values
from embedded_engine.deploy import assets
from embedded_engine.deploy.goals import Alias, Goal, ReadGoal, seconds
from embedded_engine.errors import EngineError
from embedded_engine.model import Json, Properties, Value
from embedded_engine.values import Message, from_struct


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Options that a resource has from its request or, where that says nothing, from its parent."""

    provider: str
    providers: Mapping[str, str]
    protect: bool | None
    retain_on_delete: bool | None
    deleted_with: str


class UnsupportedError(EngineError):
    """The program uses something that this engine does not have."""

    def __init__(self, what: str, where: str = "") -> None:
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}embedded-engine does not support {what}; use the pulumi CLI for this program")


class NumberError(EngineError):
    """Not a number, or an infinite one."""


def refuse_unsupported(request: Message) -> None:
    """Raises `UnsupportedError` naming the options."""
    found = [
        name
        for name, used in (
            ("transforms", len(request.transforms)),
            ("state migrations", len(request.state_migrations)),
            ("resource hooks", request.HasField("hooks") and request.hooks.ByteSize()),
            ("parameterized packages", bool(request.packageRef)),
            ("the option replacement_trigger", request.HasField("replacement_trigger")),
            ("the option env_var_mappings", len(request.envVarMappings)),
        )
        if used
    ]
    if found:
        raise UnsupportedError(", ".join(found), f"{request.type} resource '{request.name}'")


def properties_of(request: Message, folder: Path) -> Properties:
    """The inputs, still with output values; assets have their hashes."""
    return assets.hashed(_countable(from_struct(request.object)), folder)


def plain_properties(struct: Message, folder: Path) -> Properties:
    plain: Properties = values.plain_outputs(_countable(from_struct(struct)))
    return assets.hashed(plain, folder)


def _countable(properties: Properties) -> Properties:
    """Raises `NumberError` where the state, which is JSON, has no form for a number."""
    for path, number in _numbers(properties, ""):
        if not math.isfinite(number):
            raise NumberError(f"property {path} is {number}, which no state can hold; give a finite number")
    return properties


def _numbers(value: Value, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _numbers(entry, f"{path}[{index}]")


def goal_of(request: Message, properties: Properties, provider: str, wanted: Wanted, root: Path) -> Goal:
    timeouts = request.customTimeouts
    given = {name: getattr(timeouts, name) for name in ("create", "update", "delete", "read")}
    plain: Properties = values.plain_outputs(properties)
    asked = request.deleteBeforeReplaceDefined or request.deleteBeforeReplace
    return Goal(
        type=request.type,
        name=request.name,
        custom=request.custom,
        properties=with_version(request, plain),
        parent=request.parent,
        protect=wanted.protect,
        dependencies=_urns(request.dependencies),
        # A component that names a provider hands it on; it has none of its own.
        provider=provider,
        property_dependencies=property_dependencies(request, properties),
        delete_before_replace=bool(request.deleteBeforeReplace) if asked else None,
        ignore_changes=tuple(request.ignoreChanges),
        additional_secret_outputs=tuple(request.additionalSecretOutputs),
        aliases=aliases_of(request),
        id=request.importId,
        custom_timeouts={name: seconds(text) for name, text in given.items() if text},
        replace_on_changes=tuple(request.replaceOnChanges),
        retain_on_delete=wanted.retain_on_delete,
        deleted_with=wanted.deleted_with,
        replace_with=tuple(request.replace_with),
        hide_diff=tuple(request.hideDiffs),
        source_position=position(request, root),
        stack_trace=trace(request, root),
    )


def with_version(request: Message, properties: Properties) -> Properties:
    """A provider resource keeps the version of its plugin in its inputs."""
    if request.type.startswith("pulumi:providers:") and request.version and "version" not in properties:
        return {**properties, "version": request.version}
    return properties


def read_goal_of(request: Message, provider: str, root: Path) -> ReadGoal:
    return ReadGoal(
        type=request.type,
        name=request.name,
        id=request.id,
        parent=request.parent,
        provider=provider,
        properties=values.plain_outputs(from_struct(request.properties)),
        dependencies=_urns(request.dependencies),
        additional_secret_outputs=tuple(request.additionalSecretOutputs),
        source_position=position(request, root),
        stack_trace=trace(request, root),
    )


def property_dependencies(request: Message, properties: Properties) -> dict[str, tuple[str, ...]]:
    """By property; a program that sends none means that each property has all of the resource's dependencies."""
    if request.propertyDependencies or request.remote:
        found = {key: set(entry.urns) for key, entry in request.propertyDependencies.items()}
    else:
        found = {key: set(request.dependencies) for key in properties}
    for key, value in properties.items():
        found.setdefault(key, set()).update(values.output_dependencies(value))
    return {key: _urns(urns) for key, urns in found.items()}


def aliases_of(request: Message) -> tuple[Alias, ...]:
    found = [Alias(urn=urn) for urn in request.aliasURNs]
    for alias in request.aliases:
        if alias.urn:
            found.append(Alias(urn=alias.urn))
            continue
        spec = alias.spec
        found.append(
            Alias(
                name=spec.name,
                type=spec.type,
                stack=spec.stack,
                project=spec.project,
                parent=spec.parentUrn,
                no_parent=spec.noParent,
            )
        )
    return tuple(found)


def position(request: Message, root: Path) -> str:
    return _place(request.sourcePosition, root)


def trace(request: Message, root: Path) -> tuple[Json, ...]:
    """The program's own frames; those of the SDK and of the engine say nothing of the program."""
    places = [_place(frame.pc, root) for frame in request.stackTrace.frames]
    return tuple({"sourcePosition": place} for place in places if place)


def _place(raw: Message, root: Path) -> str:
    """A place in the project, `project:///__main__.py#4,1`; empty for any other."""
    prefix = f"file://{root}/"
    if not raw.uri.startswith(prefix):
        return ""
    column = f",{raw.column}" if raw.column else ""
    return f"project:///{raw.uri.removeprefix(prefix)}#{raw.line}{column}"


def _urns(urns: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(urns)))
