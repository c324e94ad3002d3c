"""Whether the packages that a program asks for are to be had: asked of pip's index beside the program.

In a program all questions are answered when its body is over, in a plugin at once. What an index that does not answer
has is not known: one warning says so.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import pulumi

from aks_inference.findings import NOTHING, Finding, Severity
from aks_inference.packages import Wanted
from aks_inference.program import ComponentFindings, Program
from aks_inference_runtime.packages.kept import Kept, kept_folder
from aks_inference_runtime.packages.lookup import Lookups, Question, Unasked
from aks_inference_runtime.packages.settings import machine_settings, with_options

SHOWN = 6
"""Packages in a warning."""


class Asked:
    """The questions of a program, or of a component in a plugin."""

    def __init__(self, lookups: Lookups | None = None) -> None:
        """`lookups`: at pip's own places, with what was kept of them, unless given."""
        self._settings = machine_settings(os.environ)
        self._lookups = lookups or Lookups(Kept(kept_folder()))
        self._waiting: list[tuple[str, str, Finding, Question]] = []

    def add(self, kind: str, name: str, findings: Iterable[Finding]) -> bool:
        """Begins to look for what a component asks. Returns whether these are the first ones since `answers`."""
        first = not self._waiting
        for finding in findings:
            if isinstance(finding.value, Wanted):
                settings = with_options(self._settings, finding.value.options, os.environ)
                asked = Question(finding.value.requirement, settings)
                self._lookups.ask(asked)
                self._waiting.append((kind, name, finding, asked))
        return first and bool(self._waiting)

    def answers(self) -> tuple[list[ComponentFindings], str | None]:
        """The errors, and the warning about what could not be asked."""
        errors: dict[tuple[str, str], list[Finding]] = {}
        unasked: dict[Unasked, None] = {}
        for kind, name, finding, asked in self._waiting:
            answer = self._lookups.answer(asked)
            if isinstance(answer, Unasked):
                unasked[answer] = None
            elif answer is not None:
                error = replace(
                    finding, rule=answer.rule, mend=answer.mend, value=asked.requirement, severity=Severity.ERROR
                )
                errors.setdefault((kind, name), []).append(error)
        self._waiting.clear()
        told = [ComponentFindings(kind, name, tuple(found)) for (kind, name), found in errors.items()]
        return told, _warning(list(unasked))


def _warning(unasked: Sequence[Unasked]) -> str | None:
    if not unasked:
        return None
    names = list(dict.fromkeys(one.name for one in unasked))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    reasons = "; ".join(dict.fromkeys(f"{one.place} {one.reason}" for one in unasked))
    return f"not checked whether these packages are to be had: {', '.join(names[:SHOWN])}{more} ({reasons})"


_of_programs: WeakKeyDictionary[Program, Asked] = WeakKeyDictionary()


def ask_in_program(program: Program, kind: str, name: str, findings: Sequence[Finding]) -> None:
    """Asks beside the program; the answers are among the findings at its end."""
    asked = _of_programs.get(program)
    if asked is None:
        asked = _of_programs[program] = Asked()

    def end() -> Iterable[ComponentFindings]:
        errors, warning = asked.answers()
        if warning is not None:
            program.when_sound(lambda: pulumi.log.warn(warning))
        return errors

    if asked.add(kind, name, findings):
        program.at_end(end)


def ask_at_once(kind: str, name: str, findings: Sequence[Finding]) -> list[Finding]:
    """Errors, and a warning about what could not be asked."""
    asked = Asked()
    asked.add(kind, name, findings)
    errors, warning = asked.answers()
    told = [finding for component in errors for finding in component.findings]
    unknown = [] if warning is None else [Finding((), warning, "", NOTHING, Severity.WARNING)]
    return [*told, *unknown]
