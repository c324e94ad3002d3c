"""What differs between two plain values, as the paths and kinds of a detailed diff."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from aks_inference_provider.wire import Value, join_path


class Change(StrEnum):
    """What happens to a property."""

    ADD = "ADD"
    DELETE = "DELETE"
    UPDATE = "UPDATE"


@dataclass(frozen=True)
class Difference:
    """One changed property."""

    change: Change
    replaces: bool = False
    of_input: bool = True
    """False: it is the state of the world that differs, not what is declared."""


@dataclass(frozen=True)
class Diff:
    """The answer to a Diff: nothing in `properties` means nothing to do."""

    properties: Mapping[str, Difference] = field(default_factory=dict)
    delete_before_replace: bool = False


def changes(old: Value, new: Value, path: str = "") -> dict[str, Change]:
    """The leaf paths that differ; a null counts as absent."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, Change] = {}
        for key in sorted(old.keys() | new.keys()):
            found |= _entry(old.get(key), new.get(key), join_path(path, key))
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = {}
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            found |= _entry(before, after, join_path(path, index))
        return found
    return {} if old == new else {path: Change.UPDATE}


def _entry(old: Value, new: Value, path: str) -> dict[str, Change]:
    if old is None and new is None:
        return {}
    if old is None:
        return {path: Change.ADD}
    if new is None:
        return {path: Change.DELETE}
    return changes(old, new, path)


def top(path: str) -> str:
    """The property that a path begins with."""
    return path.partition("[")[0].partition(".")[0]


def without_ignored(diff: Diff, ignored: Iterable[str]) -> Diff:
    """The diff without the properties that the program asked to ignore, and what is below them."""
    prefixes = tuple(ignored)
    if "*" in prefixes:
        return Diff()
    kept = {
        path: each
        for path, each in diff.properties.items()
        if not any(path == p or path.startswith((f"{p}.", f"{p}[")) for p in prefixes)
    }
    return Diff(kept, diff.delete_before_replace)
