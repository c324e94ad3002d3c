"""Changes to `Pulumi.<stack>.yaml` that leave the rest of the text, its comments too, as it was.

A change is a splice of the text at the places that the YAML parser names; then the text is parsed again, and where it
does not say what it should, the file is written anew from its content.
"""

import json
from pathlib import Path

import yaml

from embedded_engine.backend.files import write_atomically
from embedded_engine.config.settings import is_secure, load_settings
from embedded_engine.config.yaml12 import load_text, read_file
from embedded_engine.errors import ConfigError
from embedded_engine.model import Json, Value

_INDENT = 2
_UNFOLDED = 10**9


def set_salt(path: Path, salt: str) -> None:
    """Writes the encryption salt into the stack's settings."""
    _change(path, ("encryptionsalt",), salt)


def set_value(path: Path, project: str, key: str, value: Value) -> None:
    """Sets a key's whole value. `key` is full; a key that stands there in a shorter form keeps it."""
    _change(path, ("config", _written_key(path, project, key)), value)


def remove_value(path: Path, project: str, key: str) -> None:
    _change(path, ("config", _written_key(path, project, key)), _REMOVE)


class _Remove:
    """Stands for a value that goes."""


_REMOVE = _Remove()


def _written_key(path: Path, project: str, key: str) -> str:
    settings = load_settings(path, project)
    if key not in settings.config:
        return key
    content = load_text(settings.source, str(path))
    short = key.removeprefix(f"{project}:")
    return short if short in content["config"] else key


def _change(path: Path, where: tuple[str, ...], value: Value) -> None:
    source = read_file(path) if path.exists() else ""
    content = load_text(source, str(path)) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping")
    wanted = changed(content, where, value)
    text = spliced(source, where, value)
    try:
        right = (load_text(text, str(path)) or {}) == wanted
    except ConfigError:
        right = False
    if not right:
        text = yaml.safe_dump(wanted, sort_keys=False, width=_UNFOLDED)
        if load_text(text, str(path)) != wanted:
            raise ConfigError(f"{path}: the value cannot be written as YAML")
    write_atomically(path, text.encode())


def changed(content: Json, where: tuple[str, ...], value: Value) -> Json:
    """The content with that value at that place, or without it; an emptied section goes too."""
    head, *rest = where
    result = dict(content)
    if rest:
        inner = changed(result.get(head) or {}, tuple(rest), value)
        if inner or not isinstance(value, _Remove):
            result[head] = inner
        else:
            result.pop(head, None)
    elif isinstance(value, _Remove):
        result.pop(head, None)
    else:
        result[head] = value
    return result


def spliced(source: str, where: tuple[str, ...], value: Value) -> str:
    """The text with the change in it; it may be wrong where the text is in an unusual style."""
    node = yaml.compose(source, yaml.SafeLoader)
    if node is None:
        node_entries: list[tuple[yaml.Node, yaml.Node]] = []
    else:
        node_entries = node.value if isinstance(node, yaml.MappingNode) else []
    return _splice(source, node_entries, where, value, 0, len(source))


def _splice(
    source: str, entries: list[tuple[yaml.Node, yaml.Node]], where: tuple[str, ...], value: Value, column: int, end: int
) -> str:
    head, *rest = where
    for key, node in entries:
        if str(key.value) != head:
            continue
        if rest and isinstance(node, yaml.MappingNode) and node.value and not (node.flow_style and len(rest) == 1):
            if isinstance(value, _Remove) and len(node.value) == 1:
                return _without(source, key, node)
            return _splice(source, node.value, tuple(rest), value, node.start_mark.column, _content_end(source, node))
        if rest:
            return source
        if isinstance(value, _Remove):
            return _without(source, key, node)
        start, stop = node.start_mark.index, _content_end(source, node)
        return source[:start].rstrip(" \n") + _after_colon(value, key.start_mark.column) + source[stop:]
    if isinstance(value, _Remove):
        return source
    return _inserted(source, end, column, _line(where, value, column))


def _inserted(source: str, end: int, column: int, line: str) -> str:
    before, after = source[:end], source[end:]
    if before and not before.endswith("\n"):
        head, newline, after = after.partition("\n")
        before += head + newline
        if not newline:
            before += "\n"
    return before + " " * column + line + "\n" + after


def _line(where: tuple[str, ...], value: Value, column: int) -> str:
    head, *rest = where
    if not rest:
        return f"{_text(head)}:{_after_colon(value, column)}"
    inner = " " * (column + _INDENT)
    return f"{_text(head)}:\n{inner}{_line(tuple(rest), value, column + _INDENT)}"


def _without(source: str, key: yaml.Node, node: yaml.Node) -> str:
    start = source.rfind("\n", 0, key.start_mark.index) + 1
    stop = source.find("\n", _content_end(source, node))
    return source[:start] + ("" if stop < 0 else source[stop + 1 :])


def _content_end(source: str, node: yaml.Node) -> int:
    """Where the node's own text ends: the parser puts the end of a block after the blank lines and comments too."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _content_end(source, node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _content_end(source, node.value[-1])
    return int(node.end_mark.index)


def _after_colon(value: Value, column: int) -> str:
    """What follows the colon of a key in that column; a ciphertext has a line of its own, as the CLI writes it."""
    if is_secure(value):
        return f"\n{' ' * (column + _INDENT)}secure: {_text(value['secure'])}"
    return f" {_text(value)}"


def _text(value: Value) -> str:
    """A value on one line; plain words need no quotes."""
    for unicode in (True, False):
        text = yaml.safe_dump(
            value, width=_UNFOLDED, allow_unicode=unicode, default_flow_style=True, sort_keys=False
        ).removesuffix("\n...\n")
        text = text.removesuffix("\n")
        # What needs several lines, or is no YAML any more, goes the way with escapes.
        if "\n" not in text and _reads_as(text, value):
            return text
    return json.dumps(value)


def _reads_as(text: str, value: Value) -> bool:
    try:
        return bool(load_text(text, "value") == value)
    except ConfigError:
        return False
