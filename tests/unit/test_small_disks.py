"""What tests mount is taken away again, also what a killed run left."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disks import SmallDisks, mounts, unmount_left_over

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small_disks import SmallDisks
SmallDisks().mount(Path(sys.argv[2]), 64)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def disks() -> Iterator[SmallDisks]:
    made = SmallDisks()
    try:
        yield made
    finally:
        made.unmount()
        unmount_left_over()


def places() -> list[Path]:
    return [place for _, place in mounts()]


def test_those_of_a_killed_run_go_and_those_of_a_running_one_stay(disks: SmallDisks, tmp_path: Path) -> None:
    own, left = tmp_path / "my own", tmp_path / "left over"
    for folder in (own, left):
        folder.mkdir()
    disks.mount(own, 64)
    helpers = str(Path(__file__).resolve().parents[1] / "helpers")
    done = subprocess.run([sys.executable, "-c", KILLED, helpers, str(left)], check=False, timeout=60)
    # It came as far as that. From here on any run on this machine may take its mount away.
    assert done.returncode == -signal.SIGKILL
    unmount_left_over()
    assert own in places()
    assert left not in places()
    assert not left.exists()
    disks.unmount()
    assert own not in places()
