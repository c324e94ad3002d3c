"""Property values as they travel: protobuf Structs in which signatures mark what is special.

A *raw* value is the Struct as JSON types, signatures included; output values are brought into the older form (secret
signature, unknown string) on the way in, so that a raw value knows only these two. A *plain* value has no secret
wrappers; what is unknown stays the string `UNKNOWN`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict, ParseDict

Value: TypeAlias = Any
"""A raw or plain value: None, bool, float, str, or a list or dict of these."""

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the protocol's marker
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the protocol writes a value that is not known yet."""

_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*")


def to_raw(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct as a raw object."""
    return {key: _normalised(value) for key, value in MessageToDict(struct).items()}


def to_struct(raw: Mapping[str, Any]) -> struct_pb2.Struct:
    """A raw object as a Struct."""
    return ParseDict(dict(raw), struct_pb2.Struct())


def _normalised(value: Value) -> Value:
    if isinstance(value, list):
        return [_normalised(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get(SIGNATURE) == OUTPUT:
        # An output value without `value` is unknown.
        inner = _normalised(value["value"]) if "value" in value else UNKNOWN
        return secret(inner) if value.get("secret") else inner
    if value.get(SIGNATURE) == SECRET:
        return secret(_normalised(value.get("value")))
    return {key: _normalised(each) for key, each in value.items()}


def secret(raw: Value) -> dict[str, Any]:
    """The value, marked as secret."""
    return raw if is_secret(raw) else {SIGNATURE: SECRET, "value": raw}


def is_secret(raw: Value) -> bool:
    """Whether the value itself is marked as secret."""
    return isinstance(raw, dict) and raw.get(SIGNATURE) == SECRET


def plain(raw: Value) -> Value:
    """The value without the secret wrappers in it."""
    if is_secret(raw):
        return plain(raw["value"])
    if isinstance(raw, dict):
        return {key: plain(each) for key, each in raw.items()}
    if isinstance(raw, list):
        return [plain(each) for each in raw]
    return raw


def within(raw: Value) -> Iterator[Any]:
    """The value and all values in it."""
    yield raw
    inner = raw.values() if isinstance(raw, dict) else raw if isinstance(raw, list) else ()
    for each in inner:
        yield from within(each)


def has_unknown(raw: Value) -> bool:
    """Whether the value is, or holds, something unknown."""
    return any(each == UNKNOWN for each in within(raw) if isinstance(each, str))


def has_secret(raw: Value) -> bool:
    """Whether the value is, or holds, a secret."""
    return any(map(is_secret, within(raw)))


def pick(raw: Value, *keys: str) -> Value:
    """The value at the path of keys: secret where something around it is, UNKNOWN inside an unknown, else None."""
    hidden = False
    for key in keys:
        while is_secret(raw):
            hidden, raw = True, raw["value"]
        if raw == UNKNOWN:
            break
        raw = raw.get(key) if isinstance(raw, dict) else None
    return secret(raw) if hidden and raw is not None else raw


def derive(make: Callable[..., Any], *sources: Value) -> Value:
    """What `make` makes of the plain sources: unknown if one of them is, secret if one of them is."""
    value = UNKNOWN if any(map(has_unknown, sources)) else make(*map(plain, sources))
    return secret(value) if any(map(has_secret, sources)) else value


def whole_numbers(value: Value) -> Value:
    """The plain value with whole floats as ints: the wire knows only floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole_numbers(each) for each in value]
    return value


def join_path(path: str, key: str | int) -> str:
    """The path of a key or an index in the value at `path`, in Pulumi's notation."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _IDENTIFIER.fullmatch(key):
        quoted = key.replace("\\", "\\\\").replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{key}" if path else key
