"""Alerts and panels as Prometheus evaluates them: each alert comes when it must, and not before or beside that."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aks_inference.inference_runtime.monitoring import ALERTS, CERTIFICATE_DAYS, PANELS, rules

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: install Debian's prometheus")

BLUE = 'endpoint="svc",version="blue"'
GREEN = 'endpoint="svc",version="green"'
LABELS = {"endpoint": "svc", "version": "blue"}
RUNTIME = {"namespace": "aks-inference"}
MINUTES = 90
"""Of each story; its series have a value every minute."""


def counter(name: str, labels: str, a_minute: float) -> tuple[str, str]:
    return f"{name}{{{labels}}}", f"0+{a_minute}x{MINUTES}"


def gauge(name: str, labels: str, value: float) -> tuple[str, str]:
    return f"{name}{{{labels}}}", f"{value}+0x{MINUTES}"


def refused(labels: str, a_minute: float) -> list[tuple[str, str]]:
    return [
        counter("aks_inference_rejected_total", labels, a_minute),
        counter("aks_inference_requests_total", labels, 100),
    ]


def answers(labels: str, code: int, a_minute: float, reason: str = "") -> tuple[str, str]:
    return counter("aks_inference_answers_total", f'{labels},code="{code}",reason="{reason}"', a_minute)


def wanted(replicas: float, labels: str = BLUE) -> tuple[str, str]:
    return gauge("aks_inference_wanted_replicas", f'{labels},pod="autoscaler-1"', replicas)


def replicas(ready: float, needed: float, labels: str = BLUE) -> list[tuple[str, str]]:
    # Of two routers the one that owns the endpoint tells; of two autoscalers the one that leads.
    return [
        gauge("aks_inference_ready_replicas", f'{labels},pod="router-0"', ready),
        wanted(needed, labels),
    ]


def leaders(*words: int) -> list[tuple[str, str]]:
    names = (f'namespace="aks-inference",pod="autoscaler-{n}"' for n in range(len(words)))
    return [gauge("aks_inference_autoscaler_leader", name, word) for name, word in zip(names, words, strict=True)]


def owners(changes_a_minute: float, endpoints: int) -> list[tuple[str, str]]:
    labels = 'namespace="aks-inference",pod="router-0"'
    return [
        counter("aks_inference_owner_changes_total", labels, changes_a_minute),
        gauge("aks_inference_owned_endpoints", labels, endpoints),
    ]


def ends(days: float) -> list[tuple[str, str]]:
    return [gauge("aks_inference_certificate_ends_seconds", f'pod="router-{n}"', days * 86_400) for n in (0, 1)]


def alive(routers: int, namespace: str = "aks-inference") -> list[tuple[str, str]]:
    return [
        gauge("aks_inference_routers_alive", f'namespace="{namespace}",pod="router-{n}"', routers)
        for n in range(routers)
    ]


WORKS = [*leaders(1, 0), *alive(2)]
"""Without them another alert stands beside each."""

STORIES: list[tuple[str, list[tuple[str, str]], int, list[tuple[str, dict[str, str]]]]] = [
    ("nothing is asked", [*WORKS, *replicas(2, 2)], 60, []),
    ("all is well", [*WORKS, *replicas(2, 2), answers(BLUE, 200, 600), *refused(BLUE, 4), *ends(20)], 60, []),
    ("a few errors", [*WORKS, answers(BLUE, 200, 960), answers(BLUE, 502, 40, "router-lost")], 60, []),
    (
        "no replica is ready, of one of two versions",
        [*WORKS, *replicas(0, 0), *replicas(1, 1, GREEN), answers(BLUE, 200, 9), answers(BLUE, 404, 9, "no-replica")],
        60,
        [("AksInferenceNoReplica", LABELS)],
    ),
    ("refused before there was one", [*WORKS, *replicas(1, 1), answers(BLUE, 404, 9, "no-replica")], 60, []),
    ("refusals", [*WORKS, *refused(BLUE, 6), *refused(GREEN, 4)], 60, [("AksInferenceRefusals", LABELS)]),
    ("refusals, for less than five minutes", [*WORKS, *refused(BLUE, 6)], 4, []),
    (
        "errors",
        [*WORKS, answers(BLUE, 200, 900), answers(BLUE, 502, 60, "router-lost"), answers(GREEN, 200, 900)],
        60,
        [("AksInferenceErrors", LABELS)],
    ),
    ("replicas are missing", [*WORKS, *replicas(1, 3)], 60, [("AksInferenceReplicasMissing", LABELS)]),
    ("replicas come", [*WORKS, *replicas(1, 3)], 9, []),
    ("all replicas are missing", [*WORKS, *replicas(0, 3)], 60, [("AksInferenceReplicasMissing", LABELS)]),
    ("no router tells of the replicas", [*WORKS, wanted(3)], 60, [("AksInferenceReplicasMissing", LABELS)]),
    ("no router tells of no replicas", [*WORKS, wanted(0)], 60, []),
    (
        "all routers are dead",
        [*leaders(1, 0), wanted(3)],
        60,
        [("AksInferenceNoRouter", RUNTIME), ("AksInferenceReplicasMissing", LABELS)],
    ),
    ("all routers are dead, for a minute", [*leaders(1, 0), wanted(3)], 1, []),
    (
        "of two runtimes one has no router",
        [*leaders(1, 0), *alive(1, "second"), gauge("aks_inference_autoscaler_leader", 'namespace="second"', 1)],
        60,
        [("AksInferenceNoRouter", RUNTIME)],
    ),
    ("nobody leads", [*leaders(0, 0), *alive(2)], 60, [("AksInferenceNoAutoscaler", RUNTIME)]),
    ("two lead", [*leaders(1, 1), *alive(2)], 60, [("AksInferenceNoAutoscaler", RUNTIME)]),
    ("no autoscaler is there", alive(2), 60, [("AksInferenceNoAutoscaler", {})]),
    ("nothing is there", [], 60, [("AksInferenceNoAutoscaler", {}), ("AksInferenceNoRouter", {})]),
    ("routers are replaced", [*WORKS, *owners(9.9, 10)], 60, []),
    ("owners change again and again", [*WORKS, *owners(10.5, 10)], 60, [("AksInferenceOwnersChange", RUNTIME)]),
    ("the certificate ends", [*WORKS, *ends(CERTIFICATE_DAYS)], 62, [("AksInferenceCertificateEnds", {})]),
    ("the certificate is just renewed", [*WORKS, *ends(CERTIFICATE_DAYS)], 59, []),
]


def promtool(folder: Path, *words: str) -> str:
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_comes_when_it_must_and_no_other(tmp_path: Path) -> None:
    """Each by its labels: where alerts are grouped and silenced by them, one without its endpoint helps nobody."""
    found = rules()["groups"][0]["rules"]
    severity = {rule["alert"]: rule["labels"] for rule in found}
    summary = {rule["alert"]: rule["annotations"]["summary"] for rule in found}
    (tmp_path / "rules.json").write_text(json.dumps(rules()))
    tests: list[dict[str, Any]] = []
    for name, series, minute, fired in STORIES:
        checks = []
        for alert in ALERTS:
            wanted = [
                {
                    "exp_labels": labels | severity[alert.name],
                    "exp_annotations": {"summary": _filled(summary[alert.name], labels)},
                }
                for fires, labels in fired
                if fires == alert.name
            ]
            checks.append({"eval_time": f"{minute}m", "alertname": alert.name, "exp_alerts": wanted})
        input_series = [{"series": one, "values": values} for one, values in series]
        tests.append({"name": name, "interval": "1m", "input_series": input_series, "alert_rule_test": checks})
    (tmp_path / "tests.json").write_text(
        json.dumps({"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests})
    )
    promtool(tmp_path, "test", "rules", "tests.json")
    assert {name for _, _, _, fired in STORIES for name, _ in fired} == {alert.name for alert in ALERTS}


def _filled(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace(f"{{{{ $labels.{name} }}}}", value)
    return text


def test_every_panel_asks_what_prometheus_understands(tmp_path: Path) -> None:
    queries = [panel.query.replace("$__rate_interval", "5m") for panel in PANELS]
    rows = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "panels.json").write_text(json.dumps({"groups": [{"name": "panels", "rules": rows}]}))
    assert f"{len(PANELS)} rules found" in promtool(tmp_path, "check", "rules", "panels.json")
