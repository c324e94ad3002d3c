"""What is stored stays what it was, whatever a replica's script does to what it was given."""

import errno
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.content import file_digest
from aks_inference_runtime.api.endpoint import ModelReference
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.api.supervisor import ModelRegistration
from aks_inference_runtime.local import apps
from aks_inference_runtime.local.files import read_wire, remove_tree
from aks_inference_runtime.local.models import ModelStore
from aks_inference_runtime.local.records import ReplicaRecord
from aks_inference_runtime.local.replica import record_path
from aks_inference_runtime.models.errors import ContentMismatch

REFERENCE = ModelReference(name="net", version=1)


class Stored:
    """A model of two files that is stored, and where it came from."""

    def __init__(self, root: Path) -> None:
        self.source = root / "net"
        self.store = ModelStore(root / "store")
        self.files = root / "store" / "net" / "1" / "files" / "net"
        (self.source / "sub").mkdir(parents=True)
        (self.source / "a").write_text("weights")
        (self.source / "sub" / "b").write_text("more")
        self.put()

    def put(self) -> ModelRecord:
        return self.store.put(ModelRegistration(name="net", source_path=str(self.source)))

    def damage(self, file: str = "a") -> None:
        """As a script of root's, or one that changes the mode first: the name stays, the content does not."""
        path = self.files / file
        path.chmod(0o644)
        path.write_text("harmed!")


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_stored_and_laid_out_is_read_only(stored: Stored, tmp_path: Path) -> None:
    stored.store.link(REFERENCE, tmp_path / "out")
    for folder in (stored.files, tmp_path / "out" / "net"):
        assert [mode(folder / name) for name in ("a", "sub/b")] == [0o444, 0o444]
    assert (tmp_path / "out" / "net" / "a").stat().st_ino == (stored.files / "a").stat().st_ino, "no copy"


def test_files_of_an_older_store_become_read_only(stored: Stored, tmp_path: Path) -> None:
    (stored.files / "a").chmod(0o644)
    stored.store.link(REFERENCE, tmp_path / "out")
    assert mode(stored.files / "a") == 0o444


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_damaged_file_is_put_back_from_where_it_came_from(stored: Stored, tmp_path: Path, harm: str) -> None:
    if harm == "changed":
        stored.damage()
    else:
        (stored.files / "a").unlink()
    stored.store.link(REFERENCE, tmp_path / "out")
    assert (tmp_path / "out" / "net" / "a").read_text() == (stored.files / "a").read_text() == "weights"
    assert mode(stored.files / "a") == 0o444


@pytest.mark.parametrize("source", ["changed", "gone"])
def test_a_damaged_file_is_refused_until_it_is_registered_anew(stored: Stored, tmp_path: Path, source: str) -> None:
    expected, origin = file_digest(stored.files / "a"), stored.source / "a"
    stored.damage()
    stored.damage("sub/b")
    if source == "changed":
        origin.write_text("another")
    else:
        origin.unlink()
    with pytest.raises(ContentMismatch) as refused:
        stored.store.link(REFERENCE, tmp_path / "out")
    text = str(refused.value)
    assert f"net:1: {stored.files / 'a'} was changed in the store" in text
    assert f"expected {expected}" in text
    assert "sub/b" not in text, "that one could be put back"
    origin.write_text("weights")
    assert stored.put().version == 1
    stored.store.link(REFERENCE, tmp_path / "out2")
    assert (tmp_path / "out2" / "net" / "a").read_text() == "weights"


def test_a_new_version_does_not_take_over_what_was_damaged(stored: Stored, tmp_path: Path) -> None:
    stored.damage()
    (stored.source / "c").write_text("new")
    assert stored.put().version == 2
    second = stored.files.parents[2] / "2" / "files" / "net"
    assert (second / "a").read_text() == "weights"
    assert (second / "sub" / "b").stat().st_ino == (stored.files / "sub" / "b").stat().st_ino


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_without_links_files_are_copied(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refuse)
    stored.store.link(REFERENCE, tmp_path / "out")
    (stored.source / "c").write_text("new")
    assert stored.put().version == 2
    for folder in (tmp_path / "out" / "net", stored.files.parents[2] / "2" / "files" / "net"):
        assert (folder / "a").read_text() == "weights"
        assert (folder / "a").stat().st_ino != (stored.files / "a").stat().st_ino
        assert mode(folder / "a") == 0o444


