"""Figures of `bench/run chaos`: of a round, of several together, and of a run that goes on."""

import tempfile
from pathlib import Path

import pytest
from bench.chaos_rounds import Kept, Round, observed, together


def test_a_round() -> None:
    records = [(float(n), n + 0.1, 200, "") for n in range(10)]
    records[4] = (4.0, 4.05, 502, "replica-lost")
    records[6] = (6.0, 26.0, 0, "TimeoutError")
    found = observed(records, [(3.95, "replica killed"), (5.5, "owner killed")], [1, 2, 1], 0)
    assert (found.faults, found.requests, found.good) == (["replica killed", "owner killed"], 10, 8)
    assert [round(length) for length in found.gaps_ms] == [1_150, 1_600]
    assert found.failed == {"replica killed": {"502 replica-lost": 1}, "owner killed": {"0 TimeoutError": 1}}
    assert (found.unanswered, round(found.slowest_ms), found.over_admissions) == (1, 20_000, 1)


def made(gaps_ms: list[float], good: int = 100, failed: int = 0) -> Round:
    faults = ["owner killed"] * len(gaps_ms)
    return Round(faults, gaps_ms, good + failed, good, {"owner killed": {"502 router-lost": failed}}, 0, 7.0, 0, 0)


def test_rounds_together() -> None:
    found = together([made([10.0] * 99), made([900.0, 20.0], good=99, failed=1)])
    assert (found["success"], found["requests"], found["gap_p99_ms"]) == (0.995, 200, 20)
    assert found["longest_gap_ms"] == {"owner killed": 900}
    assert found["failed"] == {"owner killed": {"502 router-lost": 1}}


def test_a_run_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Kept(["owner killed"])
    assert kept.read() == []
    kept.write([made([1.0])])
    assert Kept(["owner killed"]).read() == [made([1.0])]
    assert Kept(["leader killed"]).read() == []
    kept.forget()
    assert kept.read() == []
