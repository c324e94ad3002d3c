"""A mistake, through the embedded engine: both commands refuse it and the stack stays as it was."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = Path(sys.executable).parent / "embedded-engine"
PROGRAM = """
from aks_inference import AksInferenceCluster, ControlledRolloutEndpoint, LocalInferenceCluster, RegisteredModel

cluster = LocalInferenceCluster("local", port=1, state_directory="state")
RegisteredModel("m", target=cluster, model_path="__main__.py")
ControlledRolloutEndpoint("roll", target=cluster, versions=[
    {"version_name": name, "traffic_percentile": 65, "inference_config": {"entry_script": "score.py"}}
    for name in ("first", "second")
])
AksInferenceCluster("production", agent_count=2)
"""

Engine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    project = tmp_path / "project"
    project.mkdir()
    (project / "__main__.py").write_text(PROGRAM)
    (project / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    described = {
        "name": "mistake",
        "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
        "plugins": {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]},
    }
    (project / "Pulumi.yaml").write_text(json.dumps(described))
    (tmp_path / "backend").mkdir()
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": (tmp_path / "backend").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "XDG_STATE_HOME": str(tmp_path / "xdg"),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(ENGINE), *arguments]
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=90, check=False
        )

    assert run("stack", "init", "dev").returncode == 0
    return run


@pytest.mark.parametrize("command", [("preview",), ("up", "--yes", "--skip-preview")], ids=["preview", "up"])
def test_a_mistake_is_refused_whole(engine: Engine, command: tuple[str, ...], tmp_path: Path) -> None:
    done = engine(*command)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "2 errors; nothing was changed" in said
    assert "the traffic percentiles sum to 130 (first 65 + second 65); at most 100" in said
    assert "agent_count 2 × Standard_D3_v2 (4 vCPU) = 8 vCPU; FastProd needs at least 12" in said
    assert "Traceback" not in said
    exported = json.loads(engine("stack", "export").stdout)
    types = {resource["type"] for resource in exported["deployment"].get("resources", [])}
    assert types <= {"pulumi:pulumi:Stack"}
    assert not (tmp_path / "project" / "state").exists()
