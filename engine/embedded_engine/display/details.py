"""Property differences as lines of text: short under the tree, or in full for `--diff`."""

import difflib
from collections.abc import Sequence

from embedded_engine.display.diff import Change, changes_of, compare
from embedded_engine.display.values import block, one_line
from embedded_engine.display.words import label, paint, words_of
from embedded_engine.events import StepMetadata
from embedded_engine.model import Json, Value

_SIGNS = {"add": ("+", "green"), "delete": ("-", "red"), "update": ("~", "yellow")}
_SHORT = 120
_CONTEXT = 2


def short_changes(metadata: StepMetadata, color: bool) -> list[str]:
    """A heading and one line for each place that changes; none where nothing does."""
    changes = changes_of(metadata)
    if not changes:
        return []
    words = words_of(metadata.op)
    lines = ["  " + paint(f"{words.sign} {label(metadata.urn)}", words.color, color)]
    width = max(len(change.place) for change in changes)
    for change in changes:
        sign, hue = _SIGNS.get(change.kind, _SIGNS["update"])
        lines.append("      " + paint(f"{sign} {change.place.ljust(width)} : {_short(change)}", hue, color))
    return lines


def full_step(metadata: StepMetadata, depth: int, color: bool) -> list[str]:
    """A step with all its properties: what is created or deleted whole, of an update what changes."""
    words = words_of(metadata.op)
    indent = "    " * depth
    head = f"{indent}{words.sign.ljust(2)} {label(metadata.urn)}: ({words.plan or metadata.op})"
    lines = [paint(head, words.color, color)]
    inner = indent + "      "
    state = metadata.new or metadata.old
    if metadata.old is not None and metadata.old.id and metadata.op not in ("create",):
        lines.append(f"{inner}[id={metadata.old.id}]")
    lines.append(f"{inner}[urn={metadata.urn}]")
    if state is not None and state.provider:
        lines.append(f"{inner}[provider={state.provider}]")
    if metadata.op in ("create", "delete", "read", "import", "create-replacement", "delete-replaced"):
        shown = state.inputs if state is not None else {}
        sign, hue = _SIGNS["delete"] if metadata.op.startswith("delete") else (" ", words.color)
        width = max(map(len, shown), default=0)
        for key in sorted(shown):
            text = f"{indent}    {sign} {key.ljust(width)}: {block(shown[key], inner)}"
            lines += [paint(line, hue, color) for line in text.split("\n")]
        return lines
    for change in changes_of(metadata):
        lines += _full_change(change, f"{indent}    ", color)
    return lines


def output_lines(old: Json, new: Json, color: bool) -> list[str]:
    """The stack's outputs, each with a sign where it changes."""
    keys = sorted({*old, *new})
    width = max(map(len, keys), default=0)
    lines: list[str] = []
    for key in keys:
        name = key.ljust(width)
        if key not in new:
            lines.append("  " + paint(f"- {name}: {one_line(old[key])}", "red", color))
        elif key not in old:
            text = f"+ {name}: {block(new[key], '    ')}"
            lines += ["  " + paint(line, "green", color) for line in text.split("\n")]
        elif list(compare(old[key], new[key], ())):
            lines.append("  " + paint(f"~ {name}: {one_line(old[key])} => {one_line(new[key])}", "yellow", color))
        else:
            lines.append(f"    {name}: {block(new[key], '    ')}")
    return lines


def _short(change: Change) -> str:
    if change.kind == "add":
        text = one_line(change.new, _SHORT)
    elif change.kind == "delete":
        text = one_line(change.old, _SHORT)
    else:
        text = f"{one_line(change.old, _SHORT)} => {one_line(change.new, _SHORT)}"
    return f"{text} (forces replacement)" if change.replaces else text


def _full_change(change: Change, indent: str, color: bool) -> list[str]:
    sign, hue = _SIGNS.get(change.kind, _SIGNS["update"])
    head = f"{indent}{sign} {change.place}:"
    tail = " (forces replacement)" if change.replaces else ""
    if change.kind == "update" and _long_text(change.old) and _long_text(change.new):
        lines = [f"{head}{tail}", *_text_diff(change.old, change.new, f"{indent}    ")]
    elif change.kind == "update":
        lines = [f"{head} {one_line(change.old)} => {one_line(change.new)}{tail}"]
    else:
        value = change.new if change.kind == "add" else change.old
        lines = f"{head} {block(value, indent + '  ')}{tail}".split("\n")
    return [paint(line, hue, color) for line in lines]


def _long_text(value: Value) -> bool:
    return isinstance(value, str) and "\n" in value


def _text_diff(old: str, new: str, indent: str) -> Sequence[str]:
    """The lines that differ, with a few around them."""
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=_CONTEXT))[2:]
    return [f"{indent}{one_line(line)[1:-1]}" for line in lines]
