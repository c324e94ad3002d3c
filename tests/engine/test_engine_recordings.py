"""The recordings of the pulumi CLI, replayed against this engine: a chosen part here, all of them in the long run."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECORDINGS = HERE.parents[2] / "shared" / "data" / "engine-recordings"
ENGINE = f"{sys.executable} -m embedded_engine"
# What the engine's other tests compare least with the CLI: components of plugins, an order, a failure, secrets.
CHOSEN = (
    "component-remote",
    "delete-before-replace-option",
    "fail-create",
    "secrets-in-program",
)
LIMIT_S = 290
LONG_LIMIT_S = 1500

pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="the recordings of the pulumi engine are not beside this checkout"
)


def replayed(limit_s: float, *arguments: str) -> subprocess.CompletedProcess[str]:
    known = ("--known", str(HERE / "known-differences.txt"))
    command = [sys.executable, str(RECORDINGS / "replay.py"), "--engine", ENGINE, *known, "--jobs", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)


@pytest.mark.timeout(LIMIT_S + 5)
def test_chosen_scenarios_replay() -> None:
    done = replayed(LIMIT_S, "--only", ",".join(CHOSEN))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CHOSEN)} of {len(CHOSEN)} scenarios pass" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(LONG_LIMIT_S + 5)
def test_all_scenarios_replay() -> None:
    done = replayed(LONG_LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_known_difference_says_why() -> None:
    lines = [line for line in (HERE / "known-differences.txt").read_text().splitlines() if line.strip()]
    assert all(line.startswith("#") or line.partition("#")[2].strip() for line in lines)
