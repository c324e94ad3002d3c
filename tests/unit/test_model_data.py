"""Model data collection: what scripts call, the files that it writes, and how they get from a spool to blobs."""

import ast
import csv
import fcntl
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.replica import model_data_script
from aks_inference_runtime.model_data.script.azureml import monitoring
from aks_inference_runtime.model_data.script.azureml.monitoring import CORRELATIONS, ModelDataCollector, _files
from aks_inference_runtime.model_data.script.azureml.monitoring._files import Files
from aks_inference_runtime.model_data.shipping import Outcome, Shipper

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


class Memory:
    """Blobs as Blob Storage has them; `faults` says what happens to the next appends."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.blocks: dict[str, int] = {}
        self.most = 10**9
        self.foreign: set[str] = set()
        self.faults: list[str] = []
        self.before: Callable[[str], None] = lambda _: None

    def length(self, name: str) -> int | None:
        return None if name in self.foreign else len(self.held.setdefault(name, b""))

    def read(self, name: str, start: int, count: int) -> bytes:
        return self.held.get(name, b"")[start : start + count]

    def append(self, name: str, position: int, block: bytes) -> Outcome:
        self.before(name)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refused":
            raise OperationFailed("503")
        if self.blocks.get(name, 0) >= self.most:
            return Outcome.FULL
        if len(self.held[name]) != position:
            return Outcome.MOVED
        self.held[name] += block
        self.blocks[name] = self.blocks.get(name, 0) + 1
        if fault == "answer lost":
            raise OperationFailed("no answer")
        if fault == "answer lost, tried again":
            return Outcome.MOVED
        return Outcome.DONE


def ship(shipper: Shipper) -> None:
    """As the process does it: again until nothing is left."""
    while True:
        try:
            if shipper.round() == 0:
                return
        except OperationFailed:
            pass


FAULTS = st.lists(st.sampled_from(["", "refused", "answer lost", "answer lost, tried again"]), max_size=12)
BATCHES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([b"a,b\n", b"c\n", b""]), st.integers(1, 3), st.booleans()),
    max_size=12,
)


@settings(max_examples=40)
@given(faults=FAULTS, batches=BATCHES, most=st.sampled_from([1, 2, 10**9]), restarts=st.booleans())
def test_every_row_once_below_its_header(
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[str],
    batches: list[tuple[int, bytes, int, bool]],
    most: int,
    restarts: bool,
) -> None:
    """Two pods append to the same blob, answers are lost, blobs fill up, the process dies between its steps."""
    blobs = Memory()
    blobs.faults, blobs.most = list(faults), most
    pods = [tmp_path_factory.mktemp("pod") for _ in range(2)]
    shippers = [Shipper(pod, blobs) for pod in pods]
    sent: dict[bytes, list[bytes]] = {}
    for number, (pod, header, count, now) in enumerate(batches):
        lines = [f"row-{number}-{line}\n".encode() for line in range(count)]
        Files(str(pods[pod]), spool=True).add("day/data.csv", header, lines)
        sent.setdefault(header, []).extend(lines)
        if now:
            try:
                shippers[pod].round()
            except OperationFailed:
                if restarts:
                    shippers[pod] = Shipper(pods[pod], blobs)
    for shipper in shippers:
        ship(shipper)
    assert [path for pod in pods for path in pod.rglob("*") if path.is_file()] == []
    found: list[bytes] = []
    for content in blobs.held.values():
        lines = content.splitlines(keepends=True)
        heads = {line for line in lines if not line.startswith(b"row-")}
        assert len(heads) <= 1
        assert not heads or lines[0] in heads
        found += [line for line in lines if line.startswith(b"row-")]
        for header in heads - {b""}:
            assert set(lines[1:]) <= {*sent[header], *sent.get(b"", [])}
    assert sorted(found) == sorted(line for lines in sent.values() for line in lines)


def test_who_comes_first_writes_the_header(tmp_path: Path) -> None:
    blobs = Memory()
    other = [b"h\nother\n"]

    def first(name: str) -> None:
        if other:
            blobs.held[name] = other.pop()

    blobs.before = first
    Files(str(tmp_path), spool=True).add("a.csv", b"h\n", [b"mine\n"])
    Shipper(tmp_path, blobs).round()
    assert blobs.held == {"a.csv": b"h\nother\nmine\n"}


def test_a_blob_that_does_not_grow_is_left_alone(tmp_path: Path) -> None:
    blobs = Memory()
    blobs.foreign = {"a.csv"}
    Files(str(tmp_path), spool=True).add("a.csv", b"", [b"x\n"])
    Shipper(tmp_path, blobs).round()
    assert blobs.held == {"a-2.csv": b"x\n"}


def test_a_damaged_file_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv.0").write_bytes(b"no json\nrow\n")
    (tmp_path / "b.csv.0").write_bytes(b"")
    (tmp_path / "c.csv.0.taken.place").write_bytes(b"{")
    Files(str(tmp_path), spool=True).add("c.csv", b"", [b"x\n"])
    blobs = Memory()
    Shipper(tmp_path, blobs).round()
    assert blobs.held == {"c.csv": b"x\n"}
    assert "a.csv.0.taken is damaged" in caplog.text


def test_a_spool_keeps_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "FILE_BYTES", 100)
    monkeypatch.setattr(_files, "SPOOL_FILES", 3)
    files = Files(str(tmp_path), spool=True)
    files.add("a.csv", b"h\n", [b"%09d\n" % number for number in range(16)])
    with pytest.raises(OSError, match="not stored yet"):
        files.add("a.csv", b"h\n", [b"%09d\n" % number for number in range(16)])
    with pytest.raises(OSError, match="a row of more than"):
        files.add("b.csv", b"h\n", [b"x" * 100])
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    blobs = Memory()
    ship(Shipper(tmp_path, blobs))
    files.add("a.csv", b"h\n", [b"last\n"])
    ship(Shipper(tmp_path, blobs))
    head, *kept = blobs.held["a.csv"].splitlines()
    assert (head, kept[0], kept[-1]) == (b"h", b"000000000", b"last")


def test_workers_and_the_uploader_share_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "FILE_BYTES", 2_000)
    blobs, ended = Memory(), threading.Event()

    def work(worker: int) -> None:
        files = Files(str(tmp_path), spool=True)
        for number in range(200):
            files.add("a.csv", b"h\n", [f"{worker}-{number}\n".encode()])

    def upload() -> None:
        shipper = Shipper(tmp_path, blobs)
        while not ended.is_set():
            shipper.round()

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    uploader = threading.Thread(target=upload)
    for thread in (*workers, uploader):
        thread.start()
    for thread in workers:
        thread.join()
    ended.set()
    uploader.join()
    ship(Shipper(tmp_path, blobs))
    head, *found = blobs.held["a.csv"].decode().split()
    assert head == "h"
    assert sorted(found) == sorted(f"{worker}-{number}" for worker in range(3) for number in range(200))


def test_what_pods_get_is_the_whole_package() -> None:
    files = model_data_script()
    assert sorted(files) == ["azureml/__init__.py", "azureml/monitoring/__init__.py", "azureml/monitoring/_files.py"]
    for path in files.values():
        # Images may have the oldest Python that the scoring server runs on.
        ast.parse(path.read_text(), feature_version=(3, 9))
