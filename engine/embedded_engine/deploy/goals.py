"""What a program asks for: one registration, as the deployment understands it."""

import dataclasses
import re
from collections.abc import Mapping

from embedded_engine.deploy.cells import make_urn, qualified_type
from embedded_engine.errors import EngineError
from embedded_engine.events import STACK_TYPE
from embedded_engine.model import Json, Properties, Resource, urn_name, urn_type


@dataclasses.dataclass(frozen=True)
class Alias:
    """A former identity: a whole URN, or the parts that were different."""

    urn: str = ""
    name: str = ""
    type: str = ""
    stack: str = ""
    project: str = ""
    parent: str = ""
    no_parent: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """A resource as the program wants it. None in an option means that the program did not say.

    `id` is that of a resource to import. `custom_timeouts` are in seconds. `provider` is `<urn>::<id>`.
    """

    type: str
    name: str
    custom: bool
    properties: Properties
    parent: str = ""
    protect: bool | None = None
    dependencies: tuple[str, ...] = ()
    provider: str = ""
    property_dependencies: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    delete_before_replace: bool | None = None
    ignore_changes: tuple[str, ...] = ()
    additional_secret_outputs: tuple[str, ...] = ()
    aliases: tuple[Alias, ...] = ()
    id: str = ""
    custom_timeouts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    replace_on_changes: tuple[str, ...] = ()
    retain_on_delete: bool | None = None
    deleted_with: str = ""
    replace_with: tuple[str, ...] = ()
    hide_diff: tuple[str, ...] = ()
    source_position: str = ""
    stack_trace: tuple[Json, ...] = ()

    def new_state(self, urn: str, old: Resource | None, alias: str = "") -> Resource:
        """The state that the goal describes, before anything is done."""
        return Resource(
            urn=urn,
            type=self.type,
            custom=self.custom,
            inputs=self.properties,
            parent=self.parent,
            protect=bool(self.protect),
            dependencies=self.dependencies,
            provider=self.provider,
            property_dependencies=self.property_dependencies,
            additional_secret_outputs=self.additional_secret_outputs,
            aliases=(alias,) if alias else (),
            custom_timeouts=self.custom_timeouts,
            import_id=self.id,
            retain_on_delete=bool(self.retain_on_delete),
            deleted_with=self.deleted_with,
            replace_with=self.replace_with,
            created=old.created if old else "",
            modified=old.modified if old else "",
            source_position=self.source_position,
            stack_trace=self.stack_trace,
            ignore_changes=self.ignore_changes,
            hide_diff=self.hide_diff,
            replace_on_changes=self.replace_on_changes,
            refresh_before_update=bool(old and old.refresh_before_update),
        )


@dataclasses.dataclass(frozen=True)
class ReadGoal:
    """A resource that is not managed here and is to be read."""

    type: str
    name: str
    id: str
    parent: str
    provider: str
    properties: Properties
    dependencies: tuple[str, ...] = ()
    additional_secret_outputs: tuple[str, ...] = ()
    source_position: str = ""
    stack_trace: tuple[Json, ...] = ()


def former_urns(
    goal_name: str,
    goal_type: str,
    parent: str,
    aliases: tuple[Alias, ...],
    parents_alias: str | None,
    renamed: Mapping[str, str],
    stack: str,
    project: str,
) -> list[str]:
    """The URNs under which a resource may have been known: its aliases, and those that its parent's alias gives it.

    `renamed` maps URNs of this run to the old URN that they matched by an alias.
    """

    def collapsed(alias: Alias) -> str:
        if alias.urn:
            return alias.urn
        above = alias.parent or parent
        if alias.parent:
            above = renamed.get(above, above)
        if alias.no_parent or qualified_type(above) == STACK_TYPE:
            above = ""
        return make_urn(
            alias.stack or stack, alias.project or project, above, alias.type or goal_type, alias.name or goal_name
        )

    def inherited(kind: str, name: str) -> str:
        above = urn_name(parent)
        # A child that is named after its parent was named after the parent's former name.
        former = urn_name(parents_alias or "") + name.removeprefix(above) if name.startswith(above) else name
        return make_urn(stack, project, parents_alias or "", kind, former)

    found = [collapsed(alias) for alias in aliases]
    if parents_alias:
        found.append(inherited(goal_type, goal_name))
        found += [inherited(urn_type(u), urn_name(u)) for u in map(collapsed, aliases)]
    return list(dict.fromkeys(found))


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def seconds(text: str) -> float:
    """`1h30m` in seconds. Raises `EngineError` for what is no duration."""
    total, at = 0.0, 0
    while match := _DURATION.match(text, at):
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if at != len(text) or not text:
        raise EngineError(f"unable to parse customTimeout value {text!r}: write a duration such as 90s, 5m or 1h30m")
    return int(total) if total.is_integer() else total
