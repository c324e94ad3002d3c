"""What is decided from a comparison: nothing, an update or a replacement, and in which order. Pure."""

import dataclasses
from collections.abc import Sequence

from embedded_engine.deploy import paths
from embedded_engine.events import PropertyDiff
from embedded_engine.model import Resource
from embedded_engine.paths import Path, parse
from embedded_engine.plugins.answers import Diff

# The option names it where a resource that was never well is to be made anew.
INIT_ERROR = "#initerror"
_REPLACING = {"add": "add-replace", "delete": "delete-replace", "update": "update-replace"}


@dataclasses.dataclass(frozen=True)
class Decision:
    """`kind`: same, update or replace. `delete_first`: the old one goes before the new one is made."""

    kind: str
    delete_first: bool = False


def decide(diff: Diff, old: Resource, delete_before_replace: bool | None) -> Decision:
    """`diff` after `replace_on_changes`; the program's `delete_before_replace` goes before the provider's."""
    if old.pending_replacement or (diff.changes and diff.replace):
        wanted = diff.delete_before_replace if delete_before_replace is None else delete_before_replace
        return Decision("replace", wanted)
    # One that was never well is tried again even if nothing was changed.
    return Decision("update" if diff.changes or old.init_errors else "same")


def replace_on_changes(diff: Diff, patterns: Sequence[str], init_errors: bool) -> Diff:
    """The difference, with replacements where the option asks for them. Raises `PathError`."""
    if not diff.changes and not init_errors:
        return diff
    wanted = [parse(pattern) for pattern in patterns]

    def asked(path: Path) -> bool:
        return any(paths.contains(pattern, path) for pattern in wanted)

    detailed = diff.detailed
    if detailed is not None:
        detailed = {
            path: PropertyDiff(_REPLACING.get(entry.kind, entry.kind), entry.input_diff)
            if asked(parse(path))
            else entry
            for path, entry in detailed.items()
        }
    replaces = list(diff.replaces) + [k for k in diff.diffs if k not in diff.replaces and asked((k,))]
    changes = diff.changes
    if init_errors and asked((INIT_ERROR,)):
        replaces.append(INIT_ERROR)
        changes = True
        if detailed is not None:
            detailed = {**detailed, INIT_ERROR: PropertyDiff("update-replace", False)}
    return dataclasses.replace(diff, changes=changes, replaces=tuple(replaces), detailed=detailed)


def is_import(goal_id: str, custom: bool, old: Resource | None) -> bool:
    """Whether a resource that names an id is still to be adopted."""
    if not custom or not goal_id:
        return False
    return old is None or old.external or (old.import_id or old.id) != goal_id
