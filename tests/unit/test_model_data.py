"""Model data collection: what scripts call, and the files that it writes."""

import ast
import csv
import fcntl
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from aks_inference_runtime.api.replica import model_data_script
from aks_inference_runtime.model_data.script.azureml import monitoring
from aks_inference_runtime.model_data.script.azureml.monitoring import CORRELATIONS, ModelDataCollector, _files
from aks_inference_runtime.model_data.script.azureml.monitoring._files import Files

NOW = datetime(2026, 3, 4, 23, 59, 58, 123456, UTC)
DAY = "sub/group/space/svc/diabetes/7"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a service with two versions of a model collects."""
    for version in ("2", "7", ".new"):
        (tmp_path / "app/azureml-models/diabetes" / version).mkdir(parents=True)
    monkeypatch.setenv("AML_APP_ROOT", str(tmp_path / "app"))
    monkeypatch.setenv("SERVICE_NAME", "svc")
    monkeypatch.setenv("AML_MODEL_DC_STORAGE_ENABLED", "true")
    monkeypatch.setenv(monitoring.FOLDER, str(tmp_path / "store"))
    monkeypatch.setenv(monitoring.WORKSPACE, "Sub/Group/Space")
    monkeypatch.setattr(monitoring, "_now", lambda: NOW)
    return tmp_path / "store"


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


class Frame:
    """As much of a DataFrame as is used."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.held = dict(columns)

    @property
    def columns(self) -> list[str]:
        return list(self.held)

    def itertuples(self, index: bool, name: None) -> list[tuple[Any, ...]]:
        assert (index, name) == (False, None)
        return list(zip(*self.held.values(), strict=True))

    def copy(self, deep: bool) -> "Frame":
        return Frame(self.held)

    def __setitem__(self, name: str, value: Any) -> None:
        self.held[name] = [value] * len(next(iter(self.held.values())))


def test_inputs_and_predictions_of_a_request_lie_where_azure_ml_had_them(store: Path) -> None:
    inputs = ModelDataCollector("diabetes", designation="inputs", feature_names=["age", "bmi"])
    predictions = ModelDataCollector("diabetes", "predictions", feature_names=["progress"])
    found = inputs.collect(np.array([[1, 2], [3, 4]]), user_correlation_id="mine")
    assert found is not None
    predictions.collect(predictions.add_correlations(np.array([[0.5], [0.25]]), found))
    head, *collected = rows(store / DAY / "inputs/2026/03/04/data.csv")
    assert head == ["age", "bmi", *CORRELATIONS]
    assert [row[:2] for row in collected] == [["1", "2"], ["3", "4"]]
    told = dict(zip(head, collected[0], strict=True))
    assert told["$aml_dc_correlation_id"].startswith("mine-")
    assert told | {"age": "", "bmi": "", "$aml_dc_correlation_id": ""} == {
        "age": "",
        "bmi": "",
        "$aml_dc_correlation_id": "",
        "$aml_dc_scoring_timestamp": "2026-03-04T23:59:58.123456",
        "$aml_dc_boundary": "1440",
        "$aml_workspace": "sub/group/space",
        "$aml_service_name": "svc",
        "$aml_model_name": "diabetes",
        "$aml_model_version": "7",
        "$aml_request_id": monitoring.NO_REQUEST,
    }
    head, *predicted = rows(store / DAY / "predictions/2026/03/04/data.csv")
    assert head == ["progress", *CORRELATIONS]
    assert [row[1:] for row in predicted] == [row[2:] for row in collected]


