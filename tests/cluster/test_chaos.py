"""`bench/run chaos`, with fewer faults: what must hold on any machine. The figures are the measurement's."""

import json
import subprocess
from pathlib import Path

import pytest

from testbed import build

ROOT = Path(__file__).parents[2]
TOLD = {"502 router-lost", "502 replica-lost", "503 queue-timeout", "503 no-replica"}
TOLD |= {"0 IncompleteReadError", "0 ConnectionResetError"}
"""What may become of a request that is not served; the last ones are resets, of a router that died with it."""


@pytest.mark.long
def test_over_faults_no_limit_is_passed_and_nothing_is_lost() -> None:
    if missing := build.missing(build.API):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    command = [ROOT / "bench" / "run", "chaos", "--quick", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert (found["over_admissions"], found["lost_endpoints"], found["unanswered"]) == (0, 0, 0), found
    assert {kind for counts in found["failed"].values() for kind in counts} <= TOLD, found
    # How many succeed on a machine that has other things to do is the measurement's to say.
    assert found["success"] > 0.5, found
