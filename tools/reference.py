"""Writes docs/reference.md from provider/schema.json: every component, argument and output.

python tools/reference.py [--check]
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "provider" / "schema.json"
TARGET = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Generated from `provider/schema.json` by `tools/reference.py`. Names are those of YAML and TypeScript programs; Python
programs use the same names in snake_case.
"""


def words(text: str | None) -> str:
    """A description in one table cell."""
    return " ".join((text or "").split()).replace("|", "\\|")


def type_name(schema: Mapping[str, Any]) -> str:
    """A property's type, for people."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition(":")[2].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if schema["$ref"].startswith("#/types/") else name
    if schema.get("type") == "array":
        return f"list of {type_name(schema['items'])}"
    if schema.get("type") == "object":
        return f"map of {type_name(schema.get('additionalProperties', {'type': 'string'}))}"
    return str(schema.get("type", "any"))


def table(properties: Mapping[str, Any], first: str) -> Iterator[str]:
    """A table of properties."""
    yield f"| {first} | type | |"
    yield "| --- | --- | --- |"
    for name, schema in properties.items():
        yield f"| `{name}` | {type_name(schema)} | {words(schema.get('description'))} |"
    yield ""


def lines(schema: Mapping[str, Any]) -> Iterator[str]:
    """The document."""
    yield HEAD
    resources = {token.rpartition(":")[2]: content for token, content in schema["resources"].items()}
    for heading, components in (("Components", True), ("Resources behind them", False)):
        yield f"## {heading}\n"
        for name, content in resources.items():
            if bool(content.get("isComponent")) is components:
                yield f"### {name}\n\n{(content.get('description') or '').strip()}\n"
                yield from table(content.get("inputProperties", {}), "argument")
                yield from table(content.get("properties", {}), "output")
    yield "## Types\n"
    for token, content in schema.get("types", {}).items():
        yield f"### {token.rpartition(':')[2]}\n\n{(content.get('description') or '').strip()}\n"
        yield from table(content.get("properties", {}), "property")


def main() -> int:
    """Writes the document, or with --check says whether it is up to date."""
    text = "\n".join(lines(json.loads(SCHEMA.read_text()))).rstrip() + "\n"
    if "--check" in sys.argv[1:]:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
