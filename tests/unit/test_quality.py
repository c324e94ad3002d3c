"""Lint, format, types and layers: the same tools that a developer runs, as tests, so that `./test` has one summary."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
STORY_PATHS = ["examples/quickstart/story", "examples/quickstart/train.py", "tools/bootstrap.py"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "."], id="ruff-check"),
        pytest.param(["ruff", "format", "--check", "."], id="ruff-format"),
        pytest.param(["mypy"], id="mypy-packages"),
        pytest.param(["lint-imports", "--no-cache"], id="layers"),
    ],
)
def test_tool_finds_nothing(command: list[str]) -> None:
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_of_the_story() -> None:
    environment = os.environ | {"MYPYPATH": "examples/quickstart:examples/quickstart/story"}
    done = subprocess.run(
        [str(TOOLS / "mypy"), *STORY_PATHS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_no_long_file() -> None:
    code = [p for p in tracked() if p.suffix == ".py" and p.exists() and p.relative_to(ROOT).parts[0] != "tests"]
    long = {str(p.relative_to(ROOT)): n for p in code if (n := len(p.read_text().splitlines())) > 420}
    assert not long


def test_every_folder_of_tests_has_its_place(pytestconfig: pytest.Config) -> None:
    """In the order in which two workers take them (`tests/conftest.py`)."""
    (whole,) = [each for each in pytestconfig.pluginmanager.get_plugins() if hasattr(each, "AREAS")]
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*/test_*.py")]
    assert sorted(whole.AREAS) == sorted({whole.area(f"{file}::test") for file in files})


def test_every_shell_script_starts_its_interpreter() -> None:
    for name in ("quickstart", "test", "tools/python", ".ci/run"):
        assert (ROOT / name).read_text().startswith("#!"), name
        assert os.access(ROOT / name, os.X_OK), name


def test_the_reference_is_generated_from_the_schema() -> None:
    done = subprocess.run([sys.executable, "tools/reference.py", "--check"], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0, "run `python tools/reference.py`"
