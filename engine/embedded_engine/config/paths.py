"""Paths into a structured value: `servers[0].name`, `["a key"].x`."""

import json
import re

from embedded_engine.errors import ConfigError
from embedded_engine.model import Value

_STEP = re.compile(r"""\.?(?P<name>[^.\[\]"]+)|\[(?P<index>\d+)\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]""")

Path = list[str | int]


def parse_path(text: str) -> Path:
    """The steps of a path; the first is a name. Raises `ConfigError`."""
    steps: Path = []
    place = 0
    while place < len(text):
        match = _STEP.match(text, place)
        if match is None or (place == 0 and text.startswith(".")):
            raise ConfigError(f"invalid path {text!r}: cannot read it from {text[place:]!r} on")
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(json.loads(match["quoted"]) if match["quoted"] else match["name"])
        place = match.end()
    if not steps or isinstance(steps[0], int):
        raise ConfigError(f"invalid path {text!r}: it must begin with a key")
    return steps


def get_path(value: Value, path: Path) -> Value:
    """Raises `KeyError`, `IndexError` or `TypeError` where there is nothing."""
    for step in path:
        value = value[step]
    return value


def set_path(value: Value, path: Path, new: Value) -> Value:
    """A copy with the new value at the path; what is missing on the way is made. Raises `ConfigError`."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        entries = [] if value is None else value
        if not isinstance(entries, list):
            raise ConfigError(f"[{step}]: there is no list")
        if step > len(entries):
            raise ConfigError(f"[{step}]: the list has only {len(entries)} entries")
        old = entries[step] if step < len(entries) else None
        return [*entries[:step], set_path(old, rest, new), *entries[step + 1 :]]
    fields = {} if value is None else value
    if not isinstance(fields, dict) or list(fields) == ["secure"]:
        raise ConfigError(f"{step}: there is no object")
    return {**fields, step: set_path(fields.get(step), rest, new)}


def remove_path(value: Value, path: Path) -> Value:
    """A copy without what stands at the path; the same value where nothing does."""
    step, rest = path[0], path[1:]
    if isinstance(step, int) and isinstance(value, list) and step < len(value):
        middle = [remove_path(value[step], rest)] if rest else []
        return [*value[:step], *middle, *value[step + 1 :]]
    if isinstance(step, str) and isinstance(value, dict) and step in value:
        if rest:
            return {**value, step: remove_path(value[step], rest)}
        return {key: entry for key, entry in value.items() if key != step}
    return value
