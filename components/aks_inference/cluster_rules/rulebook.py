"""One rule of AKS: its number, how grave it is, where it is written; and what it has to say.

Numbers are those of the rules' reference ("2.1"; sections without numbered rules get a letter, "7a").
"""

from dataclasses import dataclass

from aks_inference.findings import NOTHING, Finding, Path, Severity


@dataclass(frozen=True)
class RuleFinding(Finding):
    """A finding that names its rule and the rule's source."""

    number: str = ""
    source: str = ""
    about: str = ""
    """The rule's own line: several rules may share a number."""


@dataclass(frozen=True)
class Rule:
    """A rule that can be checked before anything is created."""

    number: str
    about: str
    """What it checks, in one line."""
    source: str
    """Document and date, as Microsoft names it."""
    severity: Severity = Severity.ERROR

    def broken(
        self,
        path: Path,
        value: object,
        says: str,
        mend: str,
        severity: Severity | None = None,
    ) -> RuleFinding:
        """A finding. `says` is the rule as it stands for these values, `mend` what to write instead."""
        return RuleFinding(
            path=path,
            rule=says,
            mend=mend,
            value=NOTHING if value is None else value,
            severity=severity or self.severity,
            number=self.number,
            source=self.source,
            about=self.about,
        )


def error(number: str, about: str, source: str) -> Rule:
    """A rule that Azure enforces."""
    return Rule(number, about, source)


def warning(number: str, about: str, source: str) -> Rule:
    """What Azure accepts, and the user should know."""
    return Rule(number, about, source, Severity.WARNING)
