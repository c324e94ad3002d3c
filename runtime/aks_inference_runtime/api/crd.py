"""The CustomResourceDefinition of ScoringEndpoint, made from the models, so that the API server knows the same limits.

A structural schema (apiextensions.k8s.io/v1) with CEL rules for what holds between fields. Differences to pydantic's
JSON Schema: no references, no `anyOf` with null (what is absent is left out), exclusive bounds as flags, maps by
`additionalProperties`, closed objects by pruning.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, TypeAlias

from pydantic import BaseModel

from aks_inference_runtime.api.endpoint import (
    GROUP,
    KIND,
    LONGEST_MS,
    LONGEST_S,
    MAX_VERSIONS,
    MOST,
    EndpointSpec,
)
from aks_inference_runtime.api.status import LONGEST_MESSAGE, EndpointStatus, ServiceState

Schema: TypeAlias = dict[str, Any]

PLURAL = "scoringendpoints"
CRD_NAME = f"{PLURAL}.{GROUP}"
SERVED_VERSION = "v1"

_KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "default")
_LONGEST_TEXT = 4_096
"""Of texts without a limit of their own: a bound keeps the estimated cost of the rules bounded."""
_LONGEST_NAME = 255
_GRPC = "has({0}.container) && {0}.container.protocol == 'grpc'"
_FETCHED = r"^(https://|http://(localhost|127\.0\.0\.1|\[::1\])(:|/|$)).*"
"""Where keys come from: without TLS whoever is on the way could put keys of their own there."""
_FIXED = (
    "!has(oldSelf.properties) || (has(self.properties) && oldSelf.properties.all("
    "key, key in self.properties && self.properties[key] == oldSelf.properties[key]))"
)
"""Of what has them, not of them: that would not be asked where all are left out."""
_FIXED_TEXT = "properties never change once set; set them back, or use tags for what may change"
_NAME = "^[a-z]([a-z0-9-]{1,30})[a-z0-9]$"
_NAME_TEXT = (
    "a name has 3 to 32 characters: lower-case letters, digits and dashes, first a letter, last a letter or digit"
)


def crd() -> Schema:
    """The definition, as the API server takes it."""
    version = {
        "name": SERVED_VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root()},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "State", "type": "string", "jsonPath": ".status.state"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.replicas", "description": "replicas"},
            # Of a list a column shows the first alone.
            {"name": "Traffic", "type": "string", "jsonPath": ".status.traffic", "description": "of each version"},
            {"name": "URI", "type": "string", "jsonPath": ".status.scoringUri"},
            {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["se"],
                "categories": ["aks-inference"],
            },
            # Said, so that a second version only adds a converter.
            "conversion": {"strategy": "None"},
            "versions": [version],
        },
    }


def _root() -> Schema:
    return {
        "type": "object",
        "description": "What is served under one scoring URI: up to six versions, their traffic, replicas and limits.",
        "required": ["spec"],
        "properties": {"spec": _spec(), "status": _status()},
        "x-kubernetes-validations": [_rule(f"self.metadata.name.matches('{_NAME}')", _NAME_TEXT)],
    }


def _spec() -> Schema:
    spec = structural(EndpointSpec)
    # Ports of an endpoint's own are the local target's.
    del spec["properties"]["port"]
    versions = spec["properties"]["versions"]
    versions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    version = versions["items"]
    version["x-kubernetes-validations"] = [_rule(_FIXED, _FIXED_TEXT)]
    fields = version["properties"]
    for name in ("issuer", "jwksUri"):
        spec["properties"]["token"]["properties"][name]["pattern"] = _FETCHED
    for name in ("scorePath", "swaggerPath", "healthPath"):
        fields["container"]["properties"][name]["pattern"] = "^/"
    # Its values are bounded one by one; more in all is no environment.
    fields["environment"]["properties"]["pipPackages"]["maxItems"] = 1_000
    fields["models"]["maxItems"] = 1_000
    for part in ("scaling", "requests", "livenessProbe"):
        for name, field in fields[part]["properties"].items():
            if field["type"] == "integer":
                field["maximum"] = _longest(name)
    fields["name"] |= {"maxLength": 32, "pattern": _NAME}
    fields["trafficPercentile"]["x-kubernetes-validations"] = [
        _rule(
            "self * 100.0 - double(int(self * 100.0 + 0.5)) < 0.000001 && "
            "double(int(self * 100.0 + 0.5)) - self * 100.0 < 0.000001",
            "a percentage has up to two decimals",
        )
    ]
    fields["scaling"]["x-kubernetes-validations"] = [
        _rule(
            "!self.autoscaleEnabled || self.autoscaleMinReplicas <= self.autoscaleMaxReplicas",
            "autoscaleMinReplicas is above autoscaleMaxReplicas",
        ),
        _rule("self.autoscaleEnabled || has(self.numReplicas)", "numReplicas is required without autoscaling"),
    ]
    fields["resources"]["x-kubernetes-validations"] = [
        _rule(f"!has(self.{limit}) || self.{limit} >= self.{asked}", f"{limit} is below {asked}")
        for asked, limit in (("cpuCores", "cpuCoresLimit"), ("memoryGb", "memoryGbLimit"))
    ]
    spec["x-kubernetes-validations"] = [
        _rule("self.versions.filter(v, v.isDefault).size() == 1", "exactly one version must be the default"),
        _rule(
            "self.versions.filter(v, has(v.type) && v.type == 'Control').size() <= 1",
            "at most one version may be the control",
        ),
        _rule(
            "self.versions.map(v, v.trafficPercentile).sum() < 100.000001",
            "the traffic percentiles sum to more than 100",
        ),
        _rule(
            f"self.versions.all(v, ({_GRPC.format('v')}) == ({_GRPC.format('self.versions[0]')}))",
            "all versions must speak the same protocol",
        ),
        _rule("self.auth != 'token' || has(self.token)", "auth token needs token: issuer and audiences"),
        _rule(_FIXED, _FIXED_TEXT),
    ]
    return spec


def _longest(name: str) -> int:
    """Of a time by its unit; else of a count. Not less than what was taken before: Kubernetes before 1.30 refuses each
    write of an endpoint that has more."""
    if name.endswith(("Ms", "WaitTime")):
        return LONGEST_MS
    return LONGEST_S if name.endswith("Seconds") else MOST


def _status() -> Schema:
    status = structural(EndpointStatus)
    properties = status["properties"]
    # The object's own metadata says these.
    del properties["name"], properties["generation"]
    del properties["versions"]["items"]["properties"]["replicas"]
    properties["versions"] |= {
        "maxItems": MAX_VERSIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    properties["servedGeneration"] = {
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "description": "The newest generation that was served whole.",
    }
    properties["replicas"] = {"type": "string", "description": "Ready and wanted replicas of all versions: `3/4`."}
    properties["traffic"] = {
        "type": "string",
        "description": (
            "Percent of each version by the declaration, the default's with what none has: `blue 90, green 10`. In "
            "force once this generation is served whole; until then the shares of what was served before are, and "
            "routers that began meanwhile leave out versions without a ready replica. A version that loses all "
            "its replicas later keeps its share: its requests wait, and end as no-replica."
        ),
    }
    properties["conditions"] = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string", "maxLength": 1_024},
                "message": {"type": "string", "maxLength": LONGEST_MESSAGE},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            },
        },
    }
    # A writer says what it knows: nothing but the states is fixed.
    status.pop("required", None)
    properties["state"] = {"type": "string", "enum": [state.value for state in ServiceState]}
    version = properties["versions"]["items"]["properties"]
    for message in (properties["message"], version["message"]):
        message["maxLength"] = LONGEST_MESSAGE
    return status


def structural(model: type[BaseModel]) -> Schema:
    """A model's structural schema."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    schema = _inlined(schema, definitions)
    # Copied, so that what stands twice is written out twice.
    result = {key: deepcopy(schema[key]) for key in _KEPT if key in schema}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if (text := schema.get("description")) is not None:
        result["description"] = " ".join(text.split())
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if flag in schema:
            result |= {bound: schema[flag], flag: True}
    match schema["type"]:
        case "object" if "properties" in schema:
            result["properties"] = {name: _convert(part, definitions) for name, part in schema["properties"].items()}
            if schema.get("required"):
                result["required"] = list(schema["required"])
        case "object":
            result["additionalProperties"] = _convert(schema["additionalProperties"], definitions)
            result["maxProperties"] = _LONGEST_NAME
        case "array":
            result["items"] = _convert(schema["items"], definitions)
        case "string" if "enum" not in result:
            result.setdefault("maxLength", _LONGEST_TEXT)
        case "integer":
            result["format"] = "int64"
    if "default" in result:
        result["default"] = _present(result["default"])
        if result["default"] is None:
            del result["default"]
    return result


def _inlined(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself where it stands for another, or for another or nothing."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return _inlined({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, definitions)
    if "anyOf" in schema:
        (kind,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return _inlined({**kind, **{key: value for key, value in schema.items() if key != "anyOf"}}, definitions)
    return schema


def _present(value: object) -> object:
    """A default without what is absent; whole objects get the rest from their fields' own defaults."""
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if item is not None}
    return value


def _rule(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}
