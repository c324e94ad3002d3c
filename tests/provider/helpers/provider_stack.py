"""Whole stacks, driven by the embedded engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
ENGINE = Path(sys.executable).parent / "embedded-engine"


class Stack:
    """A project with a stack of its own backend."""

    def __init__(self, folder: Path, program: str) -> None:
        self.project = folder / "project"
        (self.project / "source").mkdir(parents=True)
        (self.project / "source" / "score.py").write_text(
            "def init():\n    pass\n\n\ndef run(data):\n    return data\n"
        )
        (self.project / "model.bin").write_bytes(b"one")
        self.program(program)
        described = {
            "name": "proj",
            "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
            "plugins": {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]},
        }
        (self.project / "Pulumi.yaml").write_text(json.dumps(described))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")} | {
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
        }
        self.run("stack", "init", "dev", stack=False)

    def program(self, text: str) -> None:
        (self.project / "__main__.py").write_text(text)

    def configure(self, **values: str) -> None:
        """As `config set` of plain values, without a command each."""
        path = self.project / "Pulumi.dev.yaml"
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        config = content.setdefault("config", {})
        config.update({f"proj:{key}": value for key, value in values.items()})
        path.write_text(json.dumps(content))

    def run(self, *arguments: str, stack: bool = True, code: int = 0) -> str:
        done = subprocess.run(
            [str(ENGINE), *arguments, *(["--stack", "dev"] if stack else []), "--non-interactive"],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command that the caller ends."""
        return subprocess.Popen(
            [str(ENGINE), *arguments, "--stack", "dev", "--non-interactive"],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def preview(self) -> dict[str, Any]:
        text = self.run("preview", "--json")
        return dict(json.loads(text[text.index("{") :]))

    def up(self, code: int = 0) -> str:
        return self.run("up", "--yes", "--skip-preview", code=code)

    def outputs(self) -> dict[str, Any]:
        return dict(json.loads(self.run("stack", "output", "--json", "--show-secrets")))
