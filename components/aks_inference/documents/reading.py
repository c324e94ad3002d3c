"""Documents of YAML or JSON files: `component: AksInferenceCluster`, `args: …`, in either casing."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aks_inference.findings import Casing, Finding, did_you_mean

COMPONENTS = (
    "AksInferenceCluster",
    "InferenceRuntime",
    "LocalInferenceCluster",
    "RegisteredModel",
    "ModelWebService",
    "ControlledRolloutEndpoint",
    "TrainingJob",
)
KEYS = ("component", "name", "args")
_LARGEST_FILE = 10_000_000
"""Bytes. A declaration is a few kilobytes."""
_DEEPEST = 100
_SMALL = 5_000
"""Characters. In so few the C reader, which knows no depth that is too much for it, ends before the stack does."""
_MOST_VALUES = 1_000_000
"""In a document once every alias of YAML stands for what it names: a few lines of them can stand for billions."""


@dataclass(frozen=True)
class Document:
    """One declaration."""

    file: str
    component: str
    name: str
    args: Mapping[str, Any]
    casing: Casing
    named: bool = True
    """False: the name is the one for documents without."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, or with a document that is none."""

    file: str
    component: str | None
    finding: Finding


def read_files(files: Iterable[str]) -> tuple[list[Document], list[Problem]]:
    """All documents of all files, in order."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for file in files:
        try:
            values = list(_values(Path(file)))
            for value in values:
                _bounded(value)
        except _Unreadable as error:
            problems.append(Problem(file, None, Finding((), str(error), error.mend)))
            continue
        if not values:
            problems.append(Problem(file, None, Finding((), "holds no document", "write component and args")))
        for index, value in enumerate(values):
            _document(file, index, value, documents, problems)
    return documents, problems


class _Unreadable(Exception):
    def __init__(self, text: str, mend: str) -> None:
        super().__init__(text)
        self.mend = mend


def _values(path: Path) -> Iterator[object]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise _Unreadable("is larger than 10 MB", "give a file of declarations")
        text = path.read_text("utf-8")
    except OSError as error:
        raise _Unreadable(f"cannot be read: {error.strerror}", "give an existing file") from None
    except UnicodeDecodeError:
        raise _Unreadable("is no text in UTF-8", "give YAML or JSON") from None
    yield from _json(text) if path.suffix == ".json" else _yaml(text, path)


def _json(text: str) -> Iterator[object]:
    try:
        value = json.loads(text, object_pairs_hook=_pairs)
    except ValueError as error:
        raise _Unreadable(f"is no JSON: {error}", "mend the file") from None
    except RecursionError:
        raise _too_deep() from None
    yield from value if isinstance(value, list) else [value]


def _yaml(text: str, path: Path) -> Iterator[object]:
    import yaml

    # The C reader, where it was built, is about ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if len(text) > _SMALL:
            _shallow(yaml.parse(text, loader))
        reader = loader(text)
        try:
            while reader.check_node():
                node = reader.get_node()
                _once(node)
                value = reader.construct_document(node)
                if value is not None:
                    yield value
        finally:
            reader.dispose()
    except yaml.YAMLError as error:
        raise _Unreadable(f"is no YAML: {_told(error, path)}", "mend the file") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise _Unreadable(f"is no YAML that can be read: {error}", "mend the file") from None


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON. Raises _Unreadable for a key that is there twice: of the two one would be lost in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise _twice(twice)
    return found


def _once(root: Any) -> None:  # noqa: ANN401 - a node of yaml, which is loaded late
    """The same for YAML, before the nodes are merged into each other. Raises _Unreadable."""
    from yaml import MappingNode, ScalarNode

    rest, seen = [root], set()
    while rest:
        node = rest.pop()
        if id(node) in seen or isinstance(node, ScalarNode):
            continue
        seen.add(id(node))
        if not isinstance(node, MappingNode):
            rest += node.value
            continue
        keys: set[str] = set()
        for key, value in node.value:
            rest += (key, value)
            if isinstance(key, ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    raise _twice(key.value, f" (line {key.start_mark.line + 1})")
                keys.add(key.value)


def _twice(key: str, where: str = "") -> _Unreadable:
    return _Unreadable(f"holds {key} twice in one object{where}", "give it once")


def _told(error: Exception, path: Path) -> str:
    """In one line; the parser knows the text only, not the file that it is of."""
    return " ".join(str(error).replace('"<unicode string>"', str(path)).split())


def _too_deep() -> _Unreadable:
    return _Unreadable(f"is nested deeper than {_DEEPEST} levels", "give a file of declarations")


def _shallow(events: Iterable[object]) -> None:
    """Refuses what the C reader would overrun its stack with. Raises _Unreadable, yaml.YAMLError."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _too_deep()


def _bounded(document: object) -> None:
    """Refuses what would cost without end to walk through. Raises _Unreadable."""
    count = 0
    rest = [(document, 1)]
    while rest:
        value, depth = rest.pop()
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        count += len(inner)
        if count > _MOST_VALUES:
            raise _Unreadable(f"holds more than {_MOST_VALUES:,} values", "give a file of declarations")
        if inner and depth > _DEEPEST:
            raise _too_deep()
        rest += ((one, depth + 1) for one in inner)


def _document(file: str, index: int, value: object, documents: list[Document], problems: list[Problem]) -> None:
    if not isinstance(value, Mapping):
        rule = f"document {index + 1} is no object"
        problems.append(Problem(file, None, Finding((), rule, "write component and args")))
        return
    component = value.get("component")
    known = component if isinstance(component, str) and component in COMPONENTS else None
    found = list(_wrong(value, known))
    if found or known is None:
        problems += [Problem(file, known, finding) for finding in found]
        return
    args = value.get("args") or {}
    name = value.get("name") or _default_name(known)
    documents.append(Document(file, known, name, args, _casing(args), bool(value.get("name"))))


def _wrong(value: Mapping[Any, Any], known: str | None) -> Iterator[Finding]:
    component, args = value.get("component"), value.get("args")
    if component is None:
        yield Finding(("component",), "is required", f"write one of {', '.join(COMPONENTS)}")
    elif known is None:
        mend = did_you_mean(str(component), COMPONENTS).replace("@", "")
        yield Finding(("component",), "is no component", mend, component)
    if args is not None and not isinstance(args, Mapping):
        yield Finding(("args",), "must be an object with names as keys", "write the component's arguments")
    elif args is not None and (strange := [key for key in args if not isinstance(key, str)]):
        yield Finding(("args",), f"the key {strange[0]} is no name", "write the name of an argument")
    if value.get("name") is not None and not isinstance(value["name"], str):
        yield Finding(("name",), "must be a text", "write the resource's name", value["name"])
    for key in value:
        if key not in KEYS:
            yield Finding((str(key),), "is no key of a document", did_you_mean(str(key), KEYS).replace("@", ""))


def _default_name(component: str) -> str:
    """A name that breaks no rule, for documents without one."""
    return {"AksInferenceCluster": "cluster", "LocalInferenceCluster": "local"}.get(component, "unnamed")


def _casing(value: object) -> Casing:
    """How the document writes names: a key with an underscore says snake_case, one with a capital camelCase."""
    for key in _keys(value):
        if "_" in key:
            return Casing.SNAKE
        if key != key.lower():
            return Casing.CAMEL
    return Casing.SNAKE


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (key for key in value if isinstance(key, str))
        for inner in value.values():
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
