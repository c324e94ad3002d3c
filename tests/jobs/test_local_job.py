"""A job as a process: its log as it comes, its results, its exit code; nothing stays, however it ends."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp.test_utils import TestClient, TestServer

from aks_inference_runtime.jobs import saving
from aks_inference_runtime.jobs.keeper import TOKEN_HEADER, application
from aks_inference_runtime.jobs.local import run_local
from aks_inference_runtime.jobs.model import JobFailed

WRITES = """
import os, pathlib, sys
print("begins with", *sys.argv[1:])
print("to the other stream", file=sys.stderr)
for folder in ("outputs", "logs", "models", "scratch"):
    pathlib.Path(folder).mkdir()
    pathlib.Path(folder, "file with ü.txt").write_text(folder)
pathlib.Path("outputs/inner").mkdir()
pathlib.Path("outputs/inner/model.bin").write_bytes(bytes(100_000))
os.symlink("/etc/hostname", "outputs/leaves")
os.symlink("inner/model.bin", "outputs/stays")
print(os.environ["LEVEL"], os.environ["AZUREML_RUN_ID"], "PULUMI_ACCESS_TOKEN" in os.environ, end="")
"""
WAITS = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("pids", os.getpid(), child.pid, os.getcwd(), flush=True)
time.sleep(600)
"""


def gone(pids: list[int]) -> bool:
    return not any(map(_runs, pids))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_log_results_and_record(make_job: Any, environments: Path, temporary: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "not for scripts")
    job = make_job(WRITES, "a b", "--rate=1", variables={"LEVEL": "high"})
    said: list[str] = []
    result = await run_local(job, (), said.append, lambda _line: None, environments)
    assert {"begins with a b --rate=1", "to the other stream", "high job-1 False"} <= set(said)
    assert set((result.place / "log.txt").read_text().splitlines()) == set(said)
    kept = {p.relative_to(result.place).as_posix() for p in result.place.rglob("*") if p.is_file()}
    assert kept == {
        "job.json",
        "log.txt",
        "outputs/file with ü.txt",
        "outputs/inner/model.bin",
        "outputs/stays",
        "logs/file with ü.txt",
        "models/file with ü.txt",
    }, "nothing else of the working directory, and no link to elsewhere"
    assert json.loads((result.place / "job.json").read_text())["exitCode"] == 0
    assert result.outputs == job.results / "job-1" / "outputs"
    assert list(temporary.iterdir()) == []
    assert [p.name for p in job.results.iterdir()] == ["job-1"]


FAILING = [
    ("import sys; print('before'); sys.exit(7)", "ended with code 7", 7),
    ("print('before'); raise RuntimeError('no data')", "no data", 1),
    ("import os, signal; print('before', flush=True); os.kill(os.getpid(), signal.SIGKILL)", "(signal 9", -9),
]


@pytest.mark.parametrize(("script", "said", "code"), FAILING)
async def test_a_failing_script(
    make_job: Any, environments: Path, temporary: Path, script: str, said: str, code: int
) -> None:
    """Its log and its outputs stay: they are what there is to look at."""
    job = make_job(f"import pathlib; pathlib.Path('outputs').mkdir(); pathlib.Path('outputs/half').touch(); {script}")
    with pytest.raises(JobFailed) as caught:
        await run_local(job, (), lambda _line: None, lambda _line: None, environments)
    assert said in str(caught.value)
    assert "before" in str(caught.value)
    assert str(job.place / "log.txt") in str(caught.value)
    assert caught.value.exit_code == code
    assert (job.place / "outputs" / "half").is_file()
    assert json.loads((job.place / "job.json").read_text())["exitCode"] == code
    assert list(temporary.iterdir()) == []


async def test_one_that_takes_too_long_is_ended(make_job: Any, environments: Path, temporary: Path) -> None:
    job = make_job(WAITS, longest_s=2.0)
    said: list[str] = []
    with pytest.raises(JobFailed, match="was ended after"):
        await run_local(job, (), said.append, lambda _line: None, environments)
    assert gone([int(word) for word in said[0].split()[1:3]])
    assert list(temporary.iterdir()) == []


async def test_cancelled(make_job: Any, environments: Path, temporary: Path, until: Any) -> None:
    """As by Ctrl-C: the engine cancels, and the script and what it started go."""
    said: list[str] = []
    job = make_job(WAITS)
    task = asyncio.create_task(run_local(job, (), said.append, lambda _line: None, environments))
    while not said:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone([int(word) for word in said[0].split()[1:3]])
    assert list(temporary.iterdir()) == []


KILLED = """
import asyncio, sys, tempfile
from pathlib import Path
from aks_inference_runtime.jobs.local import run_local
from aks_inference_runtime.jobs.model import Job
root = Path(sys.argv[1])
tempfile.tempdir = str(root / "temporary")
job = Job("job-1", "train.py", "project", {"train.py": root / "project" / "train.py"}, root / "results")
asyncio.run(run_local(job, (), lambda line: print(line, flush=True), lambda line: None, root / "environments"))
"""


