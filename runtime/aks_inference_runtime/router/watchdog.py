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
"""Without an answer: a question may take so long (`admin.COMMAND_SECONDS`). While the agent stands still it reads none,
and no time counts."""
_log = logging.getLogger(__name__)


class Watchdog:
    """Looks at processes until it is cancelled."""

    def __init__(self, processes: Callable[[], Iterable[HaproxyProcess]]) -> None:
        self._processes = processes
        self._stopped: dict[int, int] = {}
        self._silent: dict[int, tuple[float, float]] = {}
        """By pid: since when it is silent, and for how many seconds of that was looked."""

    async def run(self) -> None:
        """Ends each that hangs."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(LOOK_S)
            passed = min(loop.time() - before, 2 * LOOK_S)
            for process in tuple(self._processes()):
                if (pid := process.pid) is not None and process.alive:
                    self._look(pid, process, passed)

    def _silent_s(self, pid: int, since: float | None, passed: float) -> float:
        if since is None:
            self._silent.pop(pid, None)
            return 0.0
        known, seconds = self._silent.get(pid, (since, 0.0))
        seconds = seconds + passed if known == since else 0.0
        self._silent[pid] = since, seconds
        return seconds

    def _look(self, pid: int, process: HaproxyProcess, passed: float) -> None:
        silent_s = self._silent_s(pid, process.admin.silent_since, passed)
        with contextlib.suppress(psutil.Error):
            seen = psutil.Process(pid)
            stopped = seen.status() == psutil.STATUS_STOPPED
            count = self._stopped[pid] = self._stopped.get(pid, 0) + 1 if stopped else 0
            if count >= STOPPED_LOOKS or silent_s >= HUNG_S:
                why = "is stopped" if stopped else "does not answer"
                _log.warning("haproxy (%s, pid %d) %s; it is ended", process.name, pid, why)
                seen.kill()
                del self._stopped[pid]
                self._silent.pop(pid, None)
