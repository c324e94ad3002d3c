"""Starts a supervisor again that died: a small process beside it; each of the two starts the other.

`python -m aks_inference_runtime.local.keeper <state directory> <pid> <mark> <restarts>` waits for the supervisor's end.
One that ends in order ends its keeper first. After a kill or a crash the keeper starts the next one as `aks-inference
start` does; that one takes over what runs, and has a keeper of its own.
"""

import asyncio
import contextlib
import logging
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import psutil

from aks_inference_runtime.api.process import is_running, own_mark
from aks_inference_runtime.local.process import REPLICA_VARIABLE, STATE_VARIABLE, kill_all, marked

KEEPER = "keeper"
"""Its name where replicas have theirs (REPLICA_VARIABLE)."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
STEADY_S = 60.0
"""A supervisor that ran that long and dies is started again after the first delay; others after twice the last."""
LOOK_S = 1.0
_log = logging.getLogger(__name__)


async def kept(directory: Path, restarts: int) -> None:
    """Until cancelled: one keeper for this supervisor, started again when it dies. Ends it at the end."""
    await asyncio.to_thread(end_keepers, directory)
    keeper: subprocess.Popen[bytes] | None = None
    try:
        while True:
            if keeper is None or keeper.poll() is not None:
                try:
                    keeper = _start(directory, restarts)
                except OSError as error:
                    _log.warning("no keeper: %s", error)
            await asyncio.sleep(LOOK_S)
    finally:
        if keeper is not None:
            keeper.kill()
            keeper.wait()


def end_keepers(directory: Path) -> None:
    """Ends those of a state directory, so that what dies next stays dead."""
    keepers = []
    for process in marked(directory):
        with contextlib.suppress(psutil.Error):
            if process.environ().get(REPLICA_VARIABLE) == KEEPER:
                keepers.append(process)
    kill_all(keepers)


def delay_s(restarts: int) -> float:
    """Before a start that has so many others closely before it."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(restarts, 10))


def main(arguments: list[str]) -> int:
    """Returns when a supervisor runs again, or when there is nothing to keep any more."""
    directory, pid, mark, restarts = Path(arguments[0]), int(arguments[1]), arguments[2], int(arguments[3])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s keeper: %(message)s")
    began = time.monotonic()
    _wait(pid, mark)
    if time.monotonic() - began >= STEADY_S:
        restarts = 0
    while True:
        _log.warning("the supervisor (pid %d) died; another one starts in %g s", pid, delay_s(restarts))
        time.sleep(delay_s(restarts))
        restarts += 1
        if not (directory / "supervisor.json").exists():
            return 0
        if _again(directory, restarts):
            return 0


def _again(directory: Path, restarts: int) -> bool:
    # Only now: a keeper that waits should cost little.
    from aks_inference_runtime.api.client import read_record
    from aks_inference_runtime.api.errors import AksInferenceError
    from aks_inference_runtime.api.launch import launch

    try:
        record = read_record(directory, missing_ok=True)
        if record is not None:
            asyncio.run(launch(record.settings, restarts=restarts))
    except (AksInferenceError, OSError) as error:
        _log.error("%s", error)
        return False
    return True


def _start(directory: Path, restarts: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(directory), str(os.getpid()), own_mark(), str(restarts)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, STATE_VARIABLE: str(directory), REPLICA_VARIABLE: KEEPER},
        cwd="/",
        start_new_session=True,
    )


def _wait(pid: int, mark: str) -> None:
    """Until the process is gone."""
    descriptor = None
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
    while is_running(pid, mark):
        if descriptor is None:
            time.sleep(LOOK_S)
        else:
            select.select([descriptor], [], [])
            descriptor = None  # it is a zombie, or gone


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
