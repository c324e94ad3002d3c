"""Where nobody looks after a router's machine, its HAProxy processes that hang are ended; the agent starts them anew.

The gates' limits hold over that, and requests that died with a process are sent again. On one machine, where somebody
may have stopped a process in order to look at it, that is told and nothing is ended.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

import psutil

from aks_inference_runtime.router.process import HaproxyProcess

LOOK_S = 0.1
STOPPED_LOOKS = 3
"""A process that is stopped at so many looks one after the other does not go on by itself."""
HUNG_S = 5.0
"""Without an answer: a question may take so long (`admin.COMMAND_SECONDS`)."""
_log = logging.getLogger(__name__)


class Watchdog:
    """Looks at processes until it is cancelled."""

    def __init__(self, processes: Callable[[], Iterable[HaproxyProcess]]) -> None:
        self._processes = processes
        self._stopped: dict[int, int] = {}

    async def run(self) -> None:
        """Ends each that hangs."""
        while True:
            await asyncio.sleep(LOOK_S)
            for process in tuple(self._processes()):
                if (pid := process.pid) is not None and process.alive:
                    self._look(pid, process)

    def _look(self, pid: int, process: HaproxyProcess) -> None:
        with contextlib.suppress(psutil.Error):
            seen = psutil.Process(pid)
            stopped = seen.status() == psutil.STATUS_STOPPED
            count = self._stopped[pid] = self._stopped.get(pid, 0) + 1 if stopped else 0
            if count >= STOPPED_LOOKS or process.admin.silent_s >= HUNG_S:
                why = "is stopped" if stopped else "does not answer"
                _log.warning("haproxy (%s, pid %d) %s; it is ended", process.name, pid, why)
                seen.kill()
                del self._stopped[pid]
