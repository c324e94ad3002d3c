"""Reading a ScoringEndpoint out of wire values in which some are still unknown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aks_inference_provider.fields import Failure, did_you_mean
from aks_inference_provider.wire import UNKNOWN, Value, has_unknown, join_path, pick, whole_numbers
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.traffic import Share, effective_traffic

_ROOT = "endpoint"


def read_endpoint(value: Mapping[str, Any]) -> ScoringEndpoint:
    """The endpoint of a checked plain value without unknowns. Raises pydantic.ValidationError."""
    return ScoringEndpoint.model_validate_json(json.dumps(whole_numbers(value)), strict=True)


def check_endpoint(value: Value) -> list[Failure]:
    """All that is wrong with a plain value, as far as it is known."""
    if not isinstance(value, dict):
        return []
    try:
        read_endpoint(_distinct(value, []))
    except ValidationError as error:
        return [_failure(each) for each in error.errors() if not _moot(each, value)]
    return []


def traffic(value: Value) -> dict[str, float] | None:
    """The effective percentages of a checked plain value; None while names, shares or defaults are unknown."""
    versions = pick(value, "spec", "versions")
    if versions == UNKNOWN or UNKNOWN in versions:
        return None
    decisive = [[v.get(key) for key in ("name", "trafficPercentile", "isDefault")] for v in versions]
    if has_unknown(decisive):
        return None
    shares = [Share(name, percentile or 0, bool(default)) for name, percentile, default in decisive]
    return {name: hundredths / 100 for name, hundredths in effective_traffic(shares).items()}


def fixed_properties(old: Value, new: Value) -> list[Failure]:
    """Properties, of the endpoint and of versions that stay, that are not what they were; new ones may be added."""
    path = f"{_ROOT}.spec"
    failures = _fixed(pick(old, "spec", "properties"), pick(new, "spec", "properties"), path)
    before, after = (pick(each, "spec", "versions") for each in (old, new))
    if not isinstance(before, list) or not isinstance(after, list):
        return failures
    known = {pick(version, "name"): pick(version, "properties") for version in before}
    for index, version in enumerate(after):
        place = join_path(f"{path}.versions", index)
        failures += _fixed(known.get(pick(version, "name")), pick(version, "properties"), place)
    return failures


def without_moves(old: Value, new: Value) -> Value:
    """The new endpoint with the old places of code that only moved: a checkout elsewhere is no change."""
    versions = pick(new, "spec", "versions")
    if not isinstance(versions, list) or not isinstance(new, dict):
        return new
    before = {pick(each, "name"): pick(each, "code") for each in pick(old, "spec", "versions") or []}
    stayed = [
        {**each, "code": before[each["name"]]}
        if _only_moved(before.get(pick(each, "name")), pick(each, "code"))
        else each
        for each in versions
    ]
    return {**new, "spec": {**new["spec"], "versions": stayed}}


def _only_moved(old: Value, new: Value) -> bool:
    """Whether two places hold the same files under the same names, those that the replica sees."""
    if not isinstance(old, dict) or not isinstance(new, dict) or old.get("digest") in (None, UNKNOWN):
        return False
    kept = "sourceDirectory" if old.get("sourceDirectory") and new.get("sourceDirectory") else "entryScript"
    if UNKNOWN in (old.get(kept), new.get(kept)) or PurePath(old[kept]).name != PurePath(new[kept]).name:
        return False
    return {**old, kept: ""} == {**new, kept: ""}


def _fixed(old: Value, new: Value, path: str) -> list[Failure]:
    if not isinstance(old, dict) or UNKNOWN in (new, *old.values()):
        return []
    now = new or {}
    # Without the values: these are plain, and may have been secret.
    rule = "is not what it was: properties never change once set; set it back, or use tags for what may change"
    return [
        Failure(join_path(f"{path}.properties", key), rule)
        for key, value in old.items()
        if now.get(key) not in (value, UNKNOWN)
    ]


def _distinct(value: Value, seen: list[str]) -> Value:
    """The value with a text of its own for each unknown: two unknown names are not the same name."""
    if value == UNKNOWN:
        seen.append(f"unknown-{len(seen)}")
        return seen[-1]
    if isinstance(value, dict):
        return {key: _distinct(each, seen) for key, each in value.items()}
    if isinstance(value, list):
        return [_distinct(each, seen) for each in value]
    return value


def _moot(error: ErrorDetails, value: Value) -> bool:
    """Whether the error may be only because something is unknown, or follows from another one."""
    place = value
    for key in error["loc"]:
        if place == UNKNOWN:
            return True
        try:
            place = place[key]
        except (KeyError, IndexError, TypeError):
            return False
    # pydantic counts only the items that passed.
    follows = error["type"] == "too_short" and len(place) >= error["ctx"]["min_length"]
    return bool(place == UNKNOWN or follows or (error["type"] == "value_error" and has_unknown(place)))


def _failure(error: ErrorDetails) -> Failure:
    path = _ROOT
    for key in error["loc"]:
        path = join_path(path, key)
    if error["type"] == "extra_forbidden":
        return Failure(path, did_you_mean(str(error["loc"][-1]), _names(error["loc"][:-1])))
    if error["type"] == "missing":
        return Failure(path, "is required")
    return Failure(path, str(error["msg"]).removeprefix("Value error, "))


def _names(location: Sequence[str | int]) -> list[str]:
    """The property names of the object at a place."""
    model: type[BaseModel] = ScoringEndpoint
    for key in location:
        if isinstance(key, int):
            continue
        annotation = next(f.annotation for f in model.model_fields.values() if f.alias == key)
        inner = [annotation, *get_args(annotation)]
        found = [each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)]
        if not found:
            return []
        model = found[0]
    return [field.alias or name for name, field in model.model_fields.items()]
