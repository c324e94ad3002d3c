"""Reading a mapping that a user wrote: camelCase or snake_case, unknown keys reported, types checked, paths kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic.alias_generators import to_camel

from aks_inference_runtime.images.findings import Findings


@dataclass
class Fields:
    """One mapping with its place. Every `take` marks a key as known; `done` reports the others."""

    raw: Mapping[str, object]
    at: str
    findings: Findings
    known: set[str] = field(default_factory=set)

    def take(self, name: str) -> tuple[object, str]:
        """The value under a camelCase name (or its snake_case spelling) and its path; None when absent."""
        self.known.add(name)
        for key, value in self.raw.items():
            if key == name or ("_" in key and to_camel(key) == name):
                return value, self.path(key)
        return None, self.path(name)

    def path(self, key: str) -> str:
        """The path of a key of this mapping, as the caller wrote it."""
        written = next((one for one in self.raw if "_" in one and to_camel(one) == key), key)
        return f"{self.at}.{written}" if self.at else written

    def text(self, name: str) -> str | None:
        """A text; None when absent, null or empty."""
        value, at = self.take(name)
        if value is None or isinstance(value, str):
            return value or None
        self.findings.add(at, "must be a text", "write it in quotes", value)
        return None

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value, at = self.take(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.findings.add(at, "must be true or false", "write it without quotes", value)
        return default

    def items(self, name: str) -> tuple[tuple[object, ...], str]:
        """A list and its path; empty when absent."""
        value, at = self.take(name)
        if value is None or isinstance(value, list | tuple):
            return tuple(value or ()), at
        self.findings.add(at, "must be a list", "write [ … ]", value)
        return (), at

    def part(self, name: str) -> "Fields":
        """A nested mapping; empty when absent."""
        value, at = self.take(name)
        if value is not None and not isinstance(value, Mapping):
            self.findings.add(at, "must be an object", "write { … }", value)
            value = None
        return Fields(value or {}, at, self.findings)

    def ignore(self, *names: str) -> None:
        """Names that are known and say nothing about an image."""
        self.known.update(names)

    def done(self) -> None:
        """Reports every key that nobody took."""
        for key in self.raw:
            if key not in self.known and not ("_" in key and to_camel(key) in self.known):
                known = ", ".join(sorted(self.known))
                self.findings.add(self.path(str(key)), "is not known here", f"leave it out; known are {known}")
