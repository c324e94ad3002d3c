"""Sending a blob: in one request or one piece when it is small, else in chunks that continue after a break."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

from aks_inference_runtime.images.errors import AccessDenied, RegistryError, RegistryUnavailable
from aks_inference_runtime.images.registry.backoff import RETRIED_STATUS
from aks_inference_runtime.images.registry.manifest import Descriptor
from aks_inference_runtime.images.registry.transport import NETWORK_ERRORS, SMALL_BYTES, Answer, Transport, refusal

_STARTED = frozenset({202})
_STARTED_OR_DONE = frozenset({201, 202})
_LOST = frozenset({404, 416})
"""The upload is gone, or stands somewhere else than we think."""
_wholly: dict[str, bool] = {}
"""By host: whether a registry took a blob with the request that opens its upload, as it answered in this process."""


@dataclass(frozen=True)
class Sent:
    """What a push cost: bytes sent, and how the blob came there."""

    bytes: int
    how: Literal["sent", "mounted", "there"]


@dataclass(frozen=True)
class UploadSource:
    """Where the bytes of a blob come from: `read(offset, length)`."""

    read: Callable[[int, int], bytes]

    @staticmethod
    def of(content: bytes) -> "UploadSource":
        """Bytes in memory."""
        return UploadSource(lambda offset, length: content[offset : offset + length])

    @staticmethod
    def file(path: Path) -> "UploadSource":
        """A file."""

        def read(offset: int, length: int) -> bytes:
            with path.open("rb") as file:
                return os.pread(file.fileno(), length, offset)

        return UploadSource(read)


@dataclass
class _Session:
    """An upload under way: where it goes on, and from which byte."""

    url: str
    offset: int = 0
    sent: int = 0


async def upload(
    transport: Transport,
    host: str,
    scope: str,
    start: str,
    blob: Descriptor,
    source: UploadSource,
    opened: str | None = None,
) -> Sent:
    """Sends a blob by an upload that `start` (a URL) opens, or `opened` where it was before. Raises the errors of
    Transport.request."""
    if opened is None and blob.size <= SMALL_BYTES and takes_whole(host):
        opened = await _send_whole(transport, host, scope, start, blob, source)
        if opened is None:
            return Sent(blob.size, "sent")
    failures = total = 0
    chunk = transport.options.chunk_bytes
    while True:
        session = _Session(opened or await open_upload(transport, host, scope, start))
        was_open, opened = opened is not None, None
        try:
            await _Upload(transport, host, scope, start.partition("uploads/")[0], blob, source, chunk).run(session)
            return Sent(total + session.sent, "sent")
        except RegistryError as error:
            # The registry forgot the upload: a restart begins a new one. One that lay open for the time of a build may
            # have ended in any way: where it goes on may be a signed address.
            if error.status not in _LOST and not was_open:
                raise
            reason = str(error)
        total += session.sent
        if was_open:
            continue
        failures += 1
        await transport.pause(failures, None, reason)


def takes_whole(host: str) -> bool:
    """Whether a small blob is worth sending with the request that opens its upload: until a registry takes none."""
    return _wholly.get(host, True)


async def _send_whole(
    transport: Transport, host: str, scope: str, start: str, blob: Descriptor, source: UploadSource
) -> str | None:
    """Sends a blob with the request that opens its upload ("Single POST" of the specification). Gives where the upload
    goes on where the registry wants it in a second one, as it may; None: all is done."""
    url, headers = f"{start}?digest={blob.digest}", {"Content-Type": "application/octet-stream"}
    body = source.read(0, blob.size)
    try:
        answer = await transport.request(
            "POST", url, host=host, scope=scope, headers=headers, body=body, expected=_STARTED_OR_DONE, retried=False
        )
    except AccessDenied:
        # In two requests it is the same right; and another login that fails may lock an account.
        raise
    except (RegistryError, RegistryUnavailable):
        # Not tried again: one that does not know this, or a proxy before it, may answer 500 or close each time. The
        # usual way has its tries, and says whether anything else is wrong.
        _wholly.setdefault(host, False)
        return await open_upload(transport, host, scope, start)
    _wholly[host] = answer.status == 201
    return None if _wholly[host] else _location(answer)


async def open_upload(transport: Transport, host: str, scope: str, start: str) -> str:
    """Where an upload goes on that `start` (a URL) opens. Raises the errors of Transport.request."""
    answer = await transport.request("POST", start, host=host, scope=scope, expected=_STARTED, body=b"")
    return _location(answer)


@dataclass(frozen=True)
class _Upload:
    transport: Transport
    host: str
    scope: str
    blobs: str
    """The URL under which the repository's blobs are."""
    blob: Descriptor
    source: UploadSource
    chunk: int

    async def run(self, session: _Session) -> None:
        failures = 0
        while True:
            # Everything that fits in one piece goes with the closing request.
            last = self.blob.size - session.offset <= self.chunk
            before = session.offset
            reason, retry_after = await (self._close(session) if last else self._patch(session))
            if reason is None:
                if last:
                    return
                failures = 0
                continue
            failures = failures + 1 if session.offset == before else 1
            await self.transport.pause(failures, retry_after, reason)
            if await self._resume(session):
                return

    async def _patch(self, session: _Session) -> tuple[str | None, str | None]:
        body = await asyncio.to_thread(self.source.read, session.offset, self.chunk)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{session.offset}-{session.offset + len(body) - 1}",
        }
        answer = await self._send("PATCH", session.url, headers, body, frozenset({202}))
        if not isinstance(answer, Answer):
            return answer
        session.url = _location(answer)
        session.offset += len(body)
        session.sent += len(body)
        return None, None

    async def _close(self, session: _Session) -> tuple[str | None, str | None]:
        left = self.blob.size - session.offset
        if left <= SMALL_BYTES:
            body = self.source.read(session.offset, self.chunk)
        else:
            body = await asyncio.to_thread(self.source.read, session.offset, self.chunk)
        headers = {"Content-Type": "application/octet-stream"}
        if session.offset:
            headers["Content-Range"] = f"{session.offset}-{session.offset + max(len(body), 1) - 1}"
        if not body:
            headers = {}
        url = f"{session.url}{'&' if '?' in session.url else '?'}digest={self.blob.digest}"
        answer = await self._send("PUT", url, headers, body, frozenset({200, 201, 204}))
        if not isinstance(answer, Answer):
            return answer
        session.sent += len(body)
        return None, None

    async def _send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, expected: frozenset[int]
    ) -> Answer | tuple[str, str | None]:
        """The answer, or why it failed and when to try again."""
        try:
            async with self.transport.once(
                method, url, host=self.host, scope=self.scope, headers=headers, body=body
            ) as response:
                if response.status in expected:
                    return Answer(response.status, response.headers, b"", str(response.url))
                error = await refusal(response, method, self.host)
                if response.status not in RETRIED_STATUS:
                    raise error
                return str(error), response.headers.get("Retry-After")
        except NETWORK_ERRORS as error:
            return f"{self.host}: {method} broke off ({type(error).__name__})", None

    async def _resume(self, session: _Session) -> bool:
        """Asks where the upload stands. True: it is complete, only the answer was lost."""
        known = await self.transport.request(
            "HEAD", f"{self.blobs}{self.blob.digest}", host=self.host, scope=self.scope, expected=frozenset({200, 404})
        )
        if known.status == 200:
            return True
        try:
            answer = await self.transport.request(
                "GET", session.url, host=self.host, scope=self.scope, expected=frozenset({204, 202, 200})
            )
        except RegistryUnavailable as error:
            # Some registries answer a broken upload with 500 for ever: a new one helps.
            raise RegistryError(str(error), 404) from None
        session.url = _location(answer)
        _, _, end = answer.headers.get("Range", "").rpartition("-")
        # "0-0" stands for nothing and for one byte alike: with nothing sent yet it is nothing.
        reached = int(end) + 1 if end.isdigit() and int(end) > 0 else 0
        session.sent += max(0, reached - session.offset)
        session.offset = min(reached, self.blob.size)
        return False


def _location(answer: Answer) -> str:
    where = answer.headers.get("Location")
    if not where:
        raise RegistryError(f"{answer.url.partition('/v2/')[0]}: opened an upload without saying where", answer.status)
    # Relative to who answered: a registry may have sent us to another host.
    return urljoin(answer.url, where)
