"""Environments of scoring servers, made by uv."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from left_running import running_under
from small_disks import SmallDisks
from stub_index import StubIndex

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.local.environments import BuiltEnvironment, EnvironmentStore, hash_of
from aks_inference_runtime.packages import waiting

DEADLINE_S = 60.0
SERVER = "azureml-inference-server-http"
# Builds without any other package; where a file `wait` stands in the source, until it is gone.
BACKEND = """
import os, pathlib, time, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    waiting = pathlib.Path(os.environ.get("TEST_BUILD_WAITS", "/nowhere/at/all"))
    if waiting.exists():
        waiting.with_name("begun").touch()
    while waiting.exists():
        time.sleep(0.02)
    name = "mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as archive:
        archive.writestr("mine.py", pathlib.Path("mine.py").read_text())
        info = "mine-1.0.dist-info"
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n")
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "/RECORD", "")
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "mine"
version = "1.0"
"""
BUILDER = """
import asyncio, pathlib, sys
from aks_inference_runtime.local.environments import EnvironmentStore
asyncio.run(EnvironmentStore(pathlib.Path(sys.argv[1])).get(sys.argv[2:], print))
"""


def wheel(folder: Path, version: str = "1.5.1", *, size: int = 0) -> str:
    """A requirement that installs without an index: a package with the server's name and nothing in it."""
    name = f"azureml_inference_server_http-{version}"
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nothing_at_all.py", os.urandom(size))
        info = f"{name}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {SERVER}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"{SERVER} @ {path.as_uri()}"


async def test_two_builds_of_one_environment_happen_once(tmp_path: Path) -> None:
    told: list[str] = []
    stores = [EnvironmentStore(tmp_path / "cache") for _ in range(2)]
    requirement = wheel(tmp_path)
    first, second = await asyncio.gather(*(store.get([requirement], told.append) for store in stores))
    assert first == second
    assert first.server_version == "1.5.1"
    assert first.python.exists()
    assert sum(line.startswith("builds Python environment") for line in told) == 1
    assert any("waits for another build" in line for line in told)
    told.clear()
    assert await stores[0].get([requirement], told.append) == first
    assert told == []


async def test_a_cache_that_cannot_be_made_says_what_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "cache"
    with pytest.raises(OperationFailed, match=r"Python environments of scoring servers .* XDG_CACHE_HOME") as caught:
        await EnvironmentStore(root).get((), lambda _: None)
    assert str(caught.value).startswith(f"{root} cannot be made: Not a directory")


async def test_a_build_that_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path / "cache")
    requirement = wheel(tmp_path)
    started = asyncio.Event()
    build = asyncio.create_task(store.get([requirement], lambda _: started.set()))
    await started.wait()
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir() if path.name != "uv") == [".lock"]
    assert (await store.get([requirement], lambda _: None)).server_version == "1.5.1"


async def test_an_environment_whose_python_is_gone_is_built_anew_once(tmp_path: Path) -> None:
    stores = [EnvironmentStore(tmp_path / "cache") for _ in range(2)]
    requirement = wheel(tmp_path)
    key = hash_of([requirement])
    present = BuiltEnvironment(key, tmp_path / "cache" / key, "1.5.1")
    present.python.parent.mkdir(parents=True)
    present.python.symlink_to(tmp_path / "removed-by-an-upgrade")
    (present.folder / "environment.json").write_text('{"serverVersion": "1.5.1"}')
    told: list[str] = []
    again = await asyncio.gather(*(store.get([requirement], told.append) for store in stores))
    assert again == [present, present]
    assert present.usable
    assert sum(line.startswith("builds Python environment") for line in told) == 1


def sources(folder: Path, value: int = 1) -> Path:
    """A folder with a package `mine` that has to be built."""
    folder.mkdir(exist_ok=True)
    for name, text in {"pyproject.toml": PROJECT, "backend.py": BACKEND, "mine.py": f"VALUE = {value}\n"}.items():
        (folder / name).write_text(text)
    return folder


