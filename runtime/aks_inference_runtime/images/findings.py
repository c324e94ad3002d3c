"""All problems of an input at once: where, what was given, the rule and the mend."""

from dataclasses import dataclass, field

from aks_inference_runtime.api.errors import InvalidInput

NOTHING_GIVEN = object()
_SHOWN = 80


@dataclass
class Findings:
    """Collects problems; `at` names the place in the caller's own words."""

    lines: list[str] = field(default_factory=list)

    def add(self, at: str, rule: str, mend: str, value: object = NOTHING_GIVEN) -> None:
        """One problem. `value` is shown shortened; leave it out for secrets."""
        given = "" if value is NOTHING_GIVEN else f"{_shown(value)} "
        self.lines.append(f"{at}: {given}{rule}; {mend}")

    def raise_if_any(self) -> None:
        """Raises InvalidInput with all problems, one a line."""
        if self.lines:
            raise InvalidInput("\n".join(self.lines))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
