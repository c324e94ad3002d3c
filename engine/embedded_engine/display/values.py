"""Property values as text for people: secrets and unknowns by name, strings in quotes."""

import json

from embedded_engine.model import Value
from embedded_engine.values import ARCHIVE, ASSET, REDACTED, RESOURCE, is_output, is_secret, is_unknown, signature

_UNKNOWN_KINDS = {
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7": "bool",
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421": "number",
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2": "array",
    "030794c1-ac77-496b-92df-f27374a8bd58": "asset",
    "e48ece36-62e2-4504-bad9-02848725956a": "archive",
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff": "object",
}
_INDENT = "    "


def one_line(value: Value, limit: int | None = None) -> str:
    """The value on one line, cut with `…` beyond the limit in characters. Optional: no limit."""
    text = _one_line(value)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def block(value: Value, indent: str = "") -> str:
    """The value over as many lines as it has parts; lines after the first begin with `indent`."""
    special = _special(value)
    if special is None and isinstance(value, dict) and value:
        keys = sorted(value)
        width = max(map(len, keys))
        inner = indent + _INDENT
        entries = [f"{inner}{key.ljust(width)}: {block(value[key], inner)}" for key in keys]
        return "{\n" + "\n".join(entries) + f"\n{indent}}}"
    if special is None and isinstance(value, list) and value:
        inner = indent + _INDENT
        width = len(str(len(value) - 1)) + 2
        entries = [f"{inner}{f'[{i}]'.rjust(width)}: {block(entry, inner)}" for i, entry in enumerate(value)]
        return "[\n" + "\n".join(entries) + f"\n{indent}]"
    return _one_line(value)


def _one_line(value: Value) -> str:
    special = _special(value)
    if special is not None:
        return special
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_one_line(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_one_line, value)) + "]"
    # As JSON, so that control characters cannot reach the terminal.
    return json.dumps(_integral(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _special(value: Value) -> str | None:
    if is_secret(value):
        return REDACTED
    if is_unknown(value):
        return f"output<{_UNKNOWN_KINDS.get(value, 'string')}>"
    if is_output(value):
        if value.get("secret"):
            return REDACTED
        return _one_line(value["value"]) if "value" in value else "output<string>"
    kind = signature(value)
    if kind in (ASSET, ARCHIVE):
        return _asset("asset" if kind == ASSET else "archive", value)
    if kind == RESOURCE:
        return str(value.get("urn", ""))
    return None


def _asset(kind: str, value: Value) -> str:
    source = next((f"{name} {value[name]}" for name in ("path", "uri") if value.get(name)), "")
    if not source:
        source = "text" if kind == "asset" else "assets"
    return f"{kind}({source}, {str(value.get('hash', ''))[:7]})"


def _integral(value: Value) -> Value:
    return int(value) if isinstance(value, float) and value.is_integer() else value
