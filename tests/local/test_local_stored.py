"""What lies on the disk: logs that are cut, versions of models."""

import asyncio
import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.endpoint import ModelReference
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.supervisor import LocalSettings, ModelRegistration
from aks_inference_runtime.local import logs
from aks_inference_runtime.local.files import read_wire, write_text
from aks_inference_runtime.local.models import ModelStore


@pytest.mark.parametrize(
    ("content", "says"),
    [("\0", r"damaged \(Invalid JSON"), ('{"name": 1, "port": "x"}', r"damaged \([a-zA-Z]+: ")],
)
def test_a_damaged_file_names_the_field_where_there_is_one(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InvalidInput, match=says):
        read_wire(tmp_path / "a.json", LocalSettings)


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OperationFailed, match=r"a\.json .*disk is full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("collapse", [True, False])
def test_a_log_is_cut_and_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapse: bool) -> None:
    if not collapse:
        monkeypatch.setattr(logs, "_fallocate", None)
    path = tmp_path / "r.log"
    lines = [f"line {number}" for number in range(3_000)]
    with path.open("ab", buffering=0) as writer:
        writer.write("".join(f"{line}\n" for line in lines[:2_000]).encode())
        logs.rotate(path, max_bytes=1_000_000)
        assert not path.with_name("r.log.1").exists()
        logs.rotate(path, max_bytes=10_000)
        assert path.stat().st_size <= path.stat().st_blksize
        writer.write("".join(f"{line}\n" for line in lines[2_000:]).encode())
    assert logs.tail(path, 3_000) == lines, "each once, also the one that the cut goes through"
    assert logs.tail(path, 2) == lines[-2:]


def collapses(folder: Path) -> bool:
    """Whether the file system can take blocks out of a file."""
    path = folder / "probe.log"
    path.write_bytes(b"x" * 100_000)
    logs.rotate(path, max_bytes=1)
    return 0 < path.stat().st_size < 100_000


def test_no_line_is_lost_or_told_twice_however_often_it_is_cut(tmp_path: Path) -> None:
    if not collapses(tmp_path):
        pytest.skip("the file system cannot take blocks out of a file")
    path = tmp_path / "r.log"
    path.touch()
    total = 60_000
    program = (
        "import sys, time\n"
        f"for n in range({total}):\n"
        "    sys.stdout.write('line %d\\n' % n)\n"
        "    if n % 200 == 0:\n"
        "        sys.stdout.flush()\n"
        "        time.sleep(0.005)\n"
    )
    cuts = 0

    async def followed() -> list[str]:
        found = []
        paths = lambda: {"a/r": path}  # noqa: E731 - a stand-in for LogPaths
        async for line in logs.follow(paths, 0, endless=True):  # type: ignore[arg-type]
            found.append(line)
            if line == f"line {total - 1}":
                break
        return found

    async def both() -> list[str]:
        nonlocal cuts
        reading = asyncio.create_task(followed())
        await asyncio.sleep(0)  # it knows the file before the first line
        with path.open("ab") as output:
            writer = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=output)
        try:
            while not reading.done():
                before = path.stat().st_size
                # Not twice before the follower looked: the file before the last cut is kept, no older one.
                await asyncio.to_thread(logs.rotate, path, 50_000)
                cuts += path.stat().st_size < before
                await asyncio.sleep(0.25)
        finally:
            if writer.returncode is None:
                writer.kill()
            await writer.wait()
        return await reading

    found = asyncio.run(asyncio.wait_for(both(), 60))
    assert found == [f"line {number}" for number in range(total)]
    assert cuts >= 2


def test_a_log_is_cut_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.log"
    path.write_bytes(b"x" * 1_000)

    def full(_: object, target: Any) -> None:
        target.write(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    logs.rotate(path, max_bytes=500)
    assert path.stat().st_size == 0
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_newest_logs_of_the_dead_are_kept(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"r{number}.log").write_text("x")
        os.utime(tmp_path / f"r{number}.log", (number, number))
    logs.prune(tmp_path, {"r0"})
    assert {path.stem for path in tmp_path.iterdir()} == {"r0", "r4", "r5", "r6", "r7", "r8"}


def test_models_get_versions_by_content(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = ModelStore(tmp_path / "store")
    source = tmp_path / "bundle"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub" / "b.txt").write_text("b")

    def put(**more: Any) -> Any:
        return store.put(ModelRegistration(name="m", source_path=str(source), **more))

    first = put()
    assert sorted(first.files) == ["bundle/a.txt", "bundle/sub/b.txt"]
    assert put(tags={"new": "tag"}).version == 1
    assert store.get("m", 1).tags == {"new": "tag"}
    assert put(framework="ScikitLearn").version == 2
    (source / "a.txt").write_text("changed")
    assert put().version == 3
    (source / "a.txt").write_text("a")
    assert put().version == 1
    assert sorted(put(child_paths=("sub",)).files) == ["bundle/sub/b.txt"]
    assert [record.version for record in store.all()] == [1, 2, 3, 4]
    store.link(ModelReference(name="m", version=1), tmp_path / "app")
    assert (tmp_path / "app" / "bundle" / "a.txt").read_text() == "a"
    with pytest.raises(Conflict, match="used by one, two"):
        store.delete("m", 1, ["one", "two"])
    store.delete("m", 4, [])
    with pytest.raises(NotFound, match="versions of m: 1, 2, 3"):
        store.get("m", 4)
    assert put(properties={"p": "1"}).version == 5  # the number of a deleted version never means other files


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        ("relative", {}, "not absolute"),
        ("/nowhere/at/all", {}, "does not exist"),
        ("FILE", {"child_paths": ("x",)}, "is a file"),
        ("EMPTY", {}, "holds no file"),
        ("FOLDER", {"child_paths": ("no", "neither")}, "'neither' does not exist"),
        ("FILE", {"framework_version": "1"}, "without framework"),
        ("LINK", {}, "link to a folder"),
    ],
)
def test_bad_models(tmp_path: Path, path: str, more: dict[str, Any], says: str) -> None:
    (tmp_path / "FILE").write_text("x")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER" / "f").write_text("x")
    (tmp_path / "LINK").mkdir()
    (tmp_path / "LINK" / "to").symlink_to(tmp_path / "FOLDER")
    source = str(tmp_path / path) if path.isupper() else path
    with pytest.raises(InvalidInput, match=says):
        ModelStore(tmp_path).put(ModelRegistration(name="m", source_path=source, **more))
