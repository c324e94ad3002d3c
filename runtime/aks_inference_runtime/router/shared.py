"""The sockets that clients reach, where several first processes take connections from the same ones.

The agent binds and keeps them, and gives them to each HAProxy. A connection that no process has taken yet stays in the
system's line for the next one that does: none is reset when one process of several ends, as it would be if each had a
socket of its own on the same port (SO_REUSEPORT). HAProxy listens, and never closes a socket for others.
"""

import contextlib
import errno
import socket
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from aks_inference_runtime.api.errors import Conflict


class SharedSockets:
    """Open from its making until it is closed."""

    def __init__(self, host: str, ports: Iterable[int]) -> None:
        """
        Args:
            host: Required. Address of this machine.
            ports: Required.

        Raises:
            Conflict: A port is in use.
        """
        self._sockets: dict[int, socket.socket] = {}
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        for port in ports:
            try:
                made = socket.socket(family, socket.SOCK_STREAM)
                self._sockets[port] = made
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((host, port))
            except OSError as error:
                self.close()
                if error.errno == errno.EADDRINUSE:
                    raise Conflict(f"port {port} on {host} is in use by another process") from None
                raise

    @property
    def files(self) -> Mapping[int, int]:
        """Port → number of the open file."""
        return {port: one.fileno() for port, one in self._sockets.items()}

    def close(self) -> None:
        """The agent's own hold of them; processes that were given one still have theirs."""
        for one in self._sockets.values():
            with contextlib.suppress(OSError):
                one.close()
        self._sockets.clear()
