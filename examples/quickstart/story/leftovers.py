"""What of the story is left on the machine: processes, ports, files."""

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil


def processes_of(folder: Path) -> dict[int, str]:
    """Processes (pid → command line) that name the folder or work inside it, without this one and its parents."""
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            inside = Path(process.cwd()).is_relative_to(folder)
            if process.pid not in own and (inside or any(str(folder) in word for word in words)):
                found[process.pid] = " ".join(words)[:120]
    return found


def children_of(pids: Iterable[int]) -> dict[int, float]:
    """These processes and all that they started (pid → start time): pids come back, start times do not."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found[one.pid] = one.create_time()
    return found


def alive(known: dict[int, float]) -> list[int]:
    """Those of the processes that still run."""
    left = []
    for pid, begun in known.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == begun and process.status() != psutil.STATUS_ZOMBIE:
                left.append(pid)
    return left


def listens(port: int) -> bool:
    """Whether anything accepts connections on the port of 127.0.0.1."""
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port(wanted: int) -> int:
    """The wanted port, or any other that is free where it is taken."""
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
