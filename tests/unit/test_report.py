"""`aks-inference report`: a preview in the order in which a reviewer wants it."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from aks_inference.cluster_rules import Cluster, FitReport, Resources, Service, fit_services
from aks_inference.report import NotAPreview, effects, markdown, report
from aks_inference.report.digest import UNKNOWN
from aks_inference.report.markdown import LONGEST
from aks_inference_provider.cli.report import run

TODAY = date(2026, 11, 21)
OVERLAY = {"plugin": "azure", "pluginMode": "overlay"}


def step(op: str, token: str, name: str, old: Any = None, new: Any = None, **more: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:dev::proj::aks-inference:index:Parent${token}::{name}"
    found: dict[str, Any] = {"op": op, "urn": urn, **more}
    if old is not None:
        found["oldState"] = {"inputs": old}
    if new is not None:
        found["newState"] = {"inputs": new}
    return found


def endpoint(*versions: tuple[str, float, bool, int, int]) -> dict[str, Any]:
    listed = [
        {
            "name": name,
            "trafficPercentile": share,
            "isDefault": default,
            "scaling": {"autoscaleEnabled": True, "autoscaleMinReplicas": least, "autoscaleMaxReplicas": most},
        }
        for name, share, default, least, most in versions
    ]
    return {"endpoint": {"metadata": {"name": "churn"}, "spec": {"versions": listed}}}


CLUSTER = {"location": "westeurope", "vmSize": "Standard_D4s_v5", "agentCount": 3.0, "network": OVERLAY}
PREVIEW: dict[str, Any] = {
    "steps": [
        step("same", "pulumi:pulumi:Stack", "proj-dev", {}, {}),
        step("update", "aks-inference:index:AksInferenceCluster", "scoring", CLUSTER, {**CLUSTER, "agentCount": 5.0}),
        step("create-replacement", "azure-native:containerservice:ManagedCluster", "scoring", {"a": 1}, {"a": 2},
             replaceReasons=["networkProfile.podCidr"]),
        step("replace", "azure-native:containerservice:ManagedCluster", "scoring", {"a": 1}, {"a": 2}),
        step("delete-replaced", "azure-native:containerservice:ManagedCluster", "scoring", {"a": 1}, {"a": 1}),
        step("delete", "azure-native:containerservice:AgentPool", "old", {"count": 3}),
        step("create", "aks-inference:index:Model", "m", None, {"target": UNKNOWN, "tags": {"a": UNKNOWN}}),
        step("update", "aks-inference:index:LocalEndpoint", "churn", endpoint(("a", 0, True, 1, 10)),
             endpoint(("a", 0, True, 1, 10), ("b", 10, False, 2, 4))),
    ],
    "diagnostics": [
        {"severity": "warning", "message": "vm_size: retires\n soon"},
        {"severity": "info", "message": "said"},
        {"severity": "error", "message": "agent_count: too few"},
    ],
}  # fmt: skip


def test_the_order_and_the_figures() -> None:
    text = markdown(report(PREVIEW, TODAY))
    lines = text.splitlines()
    assert lines[0] == "### 1 to create, 2 to update, 1 to replace, 1 to delete (1 unchanged)"
    wanted = [
        "**Replaced:** ManagedCluster `scoring`",
        "**Deleted:** AgentPool `old`",
        "- ManagedCluster `scoring` is replaced because of `networkProfile.podCidr`",
        "| churn | a | 100 % → 90 % | 1–10 |",
        "| churn | b | – → 10 % | – → 2–4 |",
        "| scoring | inference | 3 → 5 | 12 → 20 | 0 |",
        "- **error** agent_count: too few",
        "- **warning** vm_size: retires soon",
        "#### Known only when applied (2)",
        "- Model `m`: tags.a",
        "<details><summary>All differences</summary>",
        "! replace azure-native:containerservice:ManagedCluster scoring",
    ]
    assert [lines.index(one) for one in wanted] == sorted(lines.index(one) for one in wanted)
    (cost,) = (line for line in lines if line.startswith("| scoring | USD"))
    assert "USD +335.80 a month" in cost


NOWHERE = {key: value for key, value in CLUSTER.items() if key != "location"}


@pytest.mark.parametrize(
    ("config", "old", "new", "figures"),
    [
        ({"azure-native:location": "westeurope"}, NOWHERE, {**NOWHERE, "agentCount": 5.0},
         ("USD 1,080.40", "USD 1,416.20", "USD +335.80 a month")),
        ({"azure-native:location": "westeurope"}, None, CLUSTER, (None, "USD 1,080.40", "USD +1,080.40 a month")),
        (None, CLUSTER, None, ("USD 1,080.40", None, "USD -1,080.40 a month")),
        ({"azure-native:location": {"secret": True}}, None, NOWHERE,
         (None, "USD 73.00 and what is unknown: pool system, pool inference",
          "USD +73.00 a month (of the parts whose price is known)")),
    ],
)  # fmt: skip
def test_the_cost_is_the_previews(config: Any, old: Any, new: Any, figures: tuple[Any, ...]) -> None:
    op = "update" if old and new else "create" if new else "delete"
    (cost,) = report({"config": config, "steps": [step(op, effects.CLUSTER, "scoring", old, new)]}, TODAY).costs
    assert (cost.before, cost.after, cost.change) == figures


@pytest.mark.parametrize(("store", "each"), [(None, Resources(150, 1088)), ("az://a/b", Resources(160, 1152))])
def test_replicas_are_fitted_with_what_stands_beside_them(
    monkeypatch: pytest.MonkeyPatch, store: str | None, each: Resources
) -> None:
    fitted: list[Service] = []

    def fit(cluster: Cluster, services: list[Service]) -> FitReport:
        fitted.extend(services)
        return fit_services(cluster, services)

    monkeypatch.setattr(effects, "fit_services", fit)
    version = {"name": "a", "isDefault": True, "modelData": {"store": store}}
    wanted = {"resources": {"cpuCores": 0.1, "memoryGb": 1.0}}
    spec = {"metadata": {"name": "churn"}, "spec": {"versions": [{**version, **wanted}]}}
    made = step("create", effects.ENDPOINTS[1], "churn", None, spec)
    cluster = step("same", effects.CLUSTER, "scoring", CLUSTER, CLUSTER)
    assert "fits; nodes in use" in markdown(report({"steps": [cluster, made]}, TODAY))
    assert [one.workload.each for one in fitted if one.workload.name == "churn/a"] == [each]


def test_as_json() -> None:
    found = report(PREVIEW, TODAY)
    assert (found.counts["replace"], [change.name for change in found.deleted()]) == (1, ["old"])
    assert found.endpoints[0].versions[1].traffic == (None, 10.0)
    assert found.pools[1].vcpus == (12, 20)
    assert found.unknown == ("Model `m`: tags.a", "Model `m`: target")


def test_nothing_changes() -> None:
    assert markdown(report({"steps": [step("same", "a:b:C", "c", {}, {})]}, TODAY)).splitlines()[0] == (
        "### No change (1 unchanged)"
    )


def test_what_is_too_long_is_cut_at_the_end() -> None:
    many = [step("update", "a:b:C", f"c{i}", {"x": "y" * 300}, {"x": "z" * 300}) for i in range(500)]
    text = markdown(report({"steps": [*PREVIEW["steps"], *many]}, TODAY))
    assert len(text) <= LONGEST
    assert "lines more: see the preview itself" in text
    assert text.rstrip().endswith("</details>")
    assert "**Deleted:** AgentPool `old`" in text


def test_secrets_are_not_shown() -> None:
    hidden = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": "the key"}
    text = markdown(report({"steps": [step("update", "a:b:C", "c", {"key": "x"}, {"key": hidden})]}, TODAY))
    assert "the key" not in text
    assert "(secret)" in text


@pytest.mark.parametrize("preview", [{}, {"steps": 3}, {"steps": [{}]}, {"steps": [3]}])
def test_what_is_no_preview(preview: Any) -> None:
    with pytest.raises(NotAPreview):
        report(preview, TODAY)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "preview.json"
    file.write_text(f"Previewing…\n{json.dumps(PREVIEW)}")
    assert run(["--preview", str(file)]) == 0
    assert capsys.readouterr().out.startswith("### 1 to create")
    assert run(["--preview", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["delete"] == 1
    file.write_text("nothing")
    assert run(["--preview", str(file)]) == 1
    assert "holds no object" in capsys.readouterr().err
    assert run(["--preview", str(tmp_path / "nowhere")]) == 1
