"""The log of a run in Azure: an append blob behind a signed address, read from where one stopped."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import aiohttp

READ_S = 30.0
PIECE = 4 * 1024 * 1024
"""What is read of a log at once, so that one that grew while nobody looked does not fill the memory."""
_NOT_YET = frozenset({404, 416})
"""Not begun; nothing new."""


class RunLog:
    """Reads whole lines. Use it as an async context manager.

    `address`: gives the signed address; asked again when one has ended. A log that cannot be read fails nothing.
    """

    def __init__(self, address: Callable[[], Awaitable[str]]) -> None:
        self._address = address
        self._url = ""
        self._read = 0
        self._rest = b""
        self._told = False
        self.trouble = ""
        """Why the last look found nothing; told once."""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READ_S), trust_env=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def more(self, *, last: bool) -> list[str]:
        """The lines that came. `last`: nothing more will come, so that also a line without an end counts."""
        self.trouble = ""
        found = self._rest
        while True:
            piece = await self._piece()
            found += piece
            if not last or not piece:
                break
        lines = found.split(b"\n")
        self._rest = b"" if last else lines.pop()
        if last and lines and not lines[-1]:
            lines.pop()
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

    async def _piece(self) -> bytes:
        for fresh in (False, True):
            if fresh or not self._url:
                self._url = await self._address()
            status, content = await self._get()
            if status in {200, 206}:
                self._told = False
                content = content[self._read :] if status == 200 else content
                self._read += len(content)
                return content
            if status in _NOT_YET:
                return b""
            if status != 403:
                self._say(f"status {status}" if status else "no answer")
                return b""
        self._say("status 403")
        return b""

    async def _get(self) -> tuple[int, bytes]:
        assert self._session is not None  # noqa: S101 - made by __aenter__
        headers = {"Range": f"bytes={self._read}-{self._read + PIECE - 1}"}
        try:
            async with self._session.get(self._url, headers=headers) as answer:
                return answer.status, await answer.read() if answer.status in {200, 206} else b""
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0, b""

    def _say(self, trouble: str) -> None:
        self.trouble = "" if self._told else trouble
        self._told = True
