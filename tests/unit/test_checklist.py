"""docs/cluster-checklist.md names files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_is_there() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "cluster-checklist.md").read_text("utf-8").splitlines()
        if line.startswith("| ")
    ][2:]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`((?:tests|provider)/[^`]+)`", row)
        assert named, row
        assert [name for name in named if not (ROOT / name).is_file()] == [], row
