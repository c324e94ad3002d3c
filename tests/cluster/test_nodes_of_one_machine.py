"""Of two test runs on one machine, the one that comes second leaves the first one's node alone."""

import fcntl
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed import build, node
from testbed.processes import BedError


@pytest.mark.parametrize("newer", [False, True])
def test_who_does_not_hold_the_machine_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command))
    node.machine_lock().parent.mkdir()
    second = node.Node(cast(Any, SimpleNamespace()), newer=newer)
    with node.machine_lock().open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(BedError, match="another node"):
            second.start()
        second.stop()
    assert asked == []
    assert not second.folder.exists()


def test_the_first_node_of_a_machine_may_be_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_further(_: node.Node) -> None:
        raise BedError("as far as this")

    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    monkeypatch.setattr(node.Node, "_containerd", no_further)
    first = node.Node(cast(Any, SimpleNamespace()), newer=True)
    with pytest.raises(BedError, match="as far as this"):
        first.start()
    first.stop()
    assert not first.folder.exists()
