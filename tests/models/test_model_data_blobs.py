"""Model data on its way from a pod's spool to Blob Storage: the sidecar's own process against Azurite."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.model_data import __main__ as sidecar
from aks_inference_runtime.model_data.blobs import AppendBlobs
from aks_inference_runtime.model_data.script.azureml.monitoring._files import Files
from aks_inference_runtime.model_data.shipping import NotAppended, Outcome, Shipper
from aks_inference_runtime.models.azure import CONNECTION_STRING_FILE, container_client
from aks_inference_runtime.models.errors import StoreUnavailable

HEADER = b"$id,value\n"
DAY = "default/default/default/svc/m/1/inputs/2026/03/04/data.csv"


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(content.decode().splitlines()))


def read(azurite: Any, container: str, name: str) -> bytes:
    return bytes(azurite.container(container).download_blob(name).readall())


def blobs(azurite: Any, container: str, prefix: str = "") -> AppendBlobs:
    """Of a container that is not made by the test."""
    from azure.storage.blob import BlobServiceClient

    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    return AppendBlobs(f"az://{azurite.account}/{container}", prefix, lambda: service.get_container_client(container))


def test_two_pods_append_to_one_blob_below_one_header(azurite: Any, tmp_path: Path) -> None:
    pods = [tmp_path / "one", tmp_path / "two"]
    shippers = [Shipper(pod, blobs(azurite, "appended", "a/b")) for pod in pods]
    for number in range(4):
        for pod in pods:
            Files(str(pod), spool=True).add(DAY, HEADER, [f"{pod.name}-{number},1\n".encode()])
        for shipper in shippers:
            shipper.round()
    head, *found = rows(read(azurite, "appended", f"a/b/{DAY}"))
    assert head == ["$id", "value"]
    assert sorted(row[0] for row in found) == sorted(f"{pod.name}-{number}" for number in range(4) for pod in pods)


def test_what_blob_storage_says_of_an_append(azurite: Any) -> None:
    made = blobs(azurite, "answers")
    assert made.length("a.csv", headed=True) == 0
    assert made.append("a.csv", 0, b"one\n") is Outcome.DONE
    assert made.append("a.csv", 0, b"two\n") is Outcome.MOVED
    assert (made.length("a.csv", headed=True), made.read("a.csv", 1, 2), made.read("a.csv", 4, 9)) == (4, b"ne", b"")
    azurite.container("answers").upload_blob("block.csv", b"x")
    assert made.length("block.csv", headed=True) is None
    assert made.length("a.csv", headed=False) is None
    assert (made.length("bare.csv", headed=False), made.length("bare.csv", headed=False)) == (0, 0)
    assert made.length("bare.csv", headed=True) is None
    azurite.container("answers").delete_blob("a.csv")
    assert made.append("a.csv", 4, b"three\n") is Outcome.MOVED
    assert made.read("a.csv", 0, 4) == b""


def test_access_that_changed_is_taken_without_a_restart(
    azurite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kubelet does it in a mounted Secret."""
    given, spool = tmp_path / "connection-string", tmp_path / "spool"
    given.write_text(re.sub("AccountKey=[^;]*", "AccountKey=d3Jvbmc=", azurite.connection_string))
    monkeypatch.setenv(CONNECTION_STRING_FILE, str(given))
    made = AppendBlobs("az://a/rotated", "", lambda: container_client(azurite.account, "rotated", sidecar.RETRIES))
    shipper = Shipper(spool, made)
    Files(str(spool), spool=True).add("a.csv", HEADER, [b"1,1\n"])
    with pytest.raises(StoreUnavailable, match="answered 403"):
        shipper.round()
    given.write_text(azurite.connection_string)
    assert shipper.round() == 1
    assert read(azurite, "rotated", "a.csv") == HEADER + b"1,1\n"


