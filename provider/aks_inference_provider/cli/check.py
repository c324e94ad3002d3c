"""`aks-inference check FILE…`: everything that a preview would refuse, offline and without a stack."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

from aks_inference.documents import Document, Outcome, Problem, check_documents, read_files
from aks_inference.findings import Casing, Finding, Severity, as_written, show_value


def run(arguments: Sequence[str]) -> int:
    """The command. 0: no error; 1: errors; 2: wrong usage."""
    parser = argparse.ArgumentParser(
        prog="aks-inference check",
        description="Check declarations (component: …, args: …) in YAML or JSON files, all together.",
        epilog="Exit codes: 0 no error (there may be warnings), 1 errors, 2 wrong usage.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML (several documents) or JSON (one, or a list)")
    parser.add_argument("--json", action="store_true", help="findings as a JSON array on standard output")
    parser.add_argument(
        "--today", type=_day, default=None, help="judge versions and retirements as of this day; default: today"
    )
    given = parser.parse_args(arguments)
    documents, problems = read_files(given.files)
    outcomes = check_documents(documents, given.today or datetime.now(UTC).date())
    entries = [*(_of_problem(one) for one in problems), *(e for one in outcomes for e in _of_outcome(one))]
    if given.json:
        print(json.dumps(entries, ensure_ascii=False, indent=2))
    else:
        _print(problems, outcomes, entries)
    return 1 if any(entry["severity"] == Severity.ERROR for entry in entries) else 0


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-11-21") from None


def _of_outcome(outcome: Outcome) -> Iterator[dict[str, Any]]:
    document = outcome.document
    for finding in _findings(outcome):
        yield _entry(document.file, document.component, document.casing, finding)


def _findings(outcome: Outcome) -> list[Finding]:
    """Errors first; paths as the document has them."""
    errors_first = sorted(outcome.findings, key=lambda one: one.severity is not Severity.ERROR)
    return [as_written(finding, outcome.document.args) for finding in errors_first]


def _of_problem(problem: Problem) -> dict[str, Any]:
    return _entry(problem.file, problem.component, Casing.SNAKE, problem.finding)


def _entry(file: str, component: str | None, casing: Casing, finding: Finding) -> dict[str, Any]:
    shown = finding.parts(casing)
    return {
        "file": file,
        "component": component,
        "severity": str(finding.severity),
        "path": finding.location(casing) if finding.path else "",
        "message": shown.message,
        "mend": shown.mend,
        "rule": getattr(finding, "number", None),
        "source": getattr(finding, "source", None),
    }


def _print(problems: Sequence[Problem], outcomes: Sequence[Outcome], entries: Sequence[dict[str, Any]]) -> None:
    for problem in problems:
        finding = problem.finding
        # Without a path it is about the file as a whole.
        text = finding.text(Casing.SNAKE) if finding.path else finding.reason(Casing.SNAKE)
        print(f"{problem.file}: {finding.severity}: {text}")
    for outcome in outcomes:
        if outcome.findings:
            print(f"{_title(outcome.document)}:")
        for finding in _findings(outcome):
            print(f"  {finding.severity}: {finding.text(outcome.document.casing)}")
    errors = sum(entry["severity"] == Severity.ERROR for entry in entries)
    warnings = len(entries) - errors
    count = len(outcomes)
    print(
        f"{count} document{'s' * (count != 1)}: {errors} error{'s' * (errors != 1)}, "
        f"{warnings} warning{'s' * (warnings != 1)}",
        file=sys.stderr if entries else sys.stdout,
    )


def _title(document: Document) -> str:
    return f"{document.file}: {document.component} {show_value(document.name)}"
