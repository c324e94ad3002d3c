"""Each example for Azure twice: applied, and again without a change."""

import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = [Path(__file__).resolve().parents[2] / "examples" / "aks"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_twice(example: Path, stack: Any, azure: Any) -> None:
    shutil.copy(example / "__main__.py", stack.project)
    stack.up()
    before = azure.log()
    assert set(stack.steps()) == {"same"}
    stack.up()
    assert azure.log() == before
