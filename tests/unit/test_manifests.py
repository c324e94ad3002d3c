"""deploy/ is what the component declares; the dashboard and the alerts name metrics that there are."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from aks_inference.inference_runtime.monitoring import ALERTS, PANELS, rules
from aks_inference_runtime.api.kubernetes import AUTOSCALER_NAME, ROUTER_NAME

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\baks_inference_\w+")


def test_the_files_are_written_from_the_code() -> None:
    done = subprocess.run([sys.executable, "tools/manifests.py", "--check"], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0, "run `python tools/manifests.py`"


def metrics() -> tuple[set[str], set[str]]:
    """Names of families, and of the histograms among them."""
    files = ("kubernetes/measures.py", "observability/gates.py", "observability/versions.py")
    source = "".join((ROOT / "runtime/aks_inference_runtime" / name).read_text() for name in files)
    known = {f"aks_inference_{name}" for name in re.findall(r"\{PREFIX\}_(\w+)", source)}
    histograms = {f"aks_inference_{n}" for n in re.findall(r'histogram\(\s*f"\{PREFIX\}_(\w+)"', source)}
    return known, histograms


def test_every_metric_exists() -> None:
    known, histograms = metrics()
    assert len(histograms) == 2
    known |= {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    used = {name for query in [*PANELS, *ALERTS] for name in METRIC.findall(query.query)}
    assert used <= known, used - known


def test_the_table_of_metrics_has_all_of_them_and_no_other() -> None:
    text = (ROOT / "docs/observability.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `aks_inference_")]
    words = [word for row in rows for word in re.findall(r"`(\w+)`", row)]
    told = {word if word.startswith("aks_inference_") else f"aks_inference{word}" for word in words}
    assert told == metrics()[0]


def test_all_pods_of_the_runtime_run_on_linux_alone() -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy/runtime.yaml").read_text()))
    pods = {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment"}
    assert {name: pod["nodeSelector"] for name, pod in pods.items()} == {
        ROUTER_NAME: {"kubernetes.io/os": "linux"},
        AUTOSCALER_NAME: {"kubernetes.io/os": "linux"},
    }


def test_the_objects_are_one_document_each() -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy/runtime.yaml").read_text()))
    names = [(d["kind"], d["metadata"]["name"]) for d in documents]
    assert len(set(names)) == len(names)
    assert ("Deployment", "aks-inference-router") in names
    (group,) = rules()["groups"]
    assert all(rule["for"].endswith("m") for rule in group["rules"])
