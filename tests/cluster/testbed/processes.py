"""Processes of the test bed: they end with the one that started them, whatever becomes of it."""

import contextlib
import ctypes
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
PORTS = range(10_000, 30_000)
CHANCE = random.SystemRandom()
_libc = ctypes.CDLL(None, use_errno=True)


class BedError(Exception):
    """The test bed did not come up; the text has the end of the log."""


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Running:
    """A process with its log."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path, **options: object) -> None:
        self.name, self.log = name, log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one thread starts these
                **options,  # type: ignore[call-overload]
            )

    def tail(self, lines: int = 15) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def end(self, timeout_s: float = 10) -> None:
        """Asks it to end, then ends it."""
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_until(what: str, holds: Callable[[], bool], running: Sequence[Running], timeout_s: float = 60) -> None:
    """Raises BedError at the deadline, or as soon as a process ended."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        for one in running:
            if one.process.poll() is not None:
                raise BedError(f"{one.name} ended with {one.process.returncode}:\n{one.tail()}")
        if time.monotonic() > deadline:
            tails = "\n".join(f"{one.name}:\n{one.tail()}" for one in running)
            raise BedError(f"{what}: not within {timeout_s:g} s\n{tails}")
        time.sleep(0.05)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that were free a moment ago, outside the range from which the kernel gives connections theirs.

    One of that range may be a connection's before the test listens there.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = CHANCE.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            ports.append(port)
    return ports
