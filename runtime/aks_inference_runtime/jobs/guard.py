"""Beside a local job: ends it and removes its folder as soon as whoever started it is gone, however that ended.

`python -m aks_inference_runtime.jobs.guard FOLDER SECONDS WORKING_DIRECTORY COMMAND…`. Standard input stays open as
long as the job is wanted; standard output gets `pid <number>`, then `exit <code>` or `late`; the job writes to standard
error.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

_KIND_S = 5.0
"""Between the friendly signal and the other one."""
_LOOK_S = 0.1
_SET_CHILD_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER (linux/prctl.h)."""


def main(arguments: list[str]) -> int:
    """The process."""
    folder, seconds, working, *command = arguments
    _adopt()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of standard input is what counts
    try:
        told = _run(command, Path(working), time.monotonic() + float(seconds))
        with contextlib.suppress(OSError):
            print(told, flush=True)
        # Until then the results are being saved.
        _wanted(None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _run(command: list[str], working: Path, until: float) -> str:
    child = subprocess.Popen(
        command,
        cwd=working,
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
        preexec_fn=_own_signals,  # noqa: PLW1509 - no threads here
    )
    print(f"pid {child.pid}", flush=True)
    # The log ends when the job's side of it is closed.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    while child.poll() is None and time.monotonic() < until:
        if not _wanted(_LOOK_S):
            break
    late = child.returncode is None and time.monotonic() >= until
    _end(child)
    return "late" if late else f"exit {child.returncode}"


def _adopt() -> None:
    """What loses its parent below becomes a child of this process (Linux alone: elsewhere such a one is not found)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _own_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _wanted(seconds: float | None) -> bool:
    ready, _, _ = select.select([0], [], [], seconds)
    return not ready or bool(os.read(0, 1))


def _end(child: "subprocess.Popen[bytes]") -> None:
    """All that it started and that is still there, too."""
    if child.poll() is None:
        _signal(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_KIND_S)
    _signal(child.pid, signal.SIGKILL)
    child.wait()
    # What left its group is ours now; who is killed may have started more meanwhile.
    until = time.monotonic() + _KIND_S
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < until:
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, _LOOK_S)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
