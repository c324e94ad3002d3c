"""The corpus: what Azure would refuse is refused at preview, with path and mend; what is good is not stopped."""

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from aks_inference.aks_cluster import groups
from aks_inference.aks_cluster.purpose import PURPOSE_RULES
from aks_inference.aks_cluster.spec import AksInferenceClusterSpec
from aks_inference.cluster_rules import all_rules
from aks_inference.documents import Document, Outcome, check_documents
from aks_inference.findings import Casing, Finding, Severity

HERE = Path(__file__).parent
TODAY = date(2026, 11, 21)
BAD: list[dict[str, Any]] = yaml.safe_load((HERE / "bad.yaml").read_text())["cases"]
GOOD: list[dict[str, Any]] = yaml.safe_load((HERE / "good.yaml").read_text())["cases"]
NOT_AN_ARGUMENT = {
    "6b": "Azure ML's narrower rule of names is said instead",
    "6e": "the nodes' administrator is not an argument",
    "7a": "the component always makes a system pool, on Linux, not spot",
    "7g": "pools are always Linux",
    "12e": "the runtime's service accounts are its own, fewer than 20",
}
"""Error rules that no arguments can break."""


def checked(case: dict[str, Any]) -> Outcome:
    document = Document("corpus", "AksInferenceCluster", case.get("name", "scoring"), case["args"], Casing.SNAKE)
    (outcome,) = check_documents([document], case.get("today", TODAY))
    return outcome


def errors(outcome: Outcome) -> list[Finding]:
    return [finding for finding in outcome.findings if finding.severity is Severity.ERROR]


def shape(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from shape(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from shape(inner, f"{path}[{index}]")
    else:
        yield path


@pytest.mark.parametrize("case", BAD, ids=lambda case: case["id"])
def test_what_azure_would_refuse(case: dict[str, Any]) -> None:
    outcome = checked(case)
    found = errors(outcome)
    assert outcome.plan is None
    assert sorted({finding.location(Casing.SNAKE) for finding in found}) == sorted(case["at"])
    assert all(finding.mend for finding in found), [finding.text(Casing.SNAKE) for finding in found]
    numbers = {getattr(finding, "number", None) for finding in found}
    wanted = {case["rule"], *case.get("also", ())} if "rule" in case else set(case.get("also", ()))
    assert wanted <= numbers
    assert case["azure"]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["id"])
def test_what_is_good(case: dict[str, Any]) -> None:
    outcome = checked(case)
    assert [finding.text(Casing.SNAKE) for finding in errors(outcome)] == []
    assert outcome.plan is not None


def test_the_corpus_is_large_and_without_doubles() -> None:
    assert len(BAD) >= 150
    assert len(GOOD) >= 60
    assert sum(len(case["at"]) > 1 or len(case.get("also", ())) > 0 for case in BAD) >= 30
    ids = Counter(case["id"] for case in [*BAD, *GOOD])
    assert max(ids.values()) == 1
    same = Counter((*sorted(shape(case["args"])), case.get("rule"), *case["at"]) for case in BAD)
    assert [key for key, times in same.items() if times > 1] == []


def test_every_rule_that_arguments_can_break_is_there() -> None:
    covered = {number for case in BAD for number in (case.get("rule"), *case.get("also", ()))}
    wanted = {rule.number for rule in (*all_rules(), *PURPOSE_RULES) if rule.severity is Severity.ERROR}
    assert wanted - covered == set(NOT_AN_ARGUMENT)


GROUPS = {
    "network": groups.NetworkSpec,
    "egress": groups.EgressSpec,
    "access": groups.AccessSpec,
    "identity": groups.IdentitySpec,
    "security": groups.SecuritySpec,
    "system_pool": groups.SystemPoolSpec,
    "runtime": groups.ClusterRuntimeSpec,
    "pools": groups.PoolSpec,
    "maintenance_windows": groups.MaintenanceWindowSpec,
}


@pytest.mark.parametrize("group", GROUPS)
def test_the_good_ones_use_every_argument_of_a_group(group: str) -> None:
    values = [case["args"].get(group) or {} for case in GOOD]
    used = {key for value in values for one in (value if isinstance(value, list) else [value]) for key in one}
    assert set(GROUPS[group].model_fields) == used


def test_the_good_ones_use_every_argument() -> None:
    used = {key for case in GOOD for key in case["args"]}
    with_files = {"ssl_cert_pem_file", "ssl_key_pem_file"}  # tests/unit/test_rules_tls.py
    assert set(AksInferenceClusterSpec.model_fields) - used == with_files