@pytest.mark.parametrize("whom", ["the one who started it", "the guard"])
def test_killed(make_job: Any, environments: Path, temporary: Path, tmp_path: Path, until: Any, whom: str) -> None:
    """kill -9 of either: the script does not run on, and the temporary folder goes."""
    make_job(WAITS)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as starter:
        try:
            assert starter.stdout is not None
            words = starter.stdout.readline().split()
            pids = [int(word) for word in words[1:3]]
            guard = psutil.Process(pids[0]).parent()
            assert guard is not None
            os.kill(starter.pid if whom == "the one who started it" else guard.pid, signal.SIGKILL)
            until(lambda: gone(pids), "the script's end")
            until(lambda: list(temporary.iterdir()) == [], "the folder's end")
        finally:
            starter.kill()
    until(lambda: gone([guard.pid]), "the guard's end")


async def test_a_log_without_ends_of_lines_and_a_process_that_leaves(
    make_job: Any, environments: Path, temporary: Path
) -> None:
    """Who holds the log open from another session does not hold up the end, and goes with it."""
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(child.pid, 'x' * 3_000_000, end='')\n"
    )
    said: list[str] = []
    result = await run_local(make_job(script), (), said.append, lambda _line: None, environments)
    left = int((result.place / "log.txt").read_text().split()[0])
    assert gone([left])
    assert (result.place / "log.txt").stat().st_size > 3_000_000
    assert sum(len(line) for line in said) > 3_000_000


def make_results(working: Path) -> None:
    """With links of all kinds."""
    for name in ("outputs/inner/model.bin", "models/a", "scratch/b", "../outside"):
        (working / name).parent.mkdir(parents=True, exist_ok=True)
        (working / name).write_text(name)
    (working / "outputs" / "empty").mkdir()
    (working / "logs").write_text("a file where a folder is looked for")
    links = {
        "outputs/file": "inner/model.bin",
        "outputs/latest": "inner",
        "outputs/inner/back": "..",
        "outputs/up": "../..",
        "outputs/all": "..",
        "outputs/leaves": "../../outside",
        "outputs/nowhere": "none",
        "outputs/circle": "round",
        "outputs/round": "circle",
        "models/across": "../outputs",
        "outputs/across": "../models",
    }
    for name, leads_to in links.items():
        (working / name).symlink_to(leads_to)
    os.link(working / "models" / "a", working / "models" / "hard")
    os.mkfifo(working / "outputs" / "pipe")


KEPT = {
    "outputs/inner/model.bin": "outputs/inner/model.bin",
    "outputs/file": "outputs/inner/model.bin",
    "outputs/latest/model.bin": "outputs/inner/model.bin",
    "outputs/across/a": "models/a",
    "outputs/across/hard": "models/a",
    "models/a": "models/a",
    "models/hard": "models/a",
    "models/across/inner/model.bin": "outputs/inner/model.bin",
    "models/across/file": "outputs/inner/model.bin",
    "models/across/latest/model.bin": "outputs/inner/model.bin",
}


def files_of(folder: Path) -> dict[str, str]:
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


async def test_links_among_the_results(tmp_path: Path) -> None:
    """The same is kept of a process and of a pod: files for links, nothing of elsewhere, none in a circle."""
    working, here, there = tmp_path / "working", tmp_path / "here", tmp_path / "there"
    working.mkdir()
    here.mkdir()
    make_results(working)
    saving.take(working, here)
    assert files_of(here) == KEPT
    assert (here / "outputs" / "empty").is_dir()

    keeper = application(working, "token", asyncio.Event())
    async with TestClient(TestServer(keeper)) as client:
        answer = await client.get("/results", headers={TOKEN_HEADER: "token"})
        packed = await answer.read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(there, filter="data")
    assert files_of(there) == KEPT
    assert (there / "outputs" / "empty").is_dir()


async def test_results_that_cannot_be_read_are_no_empty_results(tmp_path: Path, monkeypatch: Any) -> None:
    """Of a pod: what came before them would look like all."""
    (tmp_path / "outputs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "outputs" / name).write_bytes(os.urandom(100_000))
    keeper = application(tmp_path, "token", asyncio.Event())
    async with TestClient(TestServer(keeper)) as client:
        monkeypatch.setattr(os, "access", lambda path, _mode: path.name != "b")
        answer = await client.get("/results", headers={TOKEN_HEADER: "token"})
        assert (answer.status, await answer.text()) == (
            403,
            "outputs/b cannot be read; the script must leave its results readable",
        )
        monkeypatch.undo()
        broken = tmp_path / "outputs" / "c"

        def add(self: tarfile.TarFile, name: Path, *arguments: Any, **more: Any) -> None:
            if name.name == "b":
                raise PermissionError(13, "Permission denied", str(broken))
            real(self, name, *arguments, **more)

        real = tarfile.TarFile.add
        monkeypatch.setattr(tarfile.TarFile, "add", add)
        with pytest.raises(aiohttp.ClientError):
            await (await client.get("/results", headers={TOKEN_HEADER: "token"})).read()
