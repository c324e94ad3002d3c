"""Fixtures of the engine's tests: a project in a folder of its own, and the engine as the process that users start."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from engine_cloud import Run
from engine_lab import Lab

from embedded_engine.cli import main

LIMIT_S = 120


@dataclasses.dataclass
class Workspace:
    """A project with a backend, a home and an environment that nothing else uses."""

    folder: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]]

    @property
    def project(self) -> Path:
        return self.folder / "app"

    @property
    def state_file(self) -> Path:
        return self.folder / "state" / ".pulumi" / "stacks" / "tested" / "dev.json"

    @property
    def lock_folder(self) -> Path:
        return self.folder / "state" / ".pulumi" / "locks" / "organization" / "tested" / "dev"

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """The engine with these arguments, in the project's folder."""
        options: dict[str, Any] = {
            "cwd": self.project,
            "env": self.environment,
            "text": True,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        process = subprocess.Popen([sys.executable, "-m", "embedded_engine", *arguments], **{**options, **more})
        self.started.append(process)
        return process

    def process(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the engine as a process to its end; `environment` is added to the workspace's."""
        process = self.start(*arguments, stdin=subprocess.PIPE, env={**self.environment, **environment})
        out, err = process.communicate(stdin, timeout=LIMIT_S)
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the engine's main function in this process: as the user sees it, but soon."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
            mock.patch("sys.argv", ["embedded-engine", *arguments]),
            contextlib.chdir(self.project),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        code = ended.value.code
        return subprocess.CompletedProcess(list(arguments), int(code or 0), out.getvalue(), err.getvalue())

    def must(self, *arguments: str, stdin: str = "") -> str:
        """Runs the engine, which must succeed; returns what it printed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def export(self, *arguments: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.must("stack", "export", *arguments))
        return content


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty Python project `tested` without a stack."""
    for name in ("app", "state", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "app" / "Pulumi.yaml").write_text("name: tested\nruntime: python\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}
    environment = {
        **kept,
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "x",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    made = Workspace(tmp_path, environment, [])
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def stack(workspace: Workspace) -> Workspace:
    """The project with an empty stack `dev`, selected."""
    # With a salt of the passphrase "x", since making one takes a while.
    salt = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
    (workspace.project / "Pulumi.dev.yaml").write_text(f"encryptionsalt: {salt}\n")
    workspace.must("stack", "init", "dev")
    return workspace


@pytest.fixture
def import_state(stack: Workspace) -> Callable[[list[dict[str, Any]]], None]:
    """Puts resources in wire form into the stack's state."""

    def put(resources: list[dict[str, Any]]) -> None:
        deployment = {"manifest": {"time": "2026-01-01T00:00:00Z", "magic": "", "version": ""}, "resources": resources}
        stack.must("stack", "import", stdin=json.dumps({"version": 3, "deployment": deployment}))

    return put


@pytest.fixture
def run(stack: Any) -> Run:
    return Run(stack)


@pytest.fixture
def lab(stack: Any) -> Lab:
    return Lab(stack)
