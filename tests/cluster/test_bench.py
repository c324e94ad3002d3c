"""Measurements that need a control plane run to their end and have what is asked of them; the figures are theirs."""

import json
import subprocess
from pathlib import Path

import pytest

from testbed import build

ROOT = Path(__file__).parents[2]
STEPS = {"rolling update", "key rotation", "certificate change", "node pool swap", "router upgrade"}


def measured(name: str, *keys: str) -> dict[str, object]:
    """What a quick run found; it has these figures."""
    if missing := build.missing(build.API):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    command = [ROOT / "bench" / "run", name, "--quick", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, object] = json.loads(ran.stdout)
    assert set(keys) <= set(found), found
    return found


@pytest.mark.long
def test_cluster() -> None:
    found = measured(
        "cluster", "added_mean_ms", "added_p99_ms", "rps_per_core", "ready_to_serving_p99_ms", "failed_in_maintenance"
    )
    assert found["failed"] == {step: {} for step in STEPS}
    assert found["scrapes"]


@pytest.mark.long
def test_autoscaler() -> None:
    assert measured("autoscaler", "load_to_scale_p99_ms", "cpu_of_a_core")["scalings"] == 60
