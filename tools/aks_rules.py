"""Writes docs/aks-rules.md: every rule of AKS that is known here, where it is checked, or why it is not.

Rules come from the code, texts and tests from the corpus (tests/corpus): `python tools/aks_rules.py`.
"""

import re
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from aks_inference.aks_cluster.purpose import PURPOSE_RULES
from aks_inference.cluster_rules import NOT_CHECKED, Rule, RuleFinding, all_rules
from aks_inference.documents import Document, check_documents
from aks_inference.findings import Casing

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "aks-rules.md"
CORPUS = ROOT / "tests" / "corpus"
TODAY = date(2026, 11, 21)
"""The corpus is judged as of this day, so that the page does not change by itself."""
UNIT = "`tests/unit/test_cluster_rules_table.py`"
SECTIONS = {
    "1": "Network plugin",
    "2": "Address planning",
    "3": "Load balancer, egress, public addresses",
    "4": "API server access",
    "5": "Egress hosts",
    "6": "Names",
    "7": "Node pools and sizes",
    "8": "GPU pools",
    "9": "Cluster autoscaler",
    "10": "Kubernetes versions",
    "11": "SKU, Automatic",
    "12": "Identity and access",
    "13": "Add-ons",
    "14": "Node allocatable",
    "15": "Timing and limits of the API",
    "16": "What Pulumi replaces",
    "": "Purpose, sizes, TLS",
}
NUMBERED = {"1": 13, "2": 16}
"""Sections whose rules have numbers of their own; the rules of the others have letters."""
HEAD = """# Rules of AKS

Every rule that is known here: which is checked at preview (and by `aks-inference check`), how grave it is, what is then
said, and the test; or why it is not checked. Written by `tools/aks_rules.py` from the code and the corpus.

E: Azure refuses it, so the preview does. W: a warning; Azure accepts it. A rule with both has cases of each.
"""


def main() -> None:
    """Writes the page; with --check only compares."""
    text = page()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text("utf-8") == text else "docs/aks-rules.md is old: run tools/aks_rules.py")
    PAGE.write_text(text, "utf-8")


def page() -> str:
    """The page."""
    rules = [*all_rules(), *PURPOSE_RULES]
    said = texts()
    parts = [HEAD]
    for section, title in SECTIONS.items():
        lines = list(_section(section, rules, said))
        heading = f"## {section} {title}".replace("##  ", "## ")
        head = "| rule | about | severity | said at preview, for example | test | source |\n" + "| --- " * 6 + "|"
        parts.append("\n".join([heading, "", head, *lines, ""]))
    return "\n".join(parts)


def known_numbers() -> set[str]:
    """All numbers of the reference: of its rules, and of its sections without numbered rules."""
    rules = {f"{section}.{number}" for section, last in NUMBERED.items() for number in range(1, last + 1)}
    return rules | {section for section in SECTIONS if section and section not in NUMBERED}


def covered_numbers() -> set[str]:
    """Those that are checked or said why not; a section by any rule of it."""
    numbers = {rule.number for rule in all_rules()} | set(NOT_CHECKED)
    return numbers | {section for number in numbers if (section := section_of(number))}


def section_of(number: str) -> str:
    """`2.1` and `2c` are in section 2; `vcpu` is in none."""
    match = re.match(r"[0-9]+", number)
    return match[0] if match else ""


Said = dict[tuple[str, str], list[tuple[str, str, str]]]
"""Number and line of a rule → (severity, text, id of the case)."""


def texts() -> Said:
    """Of the whole corpus."""
    found: Said = {}
    for file in ("bad.yaml", "good.yaml"):
        for case in yaml.safe_load((CORPUS / file).read_text("utf-8"))["cases"]:
            document = Document(file, "AksInferenceCluster", "scoring", case["args"], Casing.SNAKE)
            (outcome,) = check_documents([document], case.get("today", TODAY))
            for finding in outcome.findings:
                if isinstance(finding, RuleFinding):
                    entry = (str(finding.severity), finding.text(Casing.SNAKE), case["id"])
                    found.setdefault((finding.number, finding.about), []).append(entry)
    return found


def _section(section: str, rules: list[Rule], said: Said) -> Iterator[str]:
    rows: list[tuple[tuple[Any, ...], str]] = []
    for rule in rules:
        if section_of(rule.number) == section:
            rows.append((_order(rule.number), _row(rule, said.get((rule.number, rule.about), []))))
    for number, why in NOT_CHECKED.items():
        if section_of(number) == section:
            rows.append((_order(number), f"| {number} | not checked: {_cell(why)} | – | – | – | – |"))
    yield from (row for _, row in sorted(rows))


def _row(rule: Rule, found: list[tuple[str, str, str]]) -> str:
    severities = {"error": "E", "warning": "W"}
    seen = {severities[severity] for severity, _, _ in found} | {severities[str(rule.severity)]}
    # The rule's own severity first: its case is the one that the rule is about.
    first = sorted(found, key=lambda one: one[0] != str(rule.severity))
    text = _cell(first[0][1]) if first else "–"
    test = f"corpus `{first[0][2]}`" if first else UNIT
    return (
        f"| {rule.number} | {_cell(rule.about)} | {', '.join(sorted(seen))} | {text} | {test} | {_cell(rule.source)} |"
    )


def _order(number: str) -> tuple[Any, ...]:
    match = re.fullmatch(r"([0-9]*)(?:\.([0-9]+))?(.*)", number)
    assert match is not None  # noqa: S101 - everything matches
    return (int(match[1] or 0), int(match[2] or 0), match[3])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
