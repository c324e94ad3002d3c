"""What changes in a resource's properties, as a list of places."""

import dataclasses
from collections.abc import Iterator

from embedded_engine.events import PropertyDiff, StepMetadata
from embedded_engine.model import Value
from embedded_engine.paths import Path, PathError, parse
from embedded_engine.values import SIGNATURE, equal, is_secret, secret

_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Change:
    """One place that changes. `kind`: add, delete or update. `replaces`: it forces a replacement."""

    path: Path
    kind: str
    old: Value = None
    new: Value = None
    replaces: bool = False

    @property
    def place(self) -> str:
        return path_text(self.path)


def changes_of(metadata: StepMetadata) -> list[Change]:
    """The changes of an update or a replacement, as the provider gave them or else by comparison of the inputs.

    Of a refresh they are those of the outputs.
    """
    old, new = metadata.old, metadata.new
    if old is None or new is None:
        return []
    if metadata.op == "refresh":
        return list(compare(old.outputs, new.outputs, ()))
    if metadata.detailed_diff:
        found: list[Change] = []
        for text, entry in sorted(metadata.detailed_diff.items()):
            found += _detailed(text, entry, metadata)
        return found
    keys = {*metadata.diffs, *metadata.keys}
    found = []
    for change in compare(old.inputs, new.inputs, ()):
        if not keys or change.path[0] in keys:
            found.append(dataclasses.replace(change, replaces=change.path[0] in metadata.keys))
    return found


def compare(old: Value, new: Value, path: Path) -> Iterator[Change]:
    """Every place at which the two differ, as deep as both have parts there. A secret is one place."""
    if _has_parts(old, dict) and _has_parts(new, dict):
        for key in sorted({*old, *new}):
            yield from _compare_entry(old.get(key, _MISSING), new.get(key, _MISSING), (*path, key))
    elif _has_parts(old, list) and _has_parts(new, list):
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else _MISSING
            after = new[index] if index < len(new) else _MISSING
            yield from _compare_entry(before, after, (*path, index))
    elif not equal(old, new):
        yield Change(path, "update", old, new)


def path_text(path: Path) -> str:
    """`tags.x`, `list[0]`, `["a key"].x`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif any(c in step for c in '.[]"') or not step:
            quoted = step.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{quoted}"]'
        else:
            text += f".{step}" if text else step
    return text


def _compare_entry(old: Value, new: Value, path: Path) -> Iterator[Change]:
    if old is _MISSING:
        yield Change(path, "add", None, new)
    elif new is _MISSING:
        yield Change(path, "delete", old, None)
    else:
        yield from compare(old, new, path)


def _has_parts(value: Value, kind: type) -> bool:
    return isinstance(value, kind) and not (isinstance(value, dict) and SIGNATURE in value)


def _detailed(text: str, entry: PropertyDiff, metadata: StepMetadata) -> list[Change]:
    """A provider's own entry: its path, with the values that stand there."""
    kind, _, replaces = entry.kind.partition("-")
    try:
        path = parse(text)
    except PathError:
        # A provider may name things that are no paths.
        return [Change((text,), kind, replaces=bool(replaces))]
    olds = [metadata.old.inputs, metadata.old.outputs] if metadata.old else []
    if not entry.input_diff:
        olds.reverse()
    old = next((v for v in (_at(o, path) for o in olds) if v is not _MISSING), _MISSING)
    new = _at(metadata.new.inputs if metadata.new else {}, path)
    if kind == "update" and old is not _MISSING and new is not _MISSING:
        inner = list(compare(old, new, path)) or [Change(path, kind, old, new)]
    else:
        inner = [Change(path, kind, None if old is _MISSING else old, None if new is _MISSING else new)]
    return [dataclasses.replace(change, replaces=bool(replaces)) for change in inner]


def _at(value: Value, path: Path) -> Value:
    """What stands at the path; inside of a secret everything is secret."""
    hidden = False
    for step in path:
        if is_secret(value):
            hidden, value = True, value.get("value")
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return secret(value) if hidden else value
