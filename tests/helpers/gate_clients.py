"""Raw connections to a gate."""

import asyncio
from typing import Any, Self

_opened: list["Connection"] = []


class Connection:
    """One, which `close_all` ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        _opened.append(self)

    @classmethod
    async def to(cls, replica: Any) -> Self:
        return cls(*await asyncio.open_unix_connection(str(replica.address)))

    async def answer(self, timeout: float = 15) -> tuple[bytes, bytes]:
        """Head and body of one that has a length."""
        async with asyncio.timeout(timeout):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            return head, await self.reader.readexactly(length)

    def close(self) -> None:
        self.writer.transport.abort()


async def close_all() -> None:
    """Also after a test that failed."""
    while _opened:
        _opened.pop().close()
    await asyncio.sleep(0)
