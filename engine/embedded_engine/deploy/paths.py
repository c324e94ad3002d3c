"""What the options ignoreChanges and replaceOnChanges do with property paths. Pure."""

import copy
import re
from collections.abc import Mapping, Sequence

from embedded_engine import values
from embedded_engine.events import PropertyDiff
from embedded_engine.model import Properties, Value
from embedded_engine.paths import Path, PathError, parse

_WORD = re.compile(r"[A-Za-z_$][\w$]*")


def contains(pattern: Path, path: Path) -> bool:
    """Whether `path` is `pattern` or lies in it; `*` matches any one element."""
    return len(pattern) <= len(path) and all(p in ("*", q) for p, q in zip(pattern, path, strict=False))


def lookup(path: Path, value: Value) -> tuple[bool, Value]:
    """(whether there is a value at `path`, the value); secrets on the way are looked into."""
    for element in path:
        while values.is_secret(value):
            value = value["value"]
        if isinstance(value, dict):
            present = element in value
        else:
            present = isinstance(value, list) and isinstance(element, int) and 0 <= element < len(value)
        if not present:
            return False, None
        value = value[element]
    return True, value


# -- ignoreChanges ----------------------------------------------------------------------------------------------------


def ignore_changes(new: Properties, old: Properties, ignored: Sequence[str]) -> tuple[Properties, list[str]]:
    """`new` with the old values at the ignored paths, and the paths at which that is not possible."""
    if not ignored:
        return new, []
    result: Properties = copy.deepcopy(new)
    impossible = []
    for text in ignored:
        try:
            path = parse(text)
        except PathError:
            continue
        if not _reset(path, old, result):
            impossible.append(text)
    return result, impossible


def _reset(path: Path, old: Value, new: Value) -> bool:
    """Puts the old value at `path` into `new`; False where the way there, or a list's length, differs.

    With `*` all elements are reset even if one cannot be.
    """
    while values.is_secret(old):
        old = old["value"]
    while values.is_secret(new):
        new = new["value"]
    element, rest = path[0], path[1:]
    if element == "*":
        return _reset_all(rest, old, new)
    if isinstance(element, int):
        return _reset_index(element, rest, old, new)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return not isinstance(old, dict) and not isinstance(new, dict)
    if rest:
        if element not in old or element not in new:
            return element not in old and element not in new
        return _reset(rest, old[element], new[element])
    if element in old:
        new[element] = old[element]
    else:
        new.pop(element, None)
    return True


def _reset_index(index: int, rest: Path, old: Value, new: Value) -> bool:
    if index < 0:
        return False
    if not isinstance(old, list) or not isinstance(new, list):
        return not isinstance(old, list) and not isinstance(new, list)
    if index >= len(old) or index >= len(new):
        return index >= len(old) and index >= len(new)
    if rest:
        return _reset(rest, old[index], new[index])
    new[index] = old[index]
    return True


def _reset_all(rest: Path, old: Value, new: Value) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        if not rest:
            new.clear()
            new.update(old)
            return True
        return min([_reset((key, *rest), old, new) for key in sorted(old.keys() | new.keys())], default=True)
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return False
        if not rest:
            new[:] = old
            return True
        return min([_reset(rest, o, n) for o, n in zip(old, new, strict=True)], default=True)
    return not isinstance(old, dict | list) and not isinstance(new, dict | list)


# -- differences ------------------------------------------------------------------------------------------------------


def differences(old: Value, new: Value, path: str = "") -> dict[str, PropertyDiff]:
    """Leaf paths that differ between two values, secrets unwrapped: for providers that cannot say themselves."""
    old, new = values.unwrap(old), values.unwrap(new)
    found: dict[str, PropertyDiff] = {}
    _compare(old, new, path, found)
    return found


def _compare(old: Value, new: Value, path: str, found: dict[str, PropertyDiff]) -> None:
    plain = values.SIGNATURE
    if isinstance(old, dict) and isinstance(new, dict) and plain not in old and plain not in new:
        for key in sorted(old.keys() | new.keys()):
            where = _joined(path, key)
            _compare_entry(key in old, old.get(key), key in new, new.get(key), where, found)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            has_old, has_new = index < len(old), index < len(new)
            entries = old[index] if has_old else None, new[index] if has_new else None
            _compare_entry(has_old, entries[0], has_new, entries[1], f"{path}[{index}]", found)
    elif not values.equal(old, new):
        found[path] = PropertyDiff("update", True)


def _joined(path: str, key: str) -> str:
    """The path of a key in the object at `path`; quoted where it is not a plain word."""
    if _WORD.fullmatch(key):
        return f"{path}.{key}" if path else key
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'{path}["{escaped}"]'


def _compare_entry(
    has_old: bool, old: Value, has_new: bool, new: Value, where: str, found: dict[str, PropertyDiff]
) -> None:
    if has_old and has_new:
        _compare(old, new, where, found)
    else:
        found[where] = PropertyDiff("delete" if has_old else "add", True)


def top_keys(diff: Mapping[str, PropertyDiff]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(parse(path)[0]) for path in diff))
