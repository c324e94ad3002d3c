"""Property values in Pulumi's wire form: plain JSON in which a dict with a signature stands for something special.

Secrets are `{SIGNATURE: SECRET, "value": …}`; output values, assets, archives and resource references have signatures
of their own; what is not known yet is one of a few sentinel strings. Nothing here changes a value in place.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import struct_pb2

from embedded_engine.model import Properties, Value

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the name of a kind, not a password
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
ASSET = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"
RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# The other kinds of unknown that the protocol has; the plain one is the string's.
UNKNOWNS = frozenset(
    (
        UNKNOWN,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    )
)
REDACTED = "[secret]"
# A protobuf message, or what gRPC hands to a servicer: their generated types say nothing to a checker.
Message = Any
# Above this a double no longer holds every integer.
_EXACT = 2.0**53


# -- questions --------------------------------------------------------------------------------------------------------


def signature(value: Value) -> str | None:
    found = value.get(SIGNATURE) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def is_secret(value: Value) -> bool:
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def is_output(value: Value) -> bool:
    return isinstance(value, dict) and value.get(SIGNATURE) == OUTPUT


def is_unknown(value: Value) -> bool:
    return isinstance(value, str) and value in UNKNOWNS


def walk(value: Value) -> Iterator[Value]:
    """The value and everything in it, secrets' and outputs' values included."""
    yield value
    if isinstance(value, dict):
        for entry in value.values():
            yield from walk(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from walk(entry)


def contains_unknown(value: Value) -> bool:
    return any(is_unknown(v) or (is_output(v) and "value" not in v) for v in walk(value))


def contains_secret(value: Value) -> bool:
    return any(is_secret(v) or (is_output(v) and bool(v.get("secret"))) for v in walk(value))


def equal(left: Value, right: Value) -> bool:
    """Deep equality in which `True` is not `1`; `1` and `1.0` are one number."""
    if isinstance(left, dict):
        if not isinstance(right, dict) or left.keys() != right.keys():
            return False
        return all(equal(entry, right[key]) for key, entry in left.items())
    if isinstance(left, list):
        if not isinstance(right, list) or len(left) != len(right):
            return False
        return all(map(equal, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


# -- forms ------------------------------------------------------------------------------------------------------------


def secret(value: Value) -> Value:
    return value if is_secret(value) else {SIGNATURE: SECRET, "value": value}


def unwrap(value: Value) -> Value:
    """The value without the secret (or output) wrappers around and in it; an output without a value is unknown."""
    if isinstance(value, dict):
        kind = value.get(SIGNATURE)
        if kind == SECRET:
            return unwrap(value.get("value"))
        if kind == OUTPUT:
            return unwrap(value["value"]) if "value" in value else UNKNOWN
        return {key: unwrap(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [unwrap(entry) for entry in value]
    return value


def redact(value: Value) -> Value:
    """The value as it may be shown: secrets are `[secret]`."""
    if isinstance(value, dict):
        kind = value.get(SIGNATURE)
        if kind == SECRET or (kind == OUTPUT and value.get("secret")):
            return REDACTED
        return {key: redact(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [redact(entry) for entry in value]
    return value


def plain_outputs(value: Value) -> Value:
    """Output values as what they stand for: the value, an unknown, a secret of either."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == OUTPUT:
            inner = plain_outputs(value["value"]) if "value" in value else UNKNOWN
            return secret(inner) if value.get("secret") else inner
        return {key: plain_outputs(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain_outputs(entry) for entry in value]
    return value


def as_output_values(value: Value, dependencies: Iterable[str]) -> Value:
    """What a remote component gets: unknowns and secrets as output values; the rest as it is.

    A property with dependencies becomes an output value as a whole, unless it holds output values already.
    """
    urns = sorted(dependencies)
    lifted = _lift(value)
    if urns and not any(is_output(v) for v in walk(lifted)):
        return {SIGNATURE: OUTPUT, "value": lifted, "dependencies": urns}
    if urns and is_output(lifted) and not lifted.get("dependencies"):
        return {**lifted, "dependencies": urns}
    return lifted


def _lift(value: Value) -> Value:
    if is_unknown(value):
        return {SIGNATURE: OUTPUT}
    if isinstance(value, dict):
        kind = value.get(SIGNATURE)
        if kind == SECRET:
            inner = _lift(value.get("value"))
            if is_output(inner):
                return {**inner, "secret": True}
            return {SIGNATURE: OUTPUT, "value": inner, "secret": True}
        if kind == OUTPUT:
            return value
        return {key: _lift(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_lift(entry) for entry in value]
    return value


def output_dependencies(value: Value) -> set[str]:
    """The URNs that the output values in it depend on."""
    return {urn for v in walk(value) if is_output(v) for urn in v.get("dependencies") or ()}


def annotate_secrets(outs: Properties, ins: Properties) -> Properties:
    """`outs`, with everything secret that is secret in `ins` under the same key: for plugins that know no secrets."""
    result = dict(outs)
    for key, given in ins.items():
        if key not in result:
            continue
        out = result[key]
        plain = isinstance(out, dict) and isinstance(given, dict) and SIGNATURE not in out and SIGNATURE not in given
        if plain:
            result[key] = annotate_secrets(out, given)
        elif not is_secret(out) and contains_secret(given):
            result[key] = secret(out)
    return result


# -- protobuf ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Wire:
    """What the other side of a call understands. Secrets and references that it does not are sent as plain values;
    unknowns, where they are not wanted, are left out. `elide_assets`: the hashes are enough.
    """

    secrets: bool = True
    resources: bool = True
    unknowns: bool = True
    elide_assets: bool = False


FULL = Wire()
_LEFT_OUT = object()


def to_struct(properties: Properties, wire: Wire = FULL) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    _fill_struct(struct, properties, wire)
    return struct


def _fill_struct(struct: struct_pb2.Struct, properties: Properties, wire: Wire) -> None:
    fields = struct.fields
    for key, value in properties.items():
        shown = _shown(value, wire)
        if shown is not _LEFT_OUT:
            _fill(fields[key], shown, wire)


def _fill(target: struct_pb2.Value, value: Value, wire: Wire) -> None:
    if value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, list | tuple):
        target.list_value.SetInParent()
        values = target.list_value.values
        for entry in value:
            shown = _shown(entry, wire)
            if shown is not _LEFT_OUT:
                _fill(values.add(), shown, wire)
    else:
        target.struct_value.SetInParent()
        _fill_struct(target.struct_value, value, wire)


def _shown(value: Value, wire: Wire) -> Value | object:
    """The value as the other side understands it; `_LEFT_OUT` if nothing of it is to be sent."""
    if isinstance(value, str):
        return _LEFT_OUT if not wire.unknowns and value in UNKNOWNS else value
    if not isinstance(value, dict):
        return value
    kind = value.get(SIGNATURE)
    if kind is None:
        return value
    if kind == SECRET:
        inner = value.get("value")
        return value if wire.secrets and (wire.unknowns or not is_unknown(inner)) else _shown(inner, wire)
    if kind in (ASSET, ARCHIVE) and wire.elide_assets:
        return {SIGNATURE: kind, **({"hash": value["hash"]} if "hash" in value else {})}
    if kind == RESOURCE and not wire.resources:
        return _shown(value["id"] or "", wire) if "id" in value else value.get("urn", "")
    return value


def from_struct(struct: struct_pb2.Struct) -> Properties:
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_value(value: struct_pb2.Value) -> Value:
    """The value as JSON; integral numbers as int, as the CLI writes them."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "struct_value":
        return {key: from_value(entry) for key, entry in value.struct_value.fields.items()}
    if kind == "list_value":
        return [from_value(entry) for entry in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    return value.bool_value if kind == "bool_value" else None


# -- text -------------------------------------------------------------------------------------------------------------


def describe(value: Value) -> str:
    """A value in the notation of the engine's messages: `{-1}`, `{<nil>}`, `output<string>{}`."""
    if is_secret(value):
        return REDACTED
    if is_unknown(value):
        return "output<string>{}"
    if value is None:
        return "{<nil>}"
    if isinstance(value, bool):
        return "{true}" if value else "{false}"
    if isinstance(value, list):
        return "{[" + " ".join(map(describe, value)) + "]}"
    if isinstance(value, dict):
        return "{map[" + " ".join(f"{key}:{describe(entry)}" for key, entry in sorted(value.items())) + "]}"
    if isinstance(value, float):
        return "{" + f"{value:g}" + "}"
    return "{" + str(value) + "}"
