"""Where a server listens: a Unix socket, or a TCP port."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True)
class Address:
    """Of the two the path counts where there is one."""

    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0

    async def connect(self, make: Callable[[], P]) -> P:
        """A connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            _, protocol = await loop.create_unix_connection(make, str(self.path))
        else:
            _, protocol = await loop.create_connection(make, self.host, self.port)
        return protocol

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
