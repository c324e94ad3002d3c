"""`./quickstart --help` and wrong options are answered at once: nothing is installed for them."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORY = "examples/quickstart/story"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the command line needs, and no more."""
    for name in ("quickstart", "tools/python", f"{STORY}/options.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "tools" / "bootstrap.py").write_text("print('set up: something is to do'); raise SystemExit(7)\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--help"], 0, "--keep", ""),
        (["--port", "0"], 2, "", "'0' is no port"),
        (["--wrong"], 2, "", "unrecognized arguments: --wrong"),
        (["--target", "kubernetes"], 2, "", "needs --registry"),
        (["--json", "--keep"], 7, "", ""),
    ],
)
def test_what_the_command_line_says(checkout: Path, arguments: list[str], code: int, out: str, err: str) -> None:
    done = subprocess.run(
        [checkout / "quickstart", *arguments], cwd=checkout, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert out in done.stdout
    assert err in done.stderr
