"""Model data on its way from a pod's spool to blobs that others append to as well."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.model_data.script.azureml.monitoring import _files
from aks_inference_runtime.model_data.script.azureml.monitoring._files import Files
from aks_inference_runtime.model_data.shipping import NotAppended, Outcome, Shipper


class Killed(BaseException):
    """The process ended here."""


class Memory:
    """Blobs as Blob Storage has them; `faults` says what happens to the next appends, `away` to the next looks."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.blocks: dict[str, int] = {}
        self.bare: set[str] = set()
        self.most = 10**9
        self.foreign: set[str] = set()
        self.faults: list[str] = []
        self.away: list[bool] = []
        self.before: Callable[[str], None] = lambda _: None

    def length(self, name: str, *, headed: bool) -> int | None:
        if self.away and self.away.pop(0):
            raise OperationFailed("no answer")
        if name in self.foreign:
            return None
        if name not in self.held and not headed:
            self.bare.add(name)
        length = len(self.held.setdefault(name, b""))
        return None if headed == (name in self.bare) else length

    def read(self, name: str, start: int, count: int) -> bytes:
        return self.held.get(name, b"")[start : start + count]

    def append(self, name: str, position: int, block: bytes) -> Outcome:
        self.before(name)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refused":
            raise NotAppended("403")
        if fault == "lost on the way":
            raise OperationFailed("no answer")
        if self.blocks.get(name, 0) >= self.most:
            return Outcome.FULL
        if len(self.held[name]) != position:
            return Outcome.MOVED
        self.held[name] += block
        self.blocks[name] = self.blocks.get(name, 0) + 1
        if fault == "answer lost":
            raise OperationFailed("no answer")
        if fault == "killed":
            raise Killed
        return Outcome.DONE


def ship(shipper: Shipper) -> None:
    """As the process does it: again until nothing is left."""
    while True:
        try:
            if shipper.round() == 0:
                return
        except (OperationFailed, NotAppended, Killed):
            pass


SURE = ["", "refused", "answer lost", "killed"]
ROWS = st.lists(st.sampled_from([b"0\n", b"1\n", b"c\n"]), min_size=1, max_size=3)
BATCHES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([b"a,b\n", b"c\n", b""]), ROWS, st.booleans()), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(
    faults=st.lists(st.sampled_from([*SURE, "lost on the way"]), max_size=12),
    away=st.lists(st.booleans(), max_size=12),
    batches=BATCHES,
    most=st.sampled_from([1, 2, 10**9]),
    restarts=st.booleans(),
    equal=st.booleans(),
)
def test_every_row_once_below_its_header(
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[str],
    away: list[bool],
    batches: list[tuple[int, bytes, list[bytes], bool]],
    most: int,
    restarts: bool,
    equal: bool,
) -> None:
    """Two pods append to the same blob, answers are lost, blobs fill up, the process dies between its steps. Their rows
    may be equal, but not where nothing but the rows tells whether an append arrived.
    """
    blobs = Memory()
    blobs.faults = [fault for fault in faults if fault in SURE or not equal]
    blobs.away, blobs.most = list(away), most
    pods = [tmp_path_factory.mktemp("pod") for _ in range(2)]
    shippers = [Shipper(pod, blobs) for pod in pods]
    sent: dict[bytes, Counter[bytes]] = {}
    for number, (pod, header, drawn, now) in enumerate(batches):
        lines = drawn if equal else [b"row-%d-%d\n" % (number, line) for line in range(len(drawn))]
        Files(str(pods[pod]), spool=True).add("day/data.csv", header, lines)
        sent.setdefault(header, Counter()).update(lines)
        if now:
            try:
                shippers[pod].round()
            except (OperationFailed, NotAppended):
                if restarts:
                    shippers[pod] = Shipper(pods[pod], blobs)
            except Killed:
                shippers[pod] = Shipper(pods[pod], blobs)
    for shipper in shippers:
        ship(shipper)
    assert [path for pod in pods for path in pod.rglob("*") if path.is_file()] == []
    found: dict[bytes, Counter[bytes]] = {}
    for name, content in blobs.held.items():
        lines = content.splitlines(keepends=True)
        if lines:
            header = b"" if name in blobs.bare else lines.pop(0)
            found.setdefault(header, Counter()).update(lines)
    assert found == sent


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


