"""Which resources a run is about: URNs, in which `*` stands for part of a segment and `**` for anything."""

import re
from collections.abc import Iterable


class Targets:
    """A set of URNs and patterns. Empty means no restriction."""

    def __init__(self, urns: Iterable[str] = ()) -> None:
        given = list(urns)
        self.literals = [urn for urn in given if "*" not in urn]
        self._known = set(self.literals)
        self._patterns = [_pattern(urn) for urn in given if "*" in urn]

    def __bool__(self) -> bool:
        return bool(self._known or self._patterns)

    def __contains__(self, urn: str) -> bool:
        """Everything is contained where nothing is restricted."""
        return not self or urn in self._known or any(p.fullmatch(urn) for p in self._patterns)


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join({"**": ".*", "*": "[^:]*"}.get(part, re.escape(part)) for part in parts))
