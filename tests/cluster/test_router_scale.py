"""`bench/run scale`, the smaller one: what must hold on any machine. The figures are the measurement's."""

import json
import subprocess
from pathlib import Path

import pytest

from testbed import build

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_one_router_serves_hundreds_of_endpoints_in_little_memory() -> None:
    if missing := build.missing(build.API):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    command = [ROOT / "bench" / "run", "scale", "--quick", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["not_served"] == 0, found
    assert set(found["busy_answers"]) == {"200"}, found
    assert found["agent_memory_mb"] < 150, found
