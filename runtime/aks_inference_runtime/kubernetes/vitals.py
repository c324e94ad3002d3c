"""A router's own figures: how long routing takes, and how much CPU its processes use.

Routing time is what HAProxy takes to answer a question on its admin socket: a process has one thread, which takes it in
turn with the requests, and the answer never waits for a replica. It is asked of the process that clients reach and of
those with slots, as a request passes both. HAProxy's own figures lack some of it: the length of a turn of its loop
stays what one turn may take when more waits outside, and none of them knows how long the process waited for a core.
"""

import asyncio
import json
import logging
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import psutil

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.autoscaler.routers import Figures
from aks_inference_runtime.kubernetes.reports import RouterReport
from aks_inference_runtime.observability.failures import Failures
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.process import sockets_directory

ASK_S = 0.2
WINDOW_S = 1.0
"""The median over this long: this process is late now and then, too."""
FRONT = "p0"
QUESTION = "show version"
LONGEST_S = 2.0
"""Said of a process that does not answer. What is told once it has passed must not come when the figures before it are
too old already (`reports.FIGURES_STALE_S`): all routers' scaling would stop for one silent process."""
Process = tuple[Path, str]
"""By the directory of its lane and its name there."""
_log = logging.getLogger(__name__)


def routing(times: Mapping[Process, list[float]]) -> float | None:
    """Milliseconds of the lanes of a router together, from seconds by lane and process; None: not known."""
    lanes: defaultdict[Path, dict[str, list[float]]] = defaultdict(dict)
    for (lane, name), found in times.items():
        lanes[lane][name] = found
    known = [took for one in lanes.values() if (took := summed(one)) is not None]
    return statistics.median(known) if known else None


def summed(times: Mapping[str, list[float]]) -> float | None:
    """Milliseconds at the first process and the slowest behind it, from seconds by process; None: not known."""
    medians = {name: statistics.median(found) for name, found in times.items() if found}
    if FRONT not in medians:
        return None
    return 1000 * (medians.pop(FRONT) + max(medians.values(), default=0.0))


def used(before: Mapping[int, float], now: Mapping[int, float], own: int, elapsed_s: float) -> tuple[float, float]:
    """Cores of all processes, and of the busiest one but `own`, from CPU seconds by pid."""
    shares = {pid: max(0.0, now[pid] - before[pid]) / elapsed_s for pid in now.keys() & before.keys()}
    return sum(shares.values()), max((share for pid, share in shares.items() if pid != own), default=0.0)


class Vitals:
    """Keeps the figures of a router."""

    def __init__(self, directories: Callable[[], Collection[Path]]) -> None:
        """`directories`: where the files of its lanes are now."""
        self._directories = directories
        self._sockets: dict[Process, AdminSocket] = {}
        self._times: defaultdict[Process, deque[tuple[float, float]]] = defaultdict(deque)
        """When, and seconds it took."""
        self._own = psutil.Process()
        self._cpu: dict[int, float] = {}
        self._cpu_at = 0.0
        self._told: RouterReport | None = None

    @property
    def figures(self) -> Figures | None:
        """The newest."""
        told = self._told
        return None if told is None else Figures(told.routing_ms, told.cores, told.busiest)

    @property
    def report(self) -> RouterReport | None:
        """The same, as it is told."""
        return self._told

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        pids: dict[Process, int] = {}
        looked = 0.0
        failures = Failures(_log, "the router's own figures are not known; it looks again")
        while True:
            try:
                if clock() - looked >= WINDOW_S:
                    looked = clock()
                    pids = self._processes()
                    self._tell(pids, looked)
                took = await asyncio.gather(*(self._ask(process) for process in pids))
                for process, seconds in zip(pids, took, strict=True):
                    if seconds is not None:
                        # All at one time: who answered at once is not forgotten while another one is waited for.
                        self._times[process].append((clock(), seconds))
            except Exception as error:  # noqa: BLE001 - nobody waits for this task; routers scale by what it tells
                failures.tell(error)
            await asyncio.sleep(ASK_S)

    async def _ask(self, process: Process) -> float | None:
        """Seconds until it answered; None: it is being started."""
        clock = asyncio.get_running_loop().time
        directory, name = process
        if (socket := self._sockets.get(process)) is None:
            path = Paths(directory, sockets_directory(directory)).socket(name, "admin")
            socket = self._sockets[process] = AdminSocket(path)
        began = clock()
        try:
            async with asyncio.timeout(LONGEST_S):
                await socket.run(QUESTION)
        except RuntimeUnavailable:
            if clock() - began < WINDOW_S:
                return None
        except TimeoutError:
            pass
        return clock() - began

    def _processes(self) -> dict[Process, int]:
        found = {}
        for path in (path for directory in self._directories() for path in directory.glob("p[0-9]*.json")):
            try:
                found[path.parent, path.stem] = int(json.loads(path.read_bytes())["pid"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.debug("%s: %r", path, error)
        return found

    def _tell(self, pids: Mapping[Process, int], now: float) -> None:
        before, since = self._cpu, now - self._cpu_at
        self._cpu, self._cpu_at = self._seconds({*pids.values(), self._own.pid}), now
        for name in [name for name in self._times if name not in pids]:
            del self._times[name]
        recent: dict[Process, list[float]] = {}
        for name, times in self._times.items():
            while times and times[0][0] < now - WINDOW_S:
                times.popleft()
            recent[name] = [took for _, took in times]
        took = routing(recent)
        if took is None or not before:
            return
        cores, busiest = used(before, self._cpu, self._own.pid, since)
        number = 1 if self._told is None else self._told.number + 1
        self._told = RouterReport(
            number=number, routing_ms=round(took, 3), cores=round(cores, 3), busiest=round(busiest, 3)
        )

    def _seconds(self, pids: set[int]) -> dict[int, float]:
        found = {}
        for pid in pids:
            try:
                times = (self._own if pid == self._own.pid else psutil.Process(pid)).cpu_times()
            except psutil.Error:
                continue
            found[pid] = times.user + times.system
        return found
