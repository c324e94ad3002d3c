"""`aks-inference` as a whole: `--json` wherever it may stand, and a reader that has enough."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("aks-inference")
CLUSTER = "component: AksInferenceCluster\nargs: {location: westeurope, vmSize: Standard_D4s_v5, agentCount: 3}\n"
SIMULATE = ("simulate", "--traffic", "constant:5", "--duration", "10", "--service-ms", "10")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "preview.json").write_text('{"steps": [], "changeSummary": {}}')
    (tmp_path / "requirements.txt").write_text("numpy==2.1.0\n")
    (tmp_path / "models").mkdir()
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "check", "cluster.yaml"),
        ("--json", "doctor", "cluster.yaml", "--list"),
        ("--json", "report", "--preview", "preview.json"),
        ("--json", *SIMULATE),
        ("--json", "image", "key", "requirements.txt", "--offline"),
        ("image", "--json", "key", "requirements.txt", "--offline"),
        ("--json", "models", "list", "--store", "models"),
        ("models", "--json", "list", "--store", "models"),
    ],
)
def test_json_in_front_of_a_command(folder: Path, arguments: tuple[str, ...]) -> None:
    first = run(folder, *arguments)
    behind = [*(word for word in arguments if word != "--json"), "--json"]
    assert (first.returncode, first.stderr) == (0, "")
    json.loads(first.stdout)
    assert first.stdout == run(folder, *behind).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("check", "cluster.yaml", "--json"),
        ("check", "--help"),
        ("doctor", "cluster.yaml", "--list"),
        ("report", "--preview", "preview.json"),
        SIMULATE,
        ("models", "list", "--store", "models", "--json"),
        ("image", "key", "requirements.txt", "--offline"),
    ],
)
def test_a_reader_that_has_enough(folder: Path, arguments: tuple[str, ...]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [COMMAND, *arguments], cwd=folder, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    finally:
        os.close(theirs)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert "Exception ignored" not in done.stderr