def collect(pod: Path, row: bytes, header: bytes = b"h\n") -> None:
    Files(str(pod), spool=True).add("a.csv", header, [row])


def test_equal_rows_of_another_pod_are_not_taken_for_ours(tmp_path: Path) -> None:
    blobs = Memory()
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = Shipper(one, blobs), Shipper(two, blobs)
    for pod, shipper, row in ((one, first, b"1\n"), (two, second, b"0\n"), (one, first, b"0\n")):
        collect(pod, row)
        shipper.round()
    assert blobs.held == {"a.csv": b"h\n1\n0\n0\n"}


@pytest.mark.parametrize("fault", ["refused", "moved, and no answer to where"])
def test_what_surely_was_not_appended_is_not_looked_for(fault: str, tmp_path: Path) -> None:
    """Another one's equal rows may lie there by then."""
    blobs = Memory()
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = Shipper(one, blobs), Shipper(two, blobs)
    collect(one, b"1\n")
    first.round()
    collect(one, b"0\n")
    collect(two, b"0\n")
    if fault == "refused":
        blobs.faults = ["refused"]
    else:
        second.round()
        blobs.away = [True]
    with pytest.raises((NotAppended, OperationFailed)):
        first.round()
    ship(second)
    ship(first)
    assert blobs.held == {"a.csv": b"h\n1\n0\n0\n"}


def test_a_kill_while_it_tidies_up_says_nothing_of_later_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Memory()
    collect(tmp_path, b"1\n")
    remove = Path.unlink

    def ended(path: Path, missing_ok: bool = False) -> None:
        remove(path, missing_ok=missing_ok)
        if path.name.endswith(".taken"):
            raise Killed

    monkeypatch.setattr(Path, "unlink", ended)
    with pytest.raises(Killed):
        Shipper(tmp_path, blobs).round()
    monkeypatch.undo()
    collect(tmp_path, b"1\n")
    ship(Shipper(tmp_path, blobs))
    assert blobs.held == {"a.csv": b"h\n1\n1\n"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("header_first", [True, False])
def test_rows_without_a_header_have_a_blob_of_their_own(header_first: bool, tmp_path: Path) -> None:
    blobs = Memory()
    # The first row without a header looks like one.
    order = [(b"h\n", b"1\n"), (b"", b"h\n")]
    for header, row in [*(order if header_first else order[::-1]), (b"", b"2\n"), (b"h\n", b"3\n")]:
        collect(tmp_path, row, header)
        ship(Shipper(tmp_path, blobs))
    names = ("a.csv", "a-2.csv") if header_first else ("a-2.csv", "a.csv")
    assert blobs.held == dict(zip(names, (b"h\n1\n3\n", b"h\n2\n"), strict=True))


def test_a_blob_that_refuses_holds_up_no_other_one(tmp_path: Path) -> None:
    blobs = Memory()

    def refuse(name: str) -> None:
        if name.startswith("a"):
            raise NotAppended("409")

    blobs.before = refuse
    for name in ("a/data.csv", "b/data.csv", "c/data.csv"):
        Files(str(tmp_path), spool=True).add(name, b"x\n", [b"1\n"])
    shipper = Shipper(tmp_path, blobs)
    with pytest.raises(NotAppended, match="409"):
        shipper.round()
    assert {name: held for name, held in blobs.held.items() if held} == dict.fromkeys(
        ("b/data.csv", "c/data.csv"), b"x\n1\n"
    )
    blobs.before = lambda _: None
    ship(shipper)
    assert blobs.held["a/data.csv"] == b"x\n1\n"
