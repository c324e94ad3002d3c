"""`bench/run chaos`, with fewer faults: what must hold on any machine. The figures are the measurement's."""

import json
import subprocess
from pathlib import Path

import pytest

from testbed import build

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_over_faults_no_limit_is_passed_and_nothing_is_lost() -> None:
    if missing := build.missing(build.API):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    command = [ROOT / "bench" / "run", "chaos", "--quick", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert (found["over_admissions"], found["lost_endpoints"]) == (0, 0), found
    # How many succeed on a machine that has other things to do is the measurement's to say.
    assert found["success"] > 0.5, found
