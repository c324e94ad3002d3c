"""Property paths as the pulumi CLI reads them: `servers[0].name`, `["a key"].x`, `list[*]`."""

import re

from embedded_engine.errors import EngineError

Path = tuple[str | int, ...]
_STEP = re.compile(r"""\.*(?:(?P<name>[^.\[]+)|\[(?P<index>-?\d+|\*)\]|\["(?P<quoted>(?:[^"\\]|\\.)*)"\])""", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class PathError(EngineError):
    """A text that is no property path."""


def parse(text: str) -> Path:
    """The steps of a path; `*` stands for every element. Raises `PathError`."""
    steps: list[str | int] = []
    place = 0
    while place < len(text):
        match = _STEP.match(text, place)
        if match is None:
            raise PathError(f"invalid property path {text!r}: cannot read it from {text[place:]!r} on")
        name, index, quoted = match["name"], match["index"], match["quoted"]
        if index is not None:
            steps.append(index if index == "*" else int(index))
        else:
            steps.append(name if quoted is None else _ESCAPED.sub(r"\1", quoted))
        place = match.end()
    return tuple(steps)
