"""`python -m aks_inference_runtime.local.remains <state directory>`: ends a cluster that has no supervisor any more.

Prints `ready`, or a problem as JSON. No supervisor is started for it: that would need the router's port, which somebody
else may have by now. Only what the records (pid and mark) and the mark in the environment show as ours is touched.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from aks_inference_runtime.api.client import read_record
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, OperationFailed
from aks_inference_runtime.api.problems import to_problem
from aks_inference_runtime.api.process import is_running
from aks_inference_runtime.local.files import read_wire
from aks_inference_runtime.local.keeper import end_keepers
from aks_inference_runtime.local.process import kill_all, marked
from aks_inference_runtime.local.records import ReplicaRecord, StatePaths, remove_state

LOCK_WAIT_S = 20.0
SERVER_GRACE_S = 10.0
"""As in an orderly end: for the requests that run."""
GATE_GRACE_S = 2.0


def main(arguments: list[str]) -> int:
    """Exit status 0: nothing is left; 1: a problem was printed."""
    directory = Path(arguments[0])
    try:
        end(directory)
    except AksInferenceError as error:
        print(to_problem(error).model_dump_json())
        return 1
    print("ready")
    return 0


def end(directory: Path) -> None:
    """Ends all processes of a cluster and removes its files. Nothing there: nothing to do.

    Raises:
        InvalidInput: the record of the supervisor is damaged or newer.
        OperationFailed: something cannot be ended.
    """
    record = read_record(directory, missing_ok=True)
    if record is None:
        return
    paths = StatePaths(directory, Path(record.run_directory))
    end_keepers(directory)
    with _locked(directory) as there:
        if not there:
            return
        replicas = list(_replicas(paths))
        _terminate(_running((r.server_pid, r.server_mark) for r in replicas), SERVER_GRACE_S)
        _terminate(_running((r.gate_pid, r.gate_mark) for r in replicas), GATE_GRACE_S)
        left = [*_running(_routers(paths)), *marked(directory)]
        kill_all(left)
        if still := [str(process.pid) for process in left if process.is_running() and not _zombie(process)]:
            raise OperationFailed(f"processes {', '.join(still)} of the cluster in {directory} cannot be ended")
        remove_state(paths)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Holds the lock of the state directory; a supervisor that has it hangs or has just begun, and is killed.

    False: somebody else has removed the cluster meanwhile.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    try:
        file = (directory / "supervisor.lock").open("w")
    except FileNotFoundError:
        yield False
        return
    with file:
        while True:
            record = read_record(directory, missing_ok=True)
            if record is not None and is_running(record.pid, record.process_mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGKILL)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OperationFailed(f"somebody holds {directory / 'supervisor.lock'}; try again") from None
                time.sleep(0.1)
            else:
                break
        yield os.fstat(file.fileno()).st_nlink > 0


def _replicas(paths: StatePaths) -> Iterator[ReplicaRecord]:
    """The records that can be read; the processes of others have the mark."""
    for path in paths.replicas.glob("*.json"):
        with contextlib.suppress(InvalidInput, OSError):
            yield read_wire(path, ReplicaRecord)


def _routers(paths: StatePaths) -> Iterator[tuple[int, str]]:
    """Pid and mark of each HAProxy, from its record."""
    for path in (*paths.router.glob("*.json"), *paths.router.glob("*.starting")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_bytes())
            yield int(record["pid"]), str(record["mark"])


def _running(known: Iterator[tuple[int, str]]) -> list[psutil.Process]:
    found = []
    for pid, mark in known:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid) if pid else None
            if process is not None and is_running(pid, mark):
                found.append(process)
    return found


def _terminate(processes: Sequence[psutil.Process], grace_s: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(processes, timeout=grace_s)


def _zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
