"""Where a server listens: a Unix socket, or a TCP port."""

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path


@dataclass(frozen=True)
class Address:
    """Of the two the path counts where there is one."""

    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0

    async def connect(self) -> socket.socket:
        """A connection that never blocks. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            return await _connected(loop, socket.AF_UNIX, str(self.path))
        failed: OSError | None = None
        for family, address in await self._found(loop):
            try:
                made = await _connected(loop, family, address)
            except OSError as error:
                failed = failed or error
                continue
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        raise failed or OSError(f"{self.host} has no address")

    async def _found(self, loop: asyncio.AbstractEventLoop) -> list[tuple[int, tuple[object, ...]]]:
        try:
            version = ip_address(self.host).version
        except ValueError:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            return [(family, address) for family, _, _, _, address in found]
        return [(socket.AF_INET if version == 4 else socket.AF_INET6, (self.host, self.port))]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection as streams. Raises OSError."""
        if self.path is not None:
            return await asyncio.open_unix_connection(str(self.path))
        return await asyncio.open_connection(self.host, self.port)

    def listen(self, backlog: int) -> socket.socket:
        """A socket that listens; at a path for the owner only, in place of what was there. Raises OSError."""
        if self.path is None:
            return socket.create_server((self.host, self.port), backlog=backlog)
        made = socket.socket(socket.AF_UNIX)
        try:
            self.unlink()
            mask = os.umask(0o177)
            try:
                made.bind(str(self.path))
            finally:
                os.umask(mask)
            made.listen(backlog)
        except BaseException:
            made.close()
            raise
        return made

    def unlink(self) -> None:
        """Removes the path, if there is one."""
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


async def _connected(loop: asyncio.AbstractEventLoop, family: int, address: str | tuple[object, ...]) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setblocking(False)
        if family == socket.AF_UNIX:
            # At once or never: a full backlog is no connection under way, for which the loop would take it.
            made.connect(address)
        else:
            await loop.sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
