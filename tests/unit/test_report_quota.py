"""The report against Azure's quota: what is in use, what a change asks for at most, what the limit is."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from aks_inference.facts.families import family_of
from aks_inference.report import NotAUsage, markdown, report, usages_of
from aks_inference_provider.cli.report import run

TODAY = date(2026, 11, 21)
CLUSTER = {
    "location": "westeurope",
    "network": {"plugin": "azure", "pluginMode": "overlay"},
    "systemPool": {"vmSize": "Standard_D2as_v5"},
}


def usage(name: str, in_use: int, limit: int) -> dict[str, Any]:
    # The Azure CLI writes numbers as texts.
    return {
        "name": {"value": name, "localizedValue": f"{name} vCPUs"},
        "currentValue": str(in_use),
        "limit": str(limit),
    }


def preview(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    urn = "urn:pulumi:dev::p::aks-inference:index:AksInferenceCluster::prod"
    step: dict[str, Any] = {"op": "update" if old else "create", "urn": urn, "newState": {"inputs": {**CLUSTER, **new}}}
    if old:
        step["oldState"] = {"inputs": {**CLUSTER, **old}}
    return {"steps": [step]}


def further(old: dict[str, Any] | None, new: dict[str, Any], *names: str) -> list[int]:
    found = report(preview(old, new), TODAY, usages_of([usage(name, 0, 1000) for name in names]))
    return [one.further for one in found.quotas]


SMALL, LARGE = "Standard_D4s_v5", "Standard_D16s_v5"
FAMILY = "standardDSv5Family"
SPOT = [
    {"name": "cpu", "vmSize": SMALL, "count": 3},
    {"name": "spare", "vmSize": LARGE, "count": 2, "spot": True},
]


@pytest.mark.parametrize(
    ("old", "new", "names", "asked"),
    [
        # The system pool's three nodes of another family count in the region's total.
        (None, {"vmSize": SMALL, "agentCount": 3}, ("cores", FAMILY), [12 + 6, 12]),
        ({"vmSize": SMALL, "agentCount": 3}, {"vmSize": SMALL, "agentCount": 5}, ("cores", FAMILY), [8, 8]),
        # Another size: both pools are there for a while.
        ({"vmSize": SMALL, "agentCount": 3}, {"vmSize": LARGE, "agentCount": 3}, (FAMILY,), [48]),
        ({"vmSize": SMALL, "agentCount": 3}, {"vmSize": SMALL, "agentCount": 3}, ("cores", FAMILY), []),
        (None, {"pools": SPOT}, ("lowPriorityCores", FAMILY), [32, 12]),
        (None, {"vmSize": SMALL, "agentCount": 3}, ("standardNCFamily",), []),
    ],
)
def test_what_is_asked_for(old: Any, new: Any, names: tuple[str, ...], asked: list[int]) -> None:
    assert family_of(SMALL) == FAMILY
    assert further(old, new, *names) == asked


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = preview(None, {"vmSize": SMALL, "agentCount": 5})
    text = markdown(report(asked, TODAY, usages_of([usage(FAMILY.upper(), 90, 100), usage("cores", 90, 350)])))
    assert f"| {FAMILY.upper()} vCPUs | 90 | +20 | 100 | **10 missing**" in text
    assert "| cores vCPUs | 90 | +26 | 350 | fits |" in text
    shown, quota = tmp_path / "preview.json", tmp_path / "usage.json"
    shown.write_text(json.dumps(asked))
    quota.write_text(json.dumps([usage("cores", 0, 10)]))
    assert run(["--preview", str(shown), "--quota", str(quota), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quotas"][0]["limit"] == 10
    quota.write_text("[")
    assert run(["--preview", str(shown), "--quota", str(quota)]) == 1
    assert "is no JSON" in capsys.readouterr().err
    assert "Quota" not in markdown(report(asked, TODAY))


@pytest.mark.parametrize("content", [{}, [{}], [{"name": "cores"}], [usage("cores", 0, 0) | {"limit": "many"}], ["x"]])
def test_what_is_no_usage(content: Any) -> None:
    with pytest.raises(NotAUsage):
        usages_of(content)
