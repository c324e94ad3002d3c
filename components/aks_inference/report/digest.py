"""The digest of `pulumi preview --json` as changes of resources."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the protocol writes a value that is not known yet."""
REPLACES = {"replace", "create-replacement", "delete-replaced"}


class NotAPreview(ValueError):
    """A file that `pulumi preview --json` did not write; the text says what is wrong."""


@dataclass(frozen=True)
class Change:
    """What happens to a resource."""

    op: str
    """create, update, replace, delete, same, …"""
    urn: str
    old: Mapping[str, Any]
    """Inputs before; empty for a new one."""
    new: Mapping[str, Any]
    reasons: tuple[str, ...] = ()
    """Properties that make it be replaced."""
    changed: tuple[str, ...] = ()
    """Paths with the kind of their change: `count update`."""

    @property
    def name(self) -> str:
        """Of the resource."""
        return self.urn.rsplit("::", 1)[-1]

    @property
    def type(self) -> str:
        """Its own type token."""
        return self.urn.split("::")[2].rpartition("$")[2] if self.urn.count("::") >= 3 else ""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.type.rpartition(':')[2]} `{self.name}`"

    def unknown(self) -> list[str]:
        """Paths of inputs that are known only when it is applied."""
        return sorted(_unknown(self.new, ""))


def changes_of(preview: Mapping[str, Any]) -> list[Change]:
    """One per resource, in order. Raises NotAPreview."""
    steps = preview.get("steps")
    if not isinstance(steps, list):
        raise NotAPreview(
            "holds no `steps`: write it with `pulumi preview --json` (or `embedded-engine preview --json`)"
        )
    found: dict[str, Change] = {}
    for step in steps:
        if not isinstance(step, Mapping) or not isinstance(step.get("urn"), str):
            raise NotAPreview("holds a step without a urn")
        change = _change(step)
        had = found.get(change.urn)
        # A replacement comes as several steps of one resource.
        found[change.urn] = change if had is None else _joined(had, change)
    return list(found.values())


def _change(step: Mapping[str, Any]) -> Change:
    op = str(step.get("op"))
    detailed = step.get("detailedDiff") or {}
    return Change(
        op="replace" if op in REPLACES else op,
        urn=step["urn"],
        old=_inputs(step.get("oldState")),
        new={} if op in {"delete", "delete-replaced"} else _inputs(step.get("newState")),
        reasons=tuple(step.get("replaceReasons") or ()),
        changed=tuple(f"{path} {(entry or {}).get('kind', 'update')}" for path, entry in detailed.items()),
    )


def _joined(one: Change, other: Change) -> Change:
    return Change(
        op="replace" if "replace" in (one.op, other.op) else other.op,
        urn=one.urn,
        old=one.old or other.old,
        new=one.new or other.new,
        reasons=tuple(dict.fromkeys([*one.reasons, *other.reasons])),
        changed=tuple(dict.fromkeys([*one.changed, *other.changed])),
    )


def _inputs(state: object) -> Mapping[str, Any]:
    found = state.get("inputs") if isinstance(state, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _unknown(value: object, path: str) -> Iterator[str]:
    if value == UNKNOWN:
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _unknown(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unknown(inner, f"{path}[{index}]")
