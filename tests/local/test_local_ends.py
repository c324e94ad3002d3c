"""Several that destroy one local cluster at once."""

import asyncio
import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api import launch
from aks_inference_runtime.api.client import destroy
from aks_inference_runtime.api.supervisor import LocalSettings, SupervisorRecord
from aks_inference_runtime.local import remains
from aks_inference_runtime.local.files import write_wire
from aks_inference_runtime.local.records import StatePaths, remove_state


@pytest.mark.parametrize("alive", [True, pytest.param(False, marks=pytest.mark.long)], ids=["alive", "dead"])
async def test_several_destroys_at_once_all_end_well(local: Any, alive: bool) -> None:
    info = await local.launch()
    if not alive:
        local.kill_supervisor(info.pid)
    await asyncio.gather(*(destroy(local.state) for _ in range(4)))
    assert not local.state.exists()
    assert not local.run_directory.exists()
    assert local.processes() == []


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """The state directory of a cluster of which nothing runs any more."""
    folder = tmp_path / "state"
    paths = StatePaths(folder, tmp_path / "run")
    paths.make()
    record = SupervisorRecord(
        settings=LocalSettings(name="test", state_directory=str(folder), port=1),
        run_directory=str(paths.run),
        pid=2**22 + 1,  # beyond what Linux gives
        process_mark="none",
        started=0.0,
        version="0",
    )
    write_wire(folder / "supervisor.json", record)
    return folder


async def test_another_destroy_is_faster_before_the_log_is_open(dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = launch._run

    async def later(arguments: list[str], directory: Path, timeout_s: float) -> None:
        shutil.rmtree(dead)
        await run(arguments, directory, timeout_s)

    monkeypatch.setattr(launch, "_run", later)
    await destroy(dead)
    assert not dead.exists()


def test_another_destroy_is_faster_before_the_lock_is_open(dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "end_keepers", shutil.rmtree)
    remains.end(dead)
    assert not dead.exists()


def test_a_new_cluster_in_the_place_of_one_that_another_has_destroyed_is_not_ended(
    dead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = (dead / "supervisor.json").read_bytes()
    flock = fcntl.flock

    def slow(handle: int, operation: int) -> None:
        """Gets its turn when the folder has been removed and made again."""
        shutil.rmtree(dead)
        dead.mkdir()
        (dead / "supervisor.json").write_bytes(record)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    remains.end(dead)
    assert (dead / "supervisor.json").read_bytes() == record


def test_a_folder_that_is_gone_already_is_nobody_elses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remove_state(StatePaths(tmp_path / "gone", tmp_path / "run"))
    assert caplog.text == ""