def test_an_app_root_that_was_written_to_is_laid_out_anew(stored: Stored, cluster: Any) -> None:
    version = cluster.version("a-1", models=[{"name": "net", "version": 1}])
    codes = apps.CodeStore(cluster.root / "codes")
    codes.put(version.code)
    target = cluster.root / "app"
    models = target / "azureml-models" / "net" / "1" / "net"

    def build() -> Path:
        return apps.build_app_root(target, version, stored.store, codes)

    assert build() == target
    assert [mode(folder) for folder in (models, *models.parents[:3])] == [0o555] * 4
    first = models.stat().st_ino
    build()
    assert models.stat().st_ino == first, "unchanged: nothing to do"
    for folder in (models, models / "sub"):
        folder.chmod(0o755)
    (models / "cache").write_text("a script's own")
    assert apps.unchanged(target)
    (models / "a").unlink()
    (models / "a").write_text("weighed")  # as long as the right one
    assert not apps.unchanged(target)
    second = target.with_name("app.1")
    target.with_name("app.note").touch()
    assert build() == build() == second
    anew = second / models.relative_to(target)
    assert ((anew / "a").read_text(), (stored.files / "a").read_text()) == ("weights", "weights")
    assert (models / "a").read_text() == "weighed", "who runs from it is left alone"
    stored.damage()
    assert not apps.unchanged(second)
    third, fourth = target.with_name("app.10"), target.with_name("app.11")
    third.mkdir()
    assert build() == fourth
    anew = fourth / models.relative_to(target)
    assert ((anew / "a").read_text(), (stored.files / "a").read_text()) == ("weights", "weights")
    assert apps.builds(target) == [target, second, third, fourth]
    assert [path.name for path in cluster.root.glob(".*")] == []
    apps.remove_unused(target, {second})
    assert apps.builds(target) == [second, fourth]
    apps.remove_unused(target, ())
    assert apps.builds(target) == [fourth]
    remove_tree(fourth)
    assert not fourth.exists()


WRITES = """
import os, pathlib

def init():
    global found
    path = pathlib.Path(os.environ["AZUREML_MODEL_DIR"]) / "net" / "a"
    found = path.read_text()
    path.chmod(0o644)
    path.write_text("harmed!")

def run(data):
    return {"answer": found}
"""


async def test_a_script_that_writes_into_its_model_harms_nobody(
    stored: Stored, cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.supervisor.models.put(ModelRegistration(name="net", source_path=str(stored.source)))
    writes = cluster.version("a-1", cluster.code("writes", WRITES), models=[{"name": "net", "version": 1}])

    async def answer(endpoint: str) -> object:
        version = cluster.router.state.endpoints[endpoint].versions[0]
        return (await cluster.score(next(t for t in version.replicas if t.ready)))[1]

    for name in ("one", "two"):
        await cluster.supervisor.put_endpoint(cluster.endpoint(name, writes))
        await cluster.served(name)
        assert await answer(name) == {"answer": "weights"}
    (replica,) = cluster.supervisor.endpoint("one").replicas()
    os.kill(replica.record.server_pid, signal.SIGKILL)
    ready = _other_ready(cluster, replica.id)
    await cluster.until(ready, "a new replica is ready")
    assert await answer("one") == {"answer": "weights"}
    assert "was changed in the store; it was put back from" in caplog.text
    assert "extra keys" not in replica.record.log.read_text(), "what the server says of its own settings"
    await cluster.supervisor.delete_endpoint("one")
    assert not (cluster.paths.apps / "one").exists()


READS_LATE = """
import os, pathlib

def init():
    pass

def run(data):
    by_its_folder = pathlib.Path("late/late.txt").read_text()
    model = (pathlib.Path(os.environ["AZUREML_MODEL_DIR"]) / "net" / "sub" / "b").read_text()
    return {"pid": os.getpid(), "answer": [by_its_folder, model]}
"""


async def test_who_runs_reads_on_while_others_get_their_files_anew(stored: Stored, cluster: Any) -> None:
    """The old folder goes with the last replica that runs from it."""
    cluster.supervisor.models.put(ModelRegistration(name="net", source_path=str(stored.source)))
    cluster.code("late", READS_LATE)
    (cluster.root / "late" / "late.txt").write_text("there")
    code = cluster.code("late", READS_LATE)
    settings = {"models": [{"name": "net", "version": 1}], "scaling": {"autoscale_enabled": False, "num_replicas": 1}}
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1", code, **settings)))
    await cluster.served("svc")
    (old,) = cluster.supervisor.endpoint("svc").replicas()
    (root,) = (cluster.paths.apps / "svc" / "a-1").iterdir()
    model = root / "azureml-models" / "net" / "1" / "net" / "a"
    model.chmod(0o644)
    model.write_text("harmed!")
    settings["scaling"] = {"autoscale_enabled": False, "num_replicas": 2}
    await cluster.supervisor.put_endpoint(cluster.endpoint("svc", cluster.version("a-1", code, **settings)))
    await cluster.until(lambda: len(cluster.router.targets(ready=True)) == 2, "a second replica")
    roots = apps.builds(root)
    assert len(roots) == 2

    async def answers() -> list[object]:
        return [(await cluster.score(target))[1]["answer"] for target in cluster.router.targets(ready=True)]

    assert await answers() == [["there", "more"]] * 2
    # What the next supervisor goes by, too.
    records = [replica.record for replica in cluster.supervisor.endpoint("svc").replicas()]
    assert {read_wire(record_path(cluster.paths, record.id), ReplicaRecord).app_root for record in records} == set(
        roots
    )
    os.kill(old.record.server_pid, signal.SIGKILL)
    await cluster.until(lambda: apps.builds(root) == roots[1:], "nobody runs from the old one")
    others = lambda: [t for t in cluster.router.targets(ready=True) if t.id != old.id]  # noqa: E731
    await cluster.until(lambda: len(others()) == 2, "two again")
    assert await answers() == [["there", "more"]] * 2


def _other_ready(cluster: Any, before: str) -> Callable[[], bool]:
    return lambda: any(r.ready and r.id != before for r in cluster.supervisor.endpoint("one").replicas())
