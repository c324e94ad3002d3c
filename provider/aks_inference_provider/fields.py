"""What a custom resource takes and gives: one table that Check, Diff and the schema are made of."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from aks_inference_provider.differences import top
from aks_inference_provider.wire import UNKNOWN, Value, join_path


class Kind(StrEnum):
    """The type of a property."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRINGS = "array of strings"
    INTEGERS = "array of integers"
    STRING_MAP = "map of strings"
    NUMBER_MAP = "map of numbers"
    OBJECT = "object"


ELEMENT = {
    Kind.STRINGS: Kind.STRING,
    Kind.INTEGERS: Kind.INTEGER,
    Kind.STRING_MAP: Kind.STRING,
    Kind.NUMBER_MAP: Kind.NUMBER,
}
"""The type of what a collection holds."""
_LISTS = (Kind.STRINGS, Kind.INTEGERS)


@dataclass(frozen=True)
class Field:
    """A property of a custom resource."""

    name: str
    kind: Kind
    description: str
    required: bool = False
    secret: bool = False
    replaces: bool = False
    """Whether a change asks for a new resource."""
    computed: bool = False
    """An input that Check fills in; a program cannot give it."""
    default: str | float | None = None


class Failure(NamedTuple):
    """A refused input."""

    path: str
    reason: str


def each_once(failures: Iterable[Failure]) -> list[Failure]:
    """One for each different reason, at its first place, with how often."""
    places: dict[str, list[str]] = {}
    for failure in failures:
        places.setdefault(failure.reason, []).append(failure.path)
    return [
        Failure(found[0], f"{reason} ({len(found):,} times)" if len(found) > 1 else reason)
        for reason, found in places.items()
    ]


def failures_of(error: Exception, names: Collection[str], otherwise: str) -> list[Failure]:
    """One for each line of an error's text, which names the property first.

    names: Required. The properties that a line may name; any other line is about `otherwise`.
    """
    found = []
    for line in str(error).splitlines():
        path, separator, reason = line.partition(": ")
        named = separator and top(path) in names
        found.append(Failure(path, reason) if named else Failure(otherwise, line))
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence for an unknown name: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1) or difflib.get_close_matches(
        name.replace("_", "").lower(), [each.lower() for each in names], n=1
    )
    if close:
        nearest = next(each for each in names if each.lower() == close[0].lower())
        return f"unknown property; did you mean '{nearest}'?"
    return f"unknown property; expected one of {', '.join(names)}" if names else "unknown property; none is known"


def check_fields(fields: Sequence[Field], news: Mapping[str, Any]) -> list[Failure]:
    """All unknown names, missing values and wrong types of plain inputs; what is unknown is passed over."""
    given = {field.name: field for field in fields if not field.computed}
    failures = [
        Failure(join_path("", name), did_you_mean(name, given))
        for name in sorted(news)
        # The engine's own (`__defaults`, `__internal`) are no business of a program.
        if name not in given and not name.startswith("__")
    ]
    for field in given.values():
        value = news.get(field.name)
        if value is None:
            if field.required:
                failures.append(Failure(field.name, f"is required: {field.kind} ({_first_sentence(field)})"))
        else:
            failures += check_type(field.name, field.kind, value)
    return failures


def check_type(path: str, kind: Kind, value: Value) -> list[Failure]:
    """The places in a plain value that are not of the type."""
    if value == UNKNOWN or (kind is Kind.OBJECT and isinstance(value, dict)):
        return []
    if kind in ELEMENT:
        if not isinstance(value, list if kind in _LISTS else dict):
            return [_wrong(path, kind, value)]
        items = enumerate(value) if isinstance(value, list) else value.items()
        return [each for key, item in items for each in check_type(join_path(path, key), ELEMENT[kind], item)]
    fits = {
        Kind.STRING: isinstance(value, str),
        Kind.BOOLEAN: isinstance(value, bool),
        Kind.NUMBER: isinstance(value, int | float) and not isinstance(value, bool),
        Kind.INTEGER: isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer(),
        Kind.OBJECT: False,
    }
    return [] if fits[kind] else [_wrong(path, kind, value)]


def _wrong(path: str, kind: Kind, value: Value) -> Failure:
    return Failure(path, f"must be {_article(kind)}, not {shown(value)}")


def _article(kind: Kind) -> str:
    return f"{'an' if kind[0] in 'aeio' else 'a'} {kind}"


def shown(value: Value) -> str:
    """A plain value as a message shows it: its type, and itself where it is short and no text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}"
    # A text may be a secret that got into the wrong place.
    return "a string" if isinstance(value, str) else "an array" if isinstance(value, list) else "an object"


def _first_sentence(field: Field) -> str:
    return field.description.removeprefix("Required. ").split(". ")[0].rstrip(".")