def test_labels_lie_beside_the_inputs_that_they_are_of(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ModelDataCollector("diabetes", "inputs").collect([1, "two, three", 'say "x"', None])
    monkeypatch.setattr(monitoring, "_now", lambda: datetime(2026, 5, 6, tzinfo=UTC))
    labels = ModelDataCollector("diabetes", "labels", feature_names=["true"])
    labels.collect(labels.add_correlations([1.5], found))
    labels.collect([2.5])
    assert rows(store / DAY / "inputs/2026/03/04/data.csv")[0][:4] == ["1", "two, three", 'say "x"', ""]
    assert rows(store / DAY / "labels/2026/03/04/data.csv")[1][0] == "1.5"
    assert rows(store / DAY / "labels/2026/05/06/data.csv") == [["true"], ["2.5"]]


def test_a_frame_brings_its_own_header_and_another_header_another_file(store: Path) -> None:
    data = ModelDataCollector("diabetes", "signals", collection_name="drift", feature_names=["not used"])
    data.collect(Frame({"a": [1, 2], "b": ["x", "y"]}))
    data.collect(Frame({"a": [3]}))
    data.collect(Frame({"a": [4], "b": ["z"]}))
    folder = store / DAY / "signals/2026/03/04"
    assert rows(folder / "drift.csv") == [["a", "b"], ["1", "x"], ["2", "y"], ["4", "z"]]
    assert rows(folder / "drift-2.csv") == [["a"], ["3"]]
    found = ModelDataCollector("diabetes", "inputs").collect(Frame({"a": [1]}))
    added = data.add_correlations(Frame({"c": [1, 2]}), found)
    assert added.columns == ["c", *CORRELATIONS]
    assert data.add_correlations([1], None) == [1]


NAMES = [
    ({"designation": "default"}, f"{DAY}/general/2026/03/04/data.csv"),
    ({"model_version": "3", "webservice_name": "own"}, "sub/group/space/own/diabetes/3/general/2026/03/04/data.csv"),
    ({"workspace": "A/b/C"}, "a/b/c/svc/diabetes/7/general/2026/03/04/data.csv"),
    ({"model_name": "other"}, "sub/group/space/svc/other/default/general/2026/03/04/data.csv"),
    ({"model_name": "../../etc"}, "sub/group/space/svc/..%2F..%2Fetc/default/general/2026/03/04/data.csv"),
    ({"model_version": ".."}, "sub/group/space/svc/diabetes/%2E%2E/general/2026/03/04/data.csv"),
    ({"workspace": "../.."}, "%2E%2E/%2E%2E/svc/diabetes/7/general/2026/03/04/data.csv"),
    ({"designation": "inputs", "collection_name": "x"}, f"{DAY}/inputs/2026/03/04/data.csv"),
]


@pytest.mark.parametrize(("arguments", "path"), NAMES)
def test_where_a_file_is(arguments: dict[str, Any], path: str, store: Path) -> None:
    ModelDataCollector(**{"model_name": "diabetes", **arguments}).collect([1])
    assert [file.relative_to(store).as_posix() for file in store.rglob("*.csv")] == [path]


def test_switched_off_calls_do_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AML_MODEL_DC_STORAGE_ENABLED", "false")
    off = ModelDataCollector("diabetes", designation="inputs")
    assert off.collect([1]) is None
    assert off.add_correlations([1], off.collect([1])) == [1]
    assert not store.exists()


def test_what_cannot_be_collected_is_told(store: Path) -> None:
    with pytest.warns(UserWarning, match="'input' is none of inputs, predictions, labels, signals, general"):
        ModelDataCollector("diabetes", designation="input").collect([1])
    with pytest.warns(UserWarning, match="a list, a numpy array or a DataFrame"):
        ModelDataCollector("diabetes", designation="inputs").collect({"a": 1})
    assert not store.exists()


def test_a_disk_that_refuses_fails_no_score_and_is_told_once(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.write_text("a file in the folder's place")
    inputs = ModelDataCollector("diabetes", designation="inputs")
    for _ in range(3):
        assert inputs.collect([1]) is not None
    assert capsys.readouterr().err == "model data: 1 rows of inputs were lost: Not a directory\n"


def test_the_request_id_is_the_access_logs(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flask: Any = ModuleType("flask")
    flask.has_request_context = lambda: True
    flask.request = type("Request", (), {"headers": {"x-request-id": "r-1"}})
    monkeypatch.setitem(sys.modules, "flask", flask)
    found = ModelDataCollector("diabetes", designation="inputs").collect([1])
    assert found is not None
    assert found["$aml_request_id"] == "r-1"


def test_names_that_do_not_fit_are_no_header(store: Path) -> None:
    """An array of one dimension is one row: three predictions and what they are correlated by."""
    found = ModelDataCollector("diabetes", "inputs", feature_names=["age"]).collect(np.array([[1], [2], [3]]))
    predictions = ModelDataCollector("diabetes", "predictions", feature_names=["progress"])
    predictions.collect(predictions.add_correlations(np.array([[0.5], [0.25]]), found))
    with pytest.warns(UserWarning, match="1 feature_names for rows of 11 values: these have no header"):
        predictions.collect(predictions.add_correlations(np.array([1.5, 2.5, 3.5]), found))
    folder = store / DAY / "predictions/2026/03/04"
    assert [len(row) for row in rows(folder / "data.csv")] == [9, 9, 9]
    assert [row[:3] for row in rows(folder / "data-2.csv")] == [["1.5", "2.5", "3.5"]]


@pytest.mark.parametrize("header_first", [True, False])
def test_rows_without_a_header_have_a_file_of_their_own(header_first: bool, tmp_path: Path) -> None:
    # The first row without a header looks like one.
    order = [(b"h\n", b"1\n"), (b"", b"h\n")]
    for header, row in [*(order if header_first else order[::-1]), (b"", b"2\n"), (b"h\n", b"3\n")]:
        Files(str(tmp_path), spool=False).add("a.csv", header, [row])
    headed, other = ("a.csv", "a-2.csv") if header_first else ("a-2.csv", "a.csv")
    assert (tmp_path / headed).read_bytes() == b"h\n1\n3\n"
    assert (tmp_path / other).read_bytes() == b"h\n2\n"
    # A file that somebody removed begins anew, with whatever comes first.
    (tmp_path / other).unlink()
    (tmp_path / headed).unlink()
    for header, row in order if not header_first else order[::-1]:
        Files(str(tmp_path), spool=False).add("a.csv", header, [row])
    assert (tmp_path / other).read_bytes() == b"h\n1\n"
    assert (tmp_path / headed).read_bytes() == b"h\n"


def test_half_a_row_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(str(tmp_path), spool=False)
    files.add("a.csv", b"h\n", [b"one\n"])
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: whole(descriptor, content[:2]))
    with pytest.raises(OSError, match="No space left"):
        files.add("a.csv", b"h\n", [b"two\n"])
    monkeypatch.undo()
    files.add("a.csv", b"h\n", [b"three\n"])
    assert (tmp_path / "a.csv").read_text() == "h\none\nthree\n"


def test_who_holds_the_lock_for_good_costs_a_second_and_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "LOCK_S", 0.05)
    files = Files(str(tmp_path), spool=False)
    files.add("a.csv", b"", [b"one\n"])
    with (tmp_path / "a.csv").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            files.add("a.csv", b"", [b"two\n"])
    files.add("a.csv", b"", [b"three\n"])
    assert (tmp_path / "a.csv").read_text() == "one\nthree\n"


def test_what_pods_get_is_the_whole_package() -> None:
    files = model_data_script()
    assert sorted(files) == ["azureml/__init__.py", "azureml/monitoring/__init__.py", "azureml/monitoring/_files.py"]
    for path in files.values():
        # Images may have the oldest Python that the scoring server runs on.
        ast.parse(path.read_text(), feature_version=(3, 9))
