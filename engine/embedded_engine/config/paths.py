"""Values at a path of the configuration: `servers[0].name`, `["a key"].x`."""

from embedded_engine import paths
from embedded_engine.errors import ConfigError
from embedded_engine.model import Value
from embedded_engine.paths import Path


def parse_path(text: str) -> Path:
    """The steps of a path; the first is a name. Raises `ConfigError`."""
    try:
        steps = paths.parse(text)
    except paths.PathError as error:
        raise ConfigError(str(error)) from None
    if not steps or isinstance(steps[0], int):
        raise ConfigError(f"invalid property path {text!r}: it must begin with a key")
    if any(step == "*" or (isinstance(step, int) and step < 0) for step in steps):
        raise ConfigError(f"invalid property path {text!r}: it must lead to one place")
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
