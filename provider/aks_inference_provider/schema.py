"""The package's schema: what the analyzer finds of the components, and the custom resources.

`python -m aks_inference_provider.schema` prints it; `provider/schema.json` is its snapshot, which a test compares.
"""

import inspect
import json
from typing import Any

from aks_inference_provider.fields import Field, Kind
from aks_inference_provider.resources import RESOURCES
from aks_inference_provider.resources.base import CustomResource
from aks_inference_provider.wire import Value

SECRETS = ("primaryKey", "secondaryKey")
_TYPES: dict[Kind, dict[str, Any]] = {
    Kind.STRING: {"type": "string"},
    Kind.INTEGER: {"type": "integer"},
    Kind.NUMBER: {"type": "number"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.STRINGS: {"type": "array", "items": {"type": "string"}},
    Kind.INTEGERS: {"type": "array", "items": {"type": "integer"}},
    Kind.STRING_MAP: {"type": "object", "additionalProperties": {"type": "string"}},
    Kind.NUMBER_MAP: {"type": "object", "additionalProperties": {"type": "number"}},
    Kind.OBJECT: {"$ref": "pulumi.json#/Any"},
}


def merged_schema(components: str) -> str:
    """The analyzer's schema (JSON) with the custom resources in it."""
    schema = tidy(json.loads(components))
    schema.setdefault("description", "Model serving on Kubernetes and AKS as Pulumi components")
    schema["license"] = "Apache-2.0"
    resources = {**schema.get("resources", {}), **{token: custom(each) for token, each in RESOURCES.items()}}
    schema["resources"] = dict(sorted(resources.items()))
    for resource in schema["resources"].values():
        for name in SECRETS:
            for properties in (resource["inputProperties"], resource["properties"]):
                # The analyzer cannot express it.
                properties.get(name, {})["secret"] = True
    return json.dumps(schema)


def custom(resource: CustomResource) -> dict[str, Any]:
    """A custom resource's part."""
    given = [field for field in resource.inputs if not field.computed]
    outputs = [*resource.inputs, *resource.outputs]
    always = {field.name for field in outputs if field.required or field.computed or field.default is not None}
    return {
        "description": resource.description,
        "inputProperties": {field.name: _property(field, inward=True) for field in given},
        "requiredInputs": sorted(field.name for field in given if field.required),
        "properties": {field.name: _property(field, inward=False) for field in outputs},
        "required": sorted(always),
    }


def _property(field: Field, *, inward: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"description": field.description, **_TYPES[field.kind]}
    if field.secret:
        found["secret"] = True
    if inward and field.replaces:
        found["willReplaceOnChanges"] = True
    if inward and field.default is not None:
        found["default"] = field.default
    return found


def tidy(value: Value) -> Value:
    """Without the nulls that the analyzer writes, and with the indentation of docstrings taken off."""
    if isinstance(value, dict):
        return {key: tidy(each) for key, each in value.items() if each is not None} | _description(value)
    if isinstance(value, list):
        return [tidy(each) for each in value]
    return value


def _description(value: dict[str, Any]) -> dict[str, Any]:
    text = value.get("description")
    if not isinstance(text, str):
        return {}
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return {"description": "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)}


def snapshot() -> str:
    """The schema as `provider/schema.json` keeps it."""
    from aks_inference_provider.host import make_host

    return json.dumps(json.loads(make_host().schema or "{}"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(snapshot(), end="")
