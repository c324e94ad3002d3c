"""One spelling of what a component declares: `pipPackages` and `pip_packages` are the same argument.

What the engine keeps of a component's inputs it compares by itself. So that a program that is written in the other
spelling, or in another language, shows no change, names of arguments are brought to camelCase as far as their types
say that they are such; keys of free maps (labels, tags, environment variables) are the user's own and stay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

import pulumi
from pydantic.alias_generators import to_camel, to_snake

from aks_inference.findings import Casing, Finding, as_written

_PULUMI_NAMES: dict[str, Any] = {"Output": pulumi.Output, "T": Any}
"""`pulumi.Input[…]` names its parts as texts, which only its own module can read."""


def arguments_of(component: type[object]) -> object:
    """The TypedDict of a component's `args`; None where it has none. Of a subclass that names none, its base's."""
    for one in component.__mro__:
        found = getattr(vars(one).get("__init__"), "__annotations__", {}).get("args")
        if is_typeddict(found):
            return found
    return None


def spelled(kind: object, value: object) -> object:
    """`value` with the argument names of `kind` in camelCase. What does not fit its type stays as it is."""
    if isinstance(value, Mapping):
        fields = _fields(kind)
        if fields is not None:
            return {_name(fields, key): spelled(_field(fields, key), inner) for key, inner in value.items()}
        inside = _inside(kind, Mapping)
        return {key: spelled(inside, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        inside = _inside(kind, list)
        return [spelled(inside, inner) for inner in value]
    return value


@dataclass(frozen=True)
class Spelling:
    """How the caller of a component writes names."""

    casing: Casing = Casing.SNAKE
    given: Mapping[str, Any] = field(default_factory=dict)
    """The arguments: what stands there is named as it is written there, also where both spellings are mixed."""

    def as_written(self, finding: Finding) -> Finding:
        """The same finding with its path as the caller wrote it."""
        return as_written(finding, self.given)

    def text(self, finding: Finding) -> str:
        """One line for people."""
        return self.as_written(finding).text(self.casing)


def spelling_of(kind: object, given: Mapping[str, Any]) -> Spelling:
    """Of the arguments that a program gives. `kind`: their TypedDict. Names that are the same in both do not count."""
    names = [name for name in _argument_names(kind, given) if "_" in name or name != name.lower()]
    snake = sum("_" in name for name in names)
    return Spelling(Casing.SNAKE if 2 * snake >= len(names) else Casing.CAMEL, given)


def _argument_names(kind: object, value: object) -> Iterator[str]:
    if kind is None:
        return
    if isinstance(value, Mapping):
        fields = _fields(kind)
        for key, inner in value.items():
            if fields is not None and isinstance(key, str):
                yield key
            yield from _argument_names(_inside(kind, Mapping) if fields is None else _field(fields, key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _argument_names(_inside(kind, list), inner)


def _name(fields: Mapping[str, object], key: object) -> object:
    return to_camel(key) if isinstance(key, str) and to_snake(key) in fields else key


def _field(fields: Mapping[str, object], key: object) -> object:
    return fields.get(to_snake(key)) if isinstance(key, str) else None


def _fields(kind: object) -> Mapping[str, object] | None:
    """Of the one TypedDict among the types that a value may have."""
    found = next((one for one in _alternatives(kind) if is_typeddict(one)), None)
    return None if found is None else _hints(found)


@cache
def _hints(kind: Any) -> Mapping[str, object]:  # noqa: ANN401 (a TypedDict has no type of its own)
    return get_type_hints(kind, localns=_PULUMI_NAMES)


def _inside(kind: object, container: type) -> object:
    """The type of the values of a map, or of the items of a list."""
    for one in _alternatives(kind):
        origin, inner = get_origin(one), get_args(one)
        if isinstance(origin, type) and inner and issubclass(origin, Mapping) == (container is Mapping):
            return inner[-1]
    return None


def _alternatives(kind: object) -> list[object]:
    """The types of a union, of `NotRequired[…]` and the like."""
    origin = get_origin(kind)
    if kind is None or origin is None:
        return [kind]
    if origin in (NotRequired, Required, Annotated):
        return _alternatives(get_args(kind)[0])
    if isinstance(origin, type) and origin.__name__ not in ("Union", "UnionType"):
        return [kind]
    return [found for one in get_args(kind) for found in _alternatives(one)]
