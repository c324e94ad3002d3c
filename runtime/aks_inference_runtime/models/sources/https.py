"""Files of the web: fetched once, continued where they broke off, never half."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from aks_inference_runtime.images.registry.backoff import RETRIED_STATUS, Backoff
from aks_inference_runtime.images.registry.transport import NETWORK_ERRORS, tls_context
from aks_inference_runtime.models.errors import SourceUnavailable
from aks_inference_runtime.models.progress import Progress, silent

_PIECE = 256 * 1024
CONNECT_S, IDLE_S = 10.0, 60.0


@dataclass(frozen=True)
class WebOptions:
    """How web servers are reached; proxies and ~/.netrc of the machine count."""

    ca_file: Path | None = None
    backoff: Backoff = field(default_factory=Backoff)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True)
class WebFile:
    """A file as its server describes it."""

    size: int | None
    etag: str
    """A strong one, or empty."""
    modified: str

    @property
    def revision(self) -> str | None:
        """Equal for equal contents; None where the server tells nothing to compare."""
        if self.etag:
            return f"etag {self.etag}"
        return f"modified {self.modified} {self.size}" if self.modified and self.size is not None else None

    @staticmethod
    def of(headers: Mapping[str, str], size: str | None) -> "WebFile":
        """From the headers of an answer."""
        etag = headers.get("ETag", "")
        length = int(size) if size and size.isdigit() else None
        return WebFile(length, "" if etag.startswith("W/") else etag, headers.get("Last-Modified", ""))


class Web:
    """An async context manager around one session."""

    def __init__(self, options: WebOptions | None = None) -> None:
        self._options = options or WebOptions()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Web":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls_context(self._options.ca_file)),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=IDLE_S),
            # Without it a server may compress on the way, and lengths and ranges would be those of another content.
            headers={"User-Agent": "aks-inference", "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def describe(self, url: str) -> WebFile:
        """Size and revision without the content. Raises SourceUnavailable."""
        failures = 0
        while True:
            try:
                async with self._ask("HEAD", url, {}) as answer:
                    if answer.status == 200:
                        return WebFile.of(answer.headers, answer.headers.get("Content-Length"))
                    if answer.status in {403, 405, 501}:
                        # No HEAD there (signed addresses are for GET alone): the content has to tell.
                        return WebFile(None, "", "")
                    reason, again = _refused(url, answer)
            except NETWORK_ERRORS as error:
                reason, again = _broken(url, error)
            failures += 1
            await self._pause(failures, reason, again)

    async def download(self, url: str, path: Path, progress: Progress = silent) -> None:
        """The content into a file, which appears only whole; what an earlier try left beside it is continued.

        Raises SourceUnavailable.
        """
        part = _Part(path)
        failures = 0
        while True:
            before = part.size()
            try:
                if await self._continue(url, part, progress):
                    part.finish()
                    return
                reason, again = f"{_shown(url)}: ended early", True
            except NETWORK_ERRORS as error:
                reason, again = _broken(url, error)
            except _Refused as error:
                reason, again = error.reason, error.again
            failures = failures + 1 if part.size() <= before else 1
            await self._pause(failures, reason, again)

    async def _continue(self, url: str, part: "_Part", progress: Progress) -> bool:
        have, mark = part.resume()
        headers = {"Range": f"bytes={have}-", "If-Range": mark} if have else {}
        async with self._ask("GET", url, headers) as answer:
            if answer.status == 416:
                part.forget()
                return False
            if answer.status not in {200, 206}:
                raise _Refused(*_refused(url, answer))
            offset = have if answer.status == 206 else 0
            rest = answer.headers.get("Content-Length", "")
            total = offset + int(rest) if rest.isdigit() else None
            described = WebFile.of(answer.headers, None)
            part.begin(offset, described.etag or described.modified)
            done = offset
            async for piece in answer.content.iter_chunked(_PIECE):
                await asyncio.to_thread(part.append, piece)
                done += len(piece)
                progress(done, total)
        return total is None or done == total

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> "aiohttp.client._RequestContextManager":
        assert self._session is not None, "used outside of its context"  # noqa: S101
        return self._session.request(method, url, headers=headers, max_redirects=5)

    async def _pause(self, failures: int, reason: str, again: bool) -> None:
        wait = self._options.backoff.wait_s(failures, None, 0, 0.5) if again else None
        if wait is None:
            raise SourceUnavailable(f"{reason}{f'; gave up after {failures} tries' if again else ''}")
        await self._options.sleep(wait)


class _Part:
    """What has arrived of a file, and which content it belongs to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part, self._mark = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.mark")

    def size(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def resume(self) -> tuple[int, str]:
        """Bytes that need not come again, and the mark of the content; 0 where nothing tells which it was."""
        return (self.size(), self._mark.read_text()) if self._mark.is_file() else (0, "")

    def begin(self, offset: int, mark: str) -> None:
        if not offset:
            self.forget()
        if mark:
            self._mark.write_text(mark)

    def append(self, piece: bytes) -> None:
        with self._part.open("ab") as file:
            file.write(piece)

    def finish(self) -> None:
        self._part.touch()
        self._part.replace(self._path)
        self._mark.unlink(missing_ok=True)

    def forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)


class _Refused(Exception):
    def __init__(self, reason: str, again: bool) -> None:
        self.reason, self.again = reason, again


def _refused(url: str, answer: aiohttp.ClientResponse) -> tuple[str, bool]:
    mend = {
        401: "; it wants a login: put one into ~/.netrc",
        403: "; this login may not read it",
        404: "; there is no such file",
    }.get(answer.status, "")
    return f"{_shown(url)}: answered {answer.status}{mend}", answer.status in RETRIED_STATUS


def _broken(url: str, error: BaseException) -> tuple[str, bool]:
    certificate = isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError)
    return f"{_shown(url)}: {error or type(error).__name__}", not certificate


def _shown(url: str) -> str:
    """Without the query: some servers take secrets there."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
