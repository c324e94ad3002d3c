"""What is wrong with a declaration, all of it at once: where, the value, the rule, the mend.

A finding's path is kept in snake_case and shown in the caller's casing: snake_case in a Python program, camelCase to
other languages. Texts name arguments as `@agent_count`, which follows the same casing.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from pydantic.alias_generators import to_camel

Path = tuple[str | int, ...]
"""A property path: `("versions", 1, "traffic_percentile")`."""


class Verbatim(str):
    """A part of a path that is shown as the caller wrote it: a name that is not known has no other casing."""

    __slots__ = ()


_LONGEST_VALUE = 80
_LONGEST_TEXT = 4_000
"""Beyond it a rule or a path holds a value whole."""
_WHOLE_BELOW = 1e15
"""Beyond it a float says its size better than its digits."""
_NAME = re.compile(r"(?<!\w)@([a-z][a-z0-9_]*)")


class Severity(StrEnum):
    """An error stops the program; a warning is said and goes on; what is asked becomes one of them, or nothing."""

    ERROR = "error"
    WARNING = "warning"
    ASKED = "asked"


class Casing(StrEnum):
    """How the caller writes property names."""

    SNAKE = "snake_case"
    CAMEL = "camelCase"
    BOTH = "both"
    """For who says something and does not know how the caller writes: custom resources."""


class _Nothing:
    """No value to show: missing, secret, or of no help."""


NOTHING = _Nothing()


class Parts(NamedTuple):
    """What a finding says, for machines."""

    message: str
    mend: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    path: Path
    rule: str
    mend: str
    value: object = NOTHING
    severity: Severity = Severity.ERROR
    place: str | None = None
    """Where it stands inside of the argument: `deploymentconfig.json: autoScaler.minReplicas`."""

    def location(self, casing: Casing) -> str:
        """The path as the caller would write it."""
        path = show_path(self.path, casing)
        if not self.place:
            return path
        # A place that begins with the argument is in an object, not in a file: versions may have one each.
        inside = bool(self.path) and self.place.partition(":")[0] == self.path[-1]
        return f"{path}{self.place.removeprefix(str(self.path[-1]))}" if inside else self.place

    def reason(self, casing: Casing) -> str:
        """Value, rule and mend, without the path."""
        parts = self.parts(casing)
        # A rule of two clauses takes a colon, so that the mend is not read as a third one.
        joint = ": " if "; " in parts.message else "; "
        return f"{parts.message}{joint}{parts.mend}" if parts.mend else parts.message

    def parts(self, casing: Casing) -> "Parts":
        """The reason in two parts: what is wrong, and the mend."""
        shown = "" if isinstance(self.value, _Nothing) else f"{show_value(self.value)}: "
        return Parts(_in_casing(f"{shown}{self.rule}", casing), _in_casing(self.mend, casing))

    def text(self, casing: Casing) -> str:
        """One line for people."""
        separator = ": " if isinstance(self.value, _Nothing) else " = "
        return f"{self.location(casing)}{separator}{self.reason(casing)}"


def under(prefix: Path, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of a part, as findings of the whole."""
    return (replace(finding, path=prefix + finding.path) for finding in findings)


def placed(places: Mapping[str, str], argument: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings about values that came from a file name the place in the file, and the argument that names the file."""
    for finding in findings:
        place = places.get(str(finding.path[0])) if finding.path and finding.place is None else None
        yield replace(finding, path=(argument,), place=place) if place else finding


def in_file(name: str, argument: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings about a JSON file, whose keys are in camelCase whoever reads it, and which an argument names."""
    for finding in findings:
        place = f"{name}: {show_path(finding.path, Casing.CAMEL)}" if finding.path else name
        rule, mend = _in_casing(finding.rule, Casing.CAMEL), _in_casing(finding.mend, Casing.CAMEL)
        yield replace(finding, path=(argument,), rule=rule, mend=mend, place=finding.place or place)


def as_written(finding: Finding, given: object) -> Finding:
    """The same finding with its path as the caller wrote it in `given`, also where both spellings are mixed."""
    # A place within an argument begins with the argument's own name.
    return finding if finding.place else replace(finding, path=_written(finding.path, given))


def _written(path: Path, given: object) -> Path:
    parts: list[str | int] = []
    for part in path:
        if isinstance(part, int):
            given = given[part] if isinstance(given, list | tuple) and part < len(given) else None
            parts.append(part)
            continue
        written = next((one for one in (part, to_camel(part)) if isinstance(given, Mapping) and one in given), None)
        given = given[written] if isinstance(given, Mapping) and written is not None else None
        parts.append(part if written is None else Verbatim(written))
    return tuple(parts)


def show_path(path: Path, casing: Casing) -> str:
    """`versions[1].trafficPercentile`; an empty path is the component itself."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            converts = casing is Casing.CAMEL and not isinstance(part, Verbatim) and _NAME.fullmatch(f"@{part}")
            shown = to_camel(part) if converts else part
            text += f".{shown}" if text else shown
    return _sendable(text) or "(the component)"


def show_value(value: object) -> str:
    """A value as JSON writes it, cut when long. A whole number arrives as a float: it is shown as it was written."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_BELOW:
        value = int(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        kind = type(value).__name__
        text = f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
    text = _sendable(text if text.isprintable() else "".join(map(_visible, text)))
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _visible(char: str) -> str:
    """A space without width, or what turns the direction of writing, as its number."""
    return char if char.isprintable() else f"\\u{ord(char):04x}"


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The mend for a name that is not known."""
    names = sorted(known)
    lower = {name.lower().replace("_", ""): name for name in names}
    close = difflib.get_close_matches(wrong.lower().replace("_", ""), lower, n=1, cutoff=0.6)
    return f"did you mean `@{lower[close[0]]}`?" if close else f"known are {', '.join(f'@{name}' for name in names)}"


def in_casing(text: str, casing: Casing) -> str:
    """A text with its names, such as `@agent_count`, as the caller writes them."""
    return _NAME.sub(lambda match: _name_in(match[1], casing), text)


def _name_in(name: str, casing: Casing) -> str:
    camel = to_camel(name)
    if casing is Casing.BOTH and camel != name:
        return f"{camel} (in Python {name})"
    return name if casing is Casing.SNAKE else camel


def _in_casing(text: str, casing: Casing) -> str:
    return _sendable(in_casing(text, casing))


def _sendable(text: str) -> str:
    """As it can go to the engine and to a terminal, whatever a wrong value brought along."""
    if not text.isascii():
        text = text.encode(errors="backslashreplace").decode()
    text = text.replace("\0", "\\u0000")
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
