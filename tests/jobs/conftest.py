"""Jobs on this machine, in an environment that is there already: this interpreter."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.jobs.model import Job
from aks_inference_runtime.local.environments import hash_of

DEADLINE_S = 30.0


def make_environment(root: Path) -> Path:
    """The environment without packages, as the store keeps it."""
    folder = root / hash_of(())
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "environment.json").write_text(json.dumps({"serverVersion": "1.5.1"}))
    return root


@pytest.fixture
def environments(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "environments")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: empty again when a job has ended."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """A job of one script; its results are in `results`."""

    def make(script: str, *arguments: str, files: Mapping[str, str] | None = None, **more: Any) -> Job:
        project = tmp_path / "project"
        project.mkdir(exist_ok=True)
        for name, text in {"train.py": script, **(files or {})}.items():
            (project / name).write_text(text)
        found = {path.name: path for path in project.iterdir()}
        return Job("job-1", "train.py", "project", found, tmp_path / "results", arguments, **more)

    return make


@pytest.fixture
def until() -> Callable[..., None]:
    """`until(condition, what)`: waits with a deadline."""

    def wait(holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end, f"not in time: {what}"
            time.sleep(0.02)

    return wait
