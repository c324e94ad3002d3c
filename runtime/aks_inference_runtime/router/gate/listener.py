"""The gate's data listener: open while the replica may get requests, closed as soon as it may not.

A refused connection is the one sign that a router understands before it has sent anything, so that the request goes
elsewhere whatever it is.
"""

import asyncio
import contextlib
import fcntl
import socket
from collections.abc import Callable
from dataclasses import replace

from aks_inference_runtime.router.gate.address import Address

BACKLOG = 1024
HIGH = 900
"""Linux closes the files of a process that is killed from the highest number down: the listener goes before the
connections, so that who sees one of those end is refused already. Below the usual limit of 1,024."""


class Listener:
    """Opens, closes and opens again at the same address."""

    def __init__(self, address: Address, make: Callable[[], asyncio.Protocol]) -> None:
        self.address = address
        """With the actual port once it was open."""
        self._make = make
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None
        """The same listening socket: what it has accepted by itself is taken out before it closes for good."""
        self._tasks: set[asyncio.Task[object]] = set()

    async def open(self) -> None:
        """Listens. Raises OSError when the address cannot be had."""
        if self._server is not None:
            return
        listening = _high(self.address.listen(BACKLOG))
        if self.address.path is None:
            self.address = replace(self.address, port=listening.getsockname()[1])
        self._held = _high(listening.dup())
        loop = asyncio.get_running_loop()
        # Both kinds take any listening stream socket.
        self._server = await (
            loop.create_server(self._make, sock=listening, backlog=BACKLOG)
            if self.address.path is None
            else loop.create_unix_server(self._make, sock=listening, backlog=BACKLOG)
        )

    def close(self) -> None:
        """From here on connections are refused; those that were accepted are served."""
        server, held = self._server, self._held
        self._server = self._held = None
        if server is None or held is None:
            return
        server.close()
        loop = asyncio.get_running_loop()
        # The path goes first: who connects from here on is refused by its absence.
        self.address.unlink()
        held.setblocking(False)
        with held, contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                accepted, _ = held.accept()
                task: asyncio.Task[object] = loop.create_task(loop.connect_accepted_socket(self._make, accepted))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


def _high(listening: socket.socket) -> socket.socket:
    """The same socket under a high number, where the system's limit allows it."""
    with listening:
        try:
            number = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
        except OSError:
            number = listening.detach()
        return socket.socket(fileno=number)
