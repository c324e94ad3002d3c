"""From the dict that a component gets to a frozen spec, with every finding at once.

A component receives plain dicts whatever the annotation says; over the protocol whole numbers arrive as floats
(3 → 3.0). Each field is checked alone by pydantic; a field that breaks its rule is left out and the rest is read, so
that the rules between fields still see everything that is right.
"""

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from aks_inference.findings import NOTHING, Finding, Path, Verbatim, did_you_mean, show_value

SECRETS = frozenset({"primary_key", "secondary_key", "password", "app_insights_connection_string", "state_webhook"})
"""Arguments whose value is never shown."""


class Spec(BaseModel):
    """The arguments of a component after conversion: frozen, unknown names refused, all fields with defaults.

    A required argument has the default None and is named in `required`: it is missed like any other finding.
    """

    # Of all specs a program uses a few, and some are only what others extend: each is built when it is first read.
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, defer_build=True
    )


_PLAIN = (str, int, float, list, dict, tuple)
"""Looked at first: nearly every value is one of them, and the other looks cost more."""


def is_late(value: object) -> bool:
    """Whether a value is known only later: an Output, an unknown, an awaitable."""
    if isinstance(value, _PLAIN):
        return False
    # Where Pulumi was never loaded (checks without a stack) nothing can be an output, and start-up stays short.
    pulumi = sys.modules.get("pulumi")
    late = pulumi is not None and isinstance(value, pulumi.Output | pulumi.output.Unknown)
    return late or inspect.isawaitable(value)


