"""Stacks whose provider keeps its things as files: the one in `cloud/`."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

LIMIT_S = 60
PROGRAM = """
import os
import pulumi

class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]
    def __init__(self, name, opts=None, **inputs):
        super().__init__("cloud:index:Thing", name, {"made": None, **inputs}, opts)

config = pulumi.Config()
first = Thing("first", value=config.get("value") or "v", delay=float(config.get("delay") or 0))
things = [
    Thing(f"thing-{i}", value=first.made, key=config.get("key") or "k", n=config.get("value") or "v",
          delay=float(config.get("delay") or 0), fail=config.get("fail") == str(i))
    for i in range(int(config.get("count") or 3))
]
pulumi.export("made", first.made)
pulumi.export("closed", pulumi.Output.secret("s3cret-text"))
"""


class Run:
    """A stack whose program makes `count` things in a folder that is its cloud."""

    def __init__(self, workspace: Any) -> None:
        self.workspace = workspace
        self.cloud: Path = workspace.folder / "cloud"
        self.plugins: Path = workspace.folder / "plugins"
        self.cloud.mkdir()
        workspace.environment["CLOUD_FOLDER"] = str(self.cloud)
        source = Path(__file__).resolve().parents[1] / "cloud"
        (workspace.project / "Pulumi.yaml").write_text(
            json.dumps(
                {
                    "name": "tested",
                    "runtime": "python",
                    "plugins": {"providers": [{"name": "cloud", "path": str(source)}]},
                }
            )
        )
        (workspace.project / "__main__.py").write_text(PROGRAM)

    def configure(self, **config: Any) -> None:
        path = self.workspace.project / "Pulumi.dev.yaml"
        salt = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
        content = {"encryptionsalt": salt, "config": {f"tested:{key}": str(value) for key, value in config.items()}}
        path.write_text(json.dumps(content))

    def up(self, *flags: str) -> str:
        done = self.workspace.process("up", "--yes", "--skip-preview", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def cloud_by_urn(self) -> dict[str, dict[str, Any]]:
        contents = [json.loads(path.read_text()) for path in self.cloud.glob("*.json")]
        return {content["urn"]: content for content in contents}

    def state(self) -> dict[str, Any]:
        content = json.loads(self.workspace.state_file.read_text())
        return dict(content["checkpoint"].get("latest") or {})

    def things(self) -> dict[str, dict[str, Any]]:
        return {r["urn"]: r for r in self.state().get("resources", []) if r["type"] == "cloud:index:Thing"}

    def wait_for_plugins(self) -> None:
        """Every plugin process that was started has ended."""
        pids = [int(path.name) for path in self.plugins.glob("*")] if self.plugins.exists() else []
        deadline = time.monotonic() + LIMIT_S
        while alive := [pid for pid in pids if psutil.pid_exists(pid) and not ended(pid)]:
            assert time.monotonic() < deadline, f"plugins that are left over: {alive}"
            time.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def told_of_all(run: Run) -> None:
    """Everything in the cloud is in the state or a pending operation, and the state can be read."""
    state = run.state()
    told = set(run.things()) | {o["resource"]["urn"] for o in state.get("pending_operations", [])}
    assert set(run.cloud_by_urn()) <= told


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
