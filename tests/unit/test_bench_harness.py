"""What all measurements share."""

import pytest
from bench import autoscaler, control_plane
from bench.harness import run_bench


def test_a_machine_without_the_test_bed_is_told_what_to_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control_plane.build, "missing", lambda _: ["etcd"])
    monkeypatch.setattr("sys.argv", ["autoscaler", "--quick"])
    with pytest.raises(SystemExit) as ended:
        run_bench("autoscaler", "About.", autoscaler.measure, autoscaler.table)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith("autoscaler: not built here: etcd (")
