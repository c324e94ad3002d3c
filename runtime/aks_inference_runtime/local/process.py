"""One process with its group: started here, or found again after a restart of the supervisor."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

from aks_inference_runtime.api.process import is_running, process_mark

STATE_VARIABLE = "AKS_INFERENCE_STATE_DIRECTORY"
"""In the environment of everything that a supervisor starts, so that all of it can be found."""
REPLICA_VARIABLE = "AKS_INFERENCE_REPLICA"
_POLL_S = 0.02


class ManagedProcess:
    """A process that leads a group of its own."""

    def __init__(self, pid: int, mark: str, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.pid = pid
        self.mark = mark
        self._child = child

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, fds: Sequence[int] = ()
    ) -> "ManagedProcess":
        """Starts it in its own session, with both outputs appended to a log. Raises OSError."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=fds,
                start_new_session=True,
            )
        return cls(child.pid, process_mark(child.pid) or "", child)

    def alive(self) -> bool:
        """Whether it runs; collects a child that ended."""
        if self._child is not None:
            return self._child.poll() is None
        return is_running(self.pid, self.mark)

    @property
    def exit_code(self) -> int | None:
        """Of a child that ended; None for one that runs or was not started here."""
        return None if self._child is None else self._child.returncode

    def signal(self, number: int) -> None:
        """To the whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL to what is left of the group after the grace."""
        if self.alive():
            self.signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while self.alive() and time.monotonic() < deadline:  # noqa: ASYNC110 - an adopted process sends no event
                await asyncio.sleep(_POLL_S)
        self.signal(signal.SIGKILL)
        while self.alive():  # noqa: ASYNC110 - as above
            await asyncio.sleep(_POLL_S)


def marked(state_directory: Path, but: Collection[str] = ()) -> list[psutil.Process]:
    """All processes but this one that were started for a state directory, without those of some replicas."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid():
                continue
            variables = process.environ()
            ours = variables.get(STATE_VARIABLE) == str(state_directory)
            if ours and variables.get(REPLICA_VARIABLE) not in but:
                found.append(process)
    return found


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, and waits until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
