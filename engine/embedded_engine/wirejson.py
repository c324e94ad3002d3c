"""JSON as the pulumi CLI writes it: integral numbers without a fraction, non-ASCII text as it is."""

import json
import math

from embedded_engine.model import Value

# Beyond this Go's encoder, and so the CLI's, goes over to exponents.
_EXPONENT_FROM = 1e21


def plain_numbers(value: Value) -> Value:
    """The value with every integral float as an int: `3.0` comes back from protobuf, `3` is meant."""
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) and abs(value) < _EXPONENT_FROM else value
    if isinstance(value, dict):
        return {key: plain_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(entry) for entry in value]
    return value


def dumps(value: Value, indent: int | None = None) -> str:
    """Text of one line, or indented by that many columns. Raises `ValueError` for NaN and infinities."""
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(plain_numbers(value), ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)


def dumps_sorted(value: Value) -> str:
    """One line with all keys sorted: the text that is encrypted for a secret."""
    return json.dumps(plain_numbers(value), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
