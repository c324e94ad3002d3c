"""The gate's data listener: open while the replica may get requests, closed as soon as it may not.

A refused connection is the one sign that a router understands before it has sent anything, so that the request goes
elsewhere whatever it is.
"""

import asyncio
import fcntl
import socket
from collections.abc import Callable
from dataclasses import replace

from aks_inference_runtime.router.gate.address import Address

BACKLOG = 1024
HIGH = 900
"""Linux closes the files of a process that is killed from the highest number down: the listener goes before the
connections, so that who sees one of those end is refused already. Below the usual limit of 1,024."""
PAUSE_SECONDS = 0.1
"""After the system refused a further connection (too many open files)."""


class Listener:
    """Opens, closes and opens again at the same address."""

    def __init__(self, address: Address, take: Callable[[socket.socket], object]) -> None:
        self.address = address
        """With the actual port once it was open."""
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listens. Raises OSError when the address cannot be had."""
        if self._socket is not None:
            return
        self._socket = _high(self.address.listen(BACKLOG))
        self._socket.setblocking(False)
        if self.address.path is None:
            self.address = replace(self.address, port=self._socket.getsockname()[1])
        self._loop.add_reader(self._socket.fileno(), self._ready)

    def close(self) -> None:
        """From here on connections are refused; those that were accepted are served."""
        listening, self._socket = self._socket, None
        if listening is None:
            return
        self._loop.remove_reader(listening.fileno())
        # The path goes first: who connects from here on is refused by its absence.
        self.address.unlink()
        with listening:
            # What the system has accepted by itself.
            while self._accept(listening):
                pass

    def _ready(self) -> None:
        if self._socket is not None:
            self._accept(self._socket)

    def _accept(self, listening: socket.socket) -> bool:
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError:
            if listening is self._socket:
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(PAUSE_SECONDS, self._again, listening)
            return False
        accepted.setblocking(False)
        if self.address.path is None:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A router whose machine is gone never closes what it kept.
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._take(accepted)
        return True

    def _again(self, listening: socket.socket) -> None:
        if listening is self._socket:
            self._loop.add_reader(listening.fileno(), self._ready)


def _high(listening: socket.socket) -> socket.socket:
    """The same socket under a high number, where the system's limit allows it."""
    with listening:
        try:
            number = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
        except OSError:
            number = listening.detach()
        return socket.socket(fileno=number)