def value_of(built: BuiltEnvironment) -> int:
    asked = [str(built.python), "-c", "import mine; print(mine.VALUE)"]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip's configuration has all packages from; it holds the server in two versions."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    for version in ("1.5.0", "1.5.1"):
        wheel(folder, version)
    (tmp_path / "pip.conf").write_text(f"[install]\nno-index = true\nfind-links = {folder}\n")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> EnvironmentStore:
    return EnvironmentStore(tmp_path / "cache")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("wheelhouse")
async def test_packages_come_from_where_pip_is_told(
    tmp_path: Path, store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await store.get((), lambda _: None)).server_version == "1.5.1"
    (tmp_path / "c.txt").write_text(f"{SERVER}<1.5.1\nsetuptools>=1000\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "c.txt"))
    assert (await store.get([f"{SERVER}>=1.5"], lambda _: None)).server_version == "1.5.0"


async def test_options_beside_the_packages_count(
    wheelhouse: Path, store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("WHEELS", str(wheelhouse))
    lines = ["--no-index", "--find-links ${WHEELS}", "--trusted-host nowhere.example", "--prefer-binary"]
    assert (await store.get(lines, lambda _: None)).server_version == "1.5.1"


async def test_a_package_without_a_wheel_is_built(
    tmp_path: Path, wheelhouse: Path, store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(wheelhouse / "mine-1.0.tar.gz", "w:gz") as archive:
        archive.add(sources(tmp_path / "mine"), "mine-1.0")
        about = b"Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n"
        entry = tarfile.TarInfo("mine-1.0/PKG-INFO")
        entry.size = len(about)
        archive.addfile(entry, io.BytesIO(about))
    told: list[str] = []
    assert value_of(await store.get(["mine"], told.append)) == 1
    assert "builds mine==1.0" in told
    for lines in (["--only-binary other,mine", "mine"], ["mine<2"]):
        with pytest.raises(OperationFailed, match=r"could not be built(?s:.*)mine"):
            await store.get(lines, told.append)
        monkeypatch.setenv("PIP_ONLY_BINARY", "other,mine")


@pytest.mark.usefixtures("wheelhouse")
async def test_a_folder_is_built_as_it_is_now(tmp_path: Path, store: EnvironmentStore) -> None:
    requirement = f"mine @ {sources(tmp_path / 'mine').as_uri()}"
    assert value_of(await store.get([requirement], lambda _: None)) == 1
    (tmp_path / "mine" / "mine.py").write_text("VALUE = 2\n")
    assert value_of(await store.get([requirement, f"{SERVER}==1.5.0"], lambda _: None)) == 2


@pytest.mark.usefixtures("wheelhouse")
async def test_pip_is_there_as_in_any_environment(store: EnvironmentStore) -> None:
    built = await store.get((), lambda _: None)
    names = "pip, pkg_resources" if sys.version_info < (3, 12) else "pip"
    subprocess.run([str(built.python), "-c", f"import {names}"], check=True, cwd="/")
    assert (built.folder / "bin" / "pip").exists()


@pytest.mark.usefixtures("wheelhouse")
async def test_a_project_that_one_happens_to_be_in_has_no_say(
    tmp_path: Path, store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uv.toml", "pyproject.toml"):
        (tmp_path / name).write_text("no TOML at all")
    monkeypatch.chdir(tmp_path)
    assert (await store.get((), lambda _: None)).server_version == "1.5.1"


@pytest.mark.parametrize("all_of_it", [False, True], ids=["its supervisor", "all of it"])
@pytest.mark.usefixtures("wheelhouse")
async def test_after_a_killed_build_another_one_is_whole(
    tmp_path: Path, store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch, all_of_it: bool
) -> None:
    waiting = tmp_path / "wait"
    waiting.touch()
    monkeypatch.setenv("TEST_BUILD_WAITS", str(waiting))
    requirement = f"mine @ {sources(tmp_path / 'mine').as_uri()}"
    builder = subprocess.Popen([sys.executable, "-c", BUILDER, str(tmp_path / "cache"), requirement])
    again: asyncio.Task[BuiltEnvironment] | None = None
    try:
        await until((tmp_path / "begun").exists)
        builder.kill()
        builder.wait()
        left = list(running_under(tmp_path / "cache"))
        assert left
        told: list[str] = []
        if all_of_it:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            waiting.unlink()
            again = asyncio.create_task(store.get([requirement], told.append))
        else:
            again = asyncio.create_task(store.get([requirement], told.append))
            await until(lambda: any("waits for another build" in line for line in told))
            waiting.unlink()
        assert value_of(await again) == 1
        assert "mine" in "".join(line for line in told if line.startswith("builds mine"))
    finally:
        waiting.unlink(missing_ok=True)
        builder.kill()
        builder.wait()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in left))


async def test_a_full_disk_is_told_and_leaves_no_environment(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    disks = SmallDisks()
    disks.mount(root, 2_000)
    try:
        with pytest.raises(OperationFailed, match=r"(?s)os error 28.*the disk is full: make room and apply again"):
            await EnvironmentStore(root).get([wheel(tmp_path, size=4_000_000)], lambda _: None)
        assert {path.suffix or path.name for path in root.iterdir()} == {".lock", "uv"}
    finally:
        disks.unmount()


@pytest.fixture
def index() -> Iterator[StubIndex]:
    index = StubIndex()
    yield index
    index.close()


async def test_a_release_that_is_newer_than_a_kept_page_is_found(
    tmp_path: Path, store: EnvironmentStore, index: StubIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    index.headers["Cache-Control"] = "max-age=600"
    names = []
    for version in ("1.5.0", "1.5.1"):
        wheel(tmp_path, version)
        (made,) = tmp_path.glob(f"*-{version}-*.whl")
        index.pages[made.name] = ("application/octet-stream", made.read_bytes())
        names.append(made.name)
    pages = [{"filename": name, "url": f"{index.url}/{name}", "hashes": {}} for name in names]
    index.add(SERVER, pages[0])
    with pytest.raises(OperationFailed, match="No solution found"):
        await store.get([f"{SERVER}==1.5.1"], lambda _: None)
    index.add(SERVER, *pages)
    assert (await store.get([f"{SERVER}==1.5.1"], lambda _: None)).server_version == "1.5.1"


async def test_without_uv_the_mend_is_said(store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("uv.find_uv_bin", missing)
    with pytest.raises(OperationFailed, match=r"pip install uv"):
        await store.get((), lambda _: None)


async def test_an_index_that_does_not_answer_is_told_with_the_mend(
    store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(
        OperationFailed, match=r"correct the address, such as PIP_INDEX_URL, or the proxy; or try again$"
    ):
        await store.get([f"{SERVER}==1.5.1"], lambda _: None)


@pytest.mark.usefixtures("wheelhouse")
async def test_a_long_build_tells_that_it_goes_on(
    tmp_path: Path, store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirement = f"mine @ {sources(tmp_path / 'mine').as_uri()}"
    held = tmp_path / "wait"
    held.touch()
    monkeypatch.setenv("TEST_BUILD_WAITS", str(held))
    monkeypatch.setattr(waiting, "SAY_S", 0.01)
    told: list[str] = []

    def tell(said: str) -> None:
        told.append(said)
        if said.startswith("builds mine") and said.endswith(", 0 s"):
            held.unlink(missing_ok=True)

    assert value_of(await store.get([requirement], tell)) == 1
    assert not held.exists()


async def test_a_login_in_an_address_that_is_none_is_not_told(
    store: EnvironmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:hush@127.0.0.1:99999/simple")
    told: list[str] = []
    with pytest.raises(OperationFailed, match="invalid port number") as refused:
        await store.get((), told.append)
    assert "hush" not in "\n".join([*told, str(refused.value)])