def then(value: Any, work: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - a value or an output of one
    """What is worked out of a value, or an output of that where it is one."""
    return value.apply(work) if is_late(value) else work(value)


def _plain(value: object) -> object:
    if is_late(value):
        raise PydanticCustomError("late", "must be known at preview, not an output of a resource")
    return value


def _whole(value: object) -> object:
    _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise PydanticCustomError("whole", "must be a whole number")
    return int(value)


def _number(value: object) -> object:
    _plain(value)
    if isinstance(value, str):
        raise PydanticCustomError("number", "is text, not a number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number", "must be a number")
    try:
        return float(value)
    except OverflowError:
        raise PydanticCustomError("number", "is beyond all numbers") from None


def _flag(value: object) -> object:
    _plain(value)
    if not isinstance(value, bool):
        raise PydanticCustomError("flag", "must be true or false")
    return value


def _text(value: object) -> object:
    _plain(value)
    if not isinstance(value, str):
        raise PydanticCustomError("text", "must be a text")
    return value


def _leaf(value: object) -> object:
    if not isinstance(value, str) and not is_late(value):
        raise PydanticCustomError("text", "must be a text or an output of one")
    return value


def _list(value: object) -> object:
    _plain(value)
    if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
        raise PydanticCustomError("list", "must be a list")
    return value


def _object(value: object) -> object:
    _plain(value)
    if not isinstance(value, Mapping):
        raise PydanticCustomError("object", "must be an object")
    return dict(value)


def _or_late(value: object, read: ValidatorFunctionWrapHandler) -> object:
    return value if is_late(value) else read(value)


def count_or_percent(value: object) -> object:
    """A whole number from 0, or a text such as `25%`."""
    if isinstance(value, str) and re.fullmatch(r"(100|[1-9]?[0-9])%", value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != value // 1:
        raise PydanticCustomError("share", "is no number of replicas and no percentage")
    return int(value)


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, BeforeValidator(_text)]
Leaf = Annotated[Any, BeforeValidator(_leaf)]
"""A text that may be known only later."""
Texts = Annotated[tuple[Text, ...], BeforeValidator(_list)]
LeafList = Annotated[tuple[Leaf, ...], BeforeValidator(_list)]
Leaves = Annotated[dict[Text, Leaf], BeforeValidator(_object), Field(default_factory=dict)]
Labels = Annotated[dict[Text, Text], BeforeValidator(_object), Field(default_factory=dict)]
Most = Annotated[Whole, Field(ge=1)]
"""A limit."""
Counts = Annotated[dict[Text, Annotated[Whole, Field(ge=1)]], BeforeValidator(_object)]
LateCounts = Annotated[Counts, WrapValidator(_or_late)]
"""The same, or an output of it."""
Anys = Annotated[tuple[Any, ...], BeforeValidator(_list)]
Object = Annotated[dict[str, Any], BeforeValidator(_object)]
Part = Annotated[dict[str, Any], BeforeValidator(_object), Field(default_factory=dict)]
"""An object that is empty when not given."""

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Read(Generic[S]):
    """A spec with what was wrong on the way; the fields in `broken` hold their defaults."""

    spec: S
    findings: tuple[Finding, ...]
    broken: frozenset[str]

    def whole(self, *names: str) -> bool:
        """Whether all of these were right (or not given)."""
        return self.broken.isdisjoint(names)


def named(spec: type[Spec], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments under the names of their fields, whichever way they are spelled; `read` tells what is given twice,
    or not known.
    """
    camel = _camel_names(spec)
    return {key if camel.get(key, key) in given else camel[key]: value for key, value in given.items()}


def read(spec: type[S], given: Mapping[str, object], required: tuple[str, ...] = ()) -> Read[S]:
    """Converts and checks each field. What is None counts as not given, as everywhere in Pulumi."""
    raw, findings = _known_names(spec, given)
    for name in required:
        if name not in raw:
            findings.append(Finding((name,), "is required", f"add `@{name}`"))
    broken = set(required) - set(raw)
    while True:
        try:
            return Read(spec.model_validate(raw), tuple(findings), frozenset(broken))
        except ValidationError as error:
            details = error.errors(include_url=False)
            findings += [_finding(spec, detail) for detail in details]
            # A number that is given as text is wrong as such; what else is wrong with the number is said with it.
            meant = {str(detail["loc"][0]): number for detail in details if (number := _meant(detail)) is not None}
            names = {str(detail["loc"][0]) for detail in details} - meant.keys()
            broken |= names
            right = {name: rest for name in names if (rest := _rest(raw[name], name, details)) is not None}
            raw = {name: meant.get(name, value) for name, value in raw.items() if name not in names} | right


def _rest(value: object, name: str, details: Sequence[ErrorDetails]) -> object:
    """What is right of an object with wrong values: it is read on. None: nothing."""
    wrong = [detail["loc"][1:] for detail in details if detail["loc"][0] == name]
    if not isinstance(value, Mapping) or not all(wrong):
        return None
    return {key: inner for key, inner in value.items() if key not in {where[0] for where in wrong}}


def _meant(detail: ErrorDetails) -> float | None:
    """The number that a text says where a number is asked for."""
    value: object = detail["input"]
    if detail["type"] not in ("number", "whole") or len(detail["loc"]) != 1 or not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


@cache
def _camel_names(spec: type[Spec]) -> Mapping[str, str]:
    return {to_camel(field): field for field in spec.model_fields}


def _known_names(spec: type[Spec], given: Mapping[str, object]) -> tuple[dict[str, object], list[Finding]]:
    raw: dict[str, object] = {}
    written: dict[str, str] = {}
    findings = []
    camel, fields = _camel_names(spec), spec.model_fields
    for key, value in given.items():
        if value is None:
            continue
        name = camel.get(key, key)
        if name not in fields:
            findings.append(Finding((Verbatim(key),), "is not known here", did_you_mean(str(key), fields)))
        elif name in raw:
            findings.append(
                Finding((Verbatim(key),), f"is given twice: as `{written[name]}` and `{key}`", "give it once")
            )
        else:
            raw[name], written[name] = value, key
    return raw, findings


def _finding(spec: type[Spec], detail: ErrorDetails) -> Finding:
    path: Path = detail["loc"]
    name = str(path[0])
    value: object = detail["input"]
    if name in SECRETS or is_late(value):
        value = NOTHING
    field = spec.model_fields[name]
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    fall_back = f", or leave it out for the default {shown}" if isinstance(default, int | float | str) else ""
    if detail["type"] == "late":
        return Finding(path, _rule(detail), "give a plain value", value)
    return Finding(path, _rule(detail), f"{field.description or _mend(detail['type'], value)}{fall_back}", value)


def _mend(kind: str, value: object) -> str:
    """What to write instead. `value`: NOTHING where it may not be shown."""
    shown = show_value(value) if isinstance(value, str | int | float) else ""
    match kind:
        case "text":
            # What YAML takes for a number or a flag was meant as it stands, most of the time.
            return f'write it in quotes: "{shown}"' if shown else "write a text"
        case "number":
            return "give a number"
        case "whole":
            return "write a whole number"
        case "flag":
            return "write true or false"
        case "list":
            return f"write a list: [{shown}]" if shown else "write a list"
        case "object":
            return "write an object of names and values"
        case _:
            return "mend the value"


def _rule(detail: ErrorDetails) -> str:
    limits = detail.get("ctx", {})
    match detail["type"]:
        case "greater_than":
            return f"must be above {limits['gt']:g}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}"
        case "less_than_equal":
            return f"must be at most {limits['le']:g}"
        case "less_than":
            return f"must be below {limits['lt']:g}"
        case "literal_error" | "enum":
            return f"must be one of {limits['expected']}"
        case "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return "is not in the form that is asked for"
        case "finite_number":
            return "must be a finite number"
        case _:
            return detail["msg"]
