"""`./quickstart --target kubernetes` on a real node, as a user runs it; and what it refuses before it begins."""

import json
import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from testbed.project import ROOT, SALT, Project
from testbed.registry import Registry

STACK_FILE = ROOT / "Pulumi.quickstart.yaml"
PROGRAM = f"""
import os, runpy
os.chdir({str(ROOT / "examples" / "quickstart")!r})
runpy.run_path("__main__.py", run_name="__main__")
"""
STEPS = ["train", "preview", "apply", "score", "rollout", "scale", "again", "destroy"]
LIMIT_S = 580


def quickstart(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(ROOT / "quickstart"), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--target", "kubernetes"], 2, "--target kubernetes needs --registry"),
        (
            ["--target", "kubernetes", "--registry", "r.example", "--kubeconfig", "/nowhere"],
            1,
            "no kubeconfig: /nowhere",
        ),
    ],
)
def test_what_is_missing_is_told_and_nothing_is_made(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = quickstart(*arguments, TMPDIR=str(tmp_path))
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_program_is_checked_whole_before_anything_is_made(cluster, tmp_path):
    """Its preview, against a control plane without nodes."""
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry")
    try:
        project = Project(tmp_path, PROGRAM)
        given = {
            "target": "kubernetes",
            "kubeconfig": str(cluster.kubeconfig),
            "registry": f"{registry.host}/quickstart",
            "image": "application:1",
            "secret": "access",
            "modelsDirectory": str(tmp_path / "models"),
            "traffic": {"ridge": 90, "boosted": 10},
        }
        config = {"encryptionsalt": SALT, "config": {f"t:{name}": value for name, value in given.items()}}
        (project.folder / "Pulumi.dev.yaml").write_text(json.dumps(config))
        for name in ("ridge", "boosted"):
            (tmp_path / "models" / name).mkdir(parents=True)
            (tmp_path / "models" / name / "model.joblib").write_bytes(name.encode())
        project.environment |= registry.environment
        shown = project.must("preview", "--stack", "dev")
    finally:
        registry.stop()
    assert "model diabetes-ridge: 1 file new" in shown
    assert f"into oci://{registry.host}/quickstart/models" in shown
    assert re.search(r"boosted +10.00 %", shown)
    for kind, count in (("StoredModels", 3), ("Deployment", 5), ("ScoringEndpoint", 2)):
        assert len(re.findall(rf"[/:]{kind}\b", shown)) >= count, kind
    found = cluster.api.get("/apis/apps/v1/deployments").body["items"]
    assert not [d for d in found if d["metadata"]["name"].startswith("diabetes")], "nothing was made"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_story_on_a_cluster(node, tmp_path):
    image = node.with_packages(f"scikit-learn=={version('scikit-learn')}")
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry")
    secrets = "/api/v1/namespaces/default/secrets"
    assert node.api.create(secrets, registry.secret("quickstart-registry")).status == 201
    try:
        where = ["--kubeconfig", str(node.kubeconfig), "--service-type", "ClusterIP"]
        what = ["--registry", f"{registry.host}/quickstart", "--image", image, "--secret", "quickstart-registry"]
        done = quickstart("--json", "--target", "kubernetes", *where, *what, **registry.environment)
    finally:
        node.api.delete(f"{secrets}/quickstart-registry")
        registry.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(lines) == STEPS
    assert all(line["ok"] for line in lines.values())
    assert lines["score"]["wrong_key"] == 401
    assert lines["score"]["largest_difference"] <= 1e-9, "the model in the pods is the one that was trained here"
    rollout = lines["rollout"]
    assert rollout["during"]["failed"] == rollout["after"]["failed"] == 0
    assert rollout["within_bound"] is True
    assert lines["scale"]["peak"] >= 3
    assert lines["scale"]["replicas"][-1] == 1
    assert lines["again"]["untouched"] is True
    assert lines["again"]["mistakes_named"] == 2
    assert lines["destroy"]["serving_before"] >= 5, "router, autoscaler, three replicas"
    assert set(lines["destroy"]["left"].values()) == {0}
    assert node.api.get("/api/v1/pods").body["items"] == []
    assert not STACK_FILE.exists()
