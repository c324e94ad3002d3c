"""A job as a process: its log as it comes, its results, its exit code; nothing stays, however it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

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
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


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
    """What holds the log open from another session does not hold up the end."""
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid, 'x' * 3_000_000, end='')\n"
    )
    said: list[str] = []
    result = await run_local(make_job(script), (), said.append, lambda _line: None, environments)
    left = int((result.place / "log.txt").read_text().split()[0])
    os.kill(left, signal.SIGKILL)
    assert (result.place / "log.txt").stat().st_size > 3_000_000
    assert sum(len(line) for line in said) > 3_000_000
