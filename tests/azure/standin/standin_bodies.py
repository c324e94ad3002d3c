"""Pulumi inputs as bodies of Azure's requests, by the tables of the API versions; and the ids of resources."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
PREFIX = "azure-native:"


@dataclass(frozen=True)
class Kind:
    """A type of resource."""

    token: str
    arm_type: str
    """`Microsoft.ContainerService/managedClusters/agentPools`."""
    path: tuple[str, ...]
    """Inputs that stand in the path, the name last."""
    fields: Mapping[str, Any] | None
    """Input → where it stands in the body. None: there is no table of it, and its form is not judged."""
    types: Mapping[str, Any]
    schema: Path | None


class Tables:
    """pulumi_map.json, pulumi_replace.json and the schemas of bodies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._map = json.loads((folder / "pulumi_map.json").read_text())
        self._replaces = json.loads((folder / "pulumi_replace.json").read_text())

    def kind(self, token: str) -> Kind:
        """The type of a token."""
        found = self._map.get(token)
        if found is None:
            name = token.rpartition(":")[2]
            path = ("resourceUri", "associationName") if name.endswith("Association") else ("resourceGroupName", "name")
            return Kind(token, f"Microsoft.Insights/{name}", path, None, {}, None)
        arm_type = Path(found["body"]).name.split("@")[0]
        first, second, *parts = arm_type.split(".")
        joined = "/".join([f"{first}.{second}", *parts])
        return Kind(
            token, joined, tuple(found["path_params"]), found["inputs"], found["types"], self.folder / found["body"]
        )

    def replaces(self, token: str, path: str) -> bool:
        """Whether a change of the input at `path` makes the provider replace the resource."""
        flat = re.sub(r"\[[0-9]+\]", "[]", path)
        listed = self._replaces.get(token, [])
        first = path.partition(".")[0].partition("[")[0]
        in_path = first in self.kind(token).path
        return in_path or any(flat == name or flat.startswith((f"{name}.", f"{name}[")) for name in listed)


def body_of(kind: Kind, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the PUT."""
    if kind.fields is None:
        return {key: value for key, value in inputs.items() if key not in kind.path}
    body: dict[str, Any] = {}
    for key, value in inputs.items():
        if key in kind.path:
            continue
        field = kind.fields[key]
        place = body
        *groups, last = field["arm"].split("/")
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = _field(value, field, kind.types)
    return body


def id_of(kind: Kind, inputs: Mapping[str, Any]) -> str:
    """The id of a resource."""
    if kind.token.endswith(":ResourceGroup"):
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{inputs['resourceGroupName']}"
    if "scope" in kind.path or "resourceUri" in kind.path:
        first, name = kind.path
        scope = str(inputs[first] if first in inputs else inputs["scope"]).rstrip("/")
        return f"{scope}/providers/{kind.arm_type}/{inputs[name]}"
    group, *names = kind.path
    namespace, *types = kind.arm_type.split("/")
    pairs = "/".join(f"{one}/{inputs[name]}" for one, name in zip(types, names, strict=True))
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{inputs[group]}/providers/{namespace}/{pairs}"


def form_errors(kind: Kind, body: Mapping[str, Any]) -> list[str]:
    """What the schema of the API version says of a body."""
    if kind.schema is None:
        return []
    return [f"{error.json_path}: {error.message}" for error in _validator(kind.schema).iter_errors(body)]


@cache
def _validator(path: Path) -> Draft4Validator:
    return Draft4Validator(json.loads(path.read_text()))


def _field(value: Any, field: Mapping[str, Any], types: Mapping[str, Any]) -> Any:
    if field.get("map") and isinstance(value, dict):
        return {key: _converted(item, field.get("types"), types) for key, item in value.items()}
    return _converted(value, field.get("types"), types)


def _converted(value: Any, names: list[str] | None, types: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_converted(item, names, types) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, dict) or not names:
        return value
    known: dict[str, Any] = {}
    for name in names:
        known |= types[name]
    body = {}
    for key, item in value.items():
        if key == "userAssignedIdentities":
            body[key] = {identity: {} for identity in item}
        else:
            body[known[key]["arm"]] = _field(item, known[key], types)
    return body
