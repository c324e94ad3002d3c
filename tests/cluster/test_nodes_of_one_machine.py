"""Of two test runs on one machine, the one that comes second leaves the first one's node alone."""

import fcntl
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed import build, node
from testbed.processes import BedError


def test_who_does_not_hold_the_machine_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command))
    (tmp_path / "containerd").mkdir()
    second = node.Node(cast(Any, SimpleNamespace()))
    with (tmp_path / "containerd" / "lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(BedError, match="another node"):
            second.start()
        second.stop()
    assert asked == []
    assert not second.folder.exists()
