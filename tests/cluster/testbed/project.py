"""A Pulumi project with a stack in a folder of its own, previewed and applied by the embedded engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from aks_inference_runtime.api.kubernetes import ROUTER_NAME, RuntimeSettings
from aks_inference_runtime.kubernetes.pod import settings

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 360
"""A replica that cannot start is given up after three restarts, between which the kubelet waits longer and longer."""
SALT = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
"""Of the passphrase "x"."""


def settings_of(api: Any, namespace: str) -> RuntimeSettings:
    """What routers of a namespace are told."""
    found = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{ROUTER_NAME}").body
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return settings({one["name"]: one.get("value", "") for one in container["env"]})


class Project:
    """`told` is what the program reads from `told.json`; `code` is the folder of the entry script."""

    def __init__(self, folder: Path, program: str, **told: Any) -> None:
        self.folder, self.told = folder / "app", {"service": {}, **told}
        (self.folder / "code" / "inner").mkdir(parents=True)
        (folder / "state").mkdir()
        plugin = {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]}
        (self.folder / "Pulumi.yaml").write_text(json.dumps({"name": "t", "runtime": "python", "plugins": plugin}))
        (self.folder / "Pulumi.dev.yaml").write_text(f"encryptionsalt: {SALT}\n")
        (self.folder / "__main__.py").write_text(program)
        (self.folder / "code" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
        (self.folder / "code" / "inner" / "data file.json").write_text("{}")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}
        self.environment = {
            **kept,
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.must("stack", "init", "dev")

    def must(self, *arguments: str) -> str:
        (self.folder / "told.json").write_text(json.dumps(self.told))
        done = subprocess.run(
            [sys.executable, "-m", "embedded_engine", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def write(self, script: str) -> None:
        """The entry script."""
        (self.folder / "code" / "score.py").write_text(script)

    def up(self) -> str:
        return self.must("up", "--yes", "--stack", "dev")

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.must("stack", "output", "--json", "--show-secrets", "--stack", "dev"))