def test_after_a_refusal_nothing_is_taken_for_stored(azurite: Any, tmp_path: Path) -> None:
    shipper, files = Shipper(tmp_path, blobs(azurite, "removed")), Files(str(tmp_path), spool=True)
    files.add("a.csv", HEADER, [b"1,1\n"])
    assert shipper.round() == 1
    azurite.container("removed").delete_container()
    files.add("a.csv", HEADER, [b"2,2\n"])
    with pytest.raises(NotAppended, match="ContainerNotFound"):
        shipper.round()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.0.taken"]
    assert shipper.round() == 1
    assert read(azurite, "removed", "a.csv") == HEADER + b"2,2\n"


def test_an_append_is_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK sent again would be refused for the rows of its first one, or for another one's."""
    asked: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(200, {"x-ms-blob-type": "AppendBlob", "Last-Modified": "Wed, 04 Mar 2026 00:00:00 GMT"})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path.partition("?")[2])
            self._answer(500, {"x-ms-error-code": "InternalError"})

        def _answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """No news."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            parts = {
                "AccountName": "acc",
                "AccountKey": "a2V5",
                "BlobEndpoint": f"http://127.0.0.1:{server.server_port}",
            }
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", ";".join(f"{key}={parts[key]}" for key in parts))
            made = AppendBlobs("az://acc/c", "", lambda: container_client("acc", "c", sidecar.RETRIES))
            Files(str(tmp_path), spool=True).add("a.csv", HEADER, [b"1,1\n"])
            with pytest.raises(StoreUnavailable, match="answered 500"):
                Shipper(tmp_path, made).round()
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["comp=appendblock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv.0.taken", "a.csv.0.taken.place"]


Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(own_azurite: Any, tmp_path: Path) -> Iterator[Start]:
    """Starts the sidecar as a pod does, with a Secret's files."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "connection-string").write_text(own_azurite.connection_string)
    told = {
        "spool": str(tmp_path / "spool"),
        "store": f"az://{own_azurite.account}/modeldata",
        "credentials": str(secret),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AZURE_")}
    started: list[subprocess.Popen[str]] = []

    def one() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", QUICK, json.dumps(told)]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate()


QUICK = """
import sys
from aks_inference_runtime.model_data import __main__ as sidecar
sidecar.ROUND_S = 0.05
sys.exit(sidecar.main(sys.argv[1:]))
"""
"""The process with shorter rounds."""


def stored(azurite: Any) -> list[str]:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return [row[0] for row in rows(read(azurite, "modeldata", DAY))]
    except ResourceNotFoundError:
        return []


@pytest.mark.long
def test_kills_of_the_sidecar_and_storage_that_is_away_lose_and_double_nothing(
    own_azurite: Any, start: Start, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    files, sent = Files(str(tmp_path / "spool"), spool=True), 0

    def collect(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            files.add(DAY, HEADER, [b"row-%d,1\n" % sent])
            sent += 1

    own_azurite.kill()
    process = start()
    collect(20)
    assert process.stderr is not None
    assert "model data waits: az://devstoreaccount1/modeldata: does not answer" in process.stderr.readline()
    # From here on it stays: a kill would cost it what it has not saved itself.
    own_azurite.start()
    assert "model data is stored again" in process.stderr.readline()
    for number in range(6):
        before = len(stored(own_azurite))
        collect(20)
        wait_until(lambda before=before: len(stored(own_azurite)) > before, "rows are stored")
        collect(20)
        process.send_signal(signal.SIGKILL if number < 5 else signal.SIGTERM)
        ended = process.wait(60)
        process = start() if number < 5 else process
    assert ended == 0
    head, *found = stored(own_azurite)
    assert head == "$id"
    assert sorted(found) == sorted(f"row-{number}" for number in range(sent))
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == []


def test_at_the_end_it_gives_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def round(self) -> int:
            raise OSError("no disk")

    times = iter(range(0, 1_000, 8))
    monkeypatch.setattr(sidecar, "LAST_PAUSE_S", 0.0)
    ending = sidecar.threading.Event()
    ending.set()
    assert sidecar.run(Away(), ending, lambda: next(times)) is False  # type: ignore[arg-type]


def test_wrong_settings_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert sidecar.main(['{"spool": "/s", "store": "/data"}']) == 2
    assert "error: SETTINGS: '/data' is not in Blob Storage" in capsys.readouterr().err
    assert sidecar.main([]) == 2
