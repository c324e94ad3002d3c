"""Connections from the gate to its replica: responses are parsed here, idle connections are kept for a moment."""

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from aks_inference_runtime.router.gate.address import Address
from aks_inference_runtime.router.gate.wire import MAX_HEAD_BYTES, Headers

IDLE_SECONDS = 1.0
"""How long an idle connection may be used again: below the keep-alive of model servers (gunicorn 2 s, uvicorn 5 s), so
that a request never meets a connection which the server is just closing."""
CONNECT_SECONDS = 2.0
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
WHOLE_BYTES = 4_096
"""A request of up to so much, sent in one piece, is read in one piece by any server (gunicorn reads 8 KiB at once)."""


class ResponseSink(Protocol):
    """Where a response goes."""

    def response_head(self, status: int, phrase: bytes, headers: Headers, length_known: bool) -> None:
        """Status and headers are there."""

    def response_body(self, data: bytes) -> None:
        """A piece of the body."""

    def response_pause(self) -> None:
        """What has come so far was told, and the response is not whole."""

    def response_end(self) -> None:
        """The response is whole: the replica is done."""

    def response_malformed(self, what: str) -> None:
        """This is no response that can be passed on; the replica may still work, its end is told later."""

    def upstream_lost(self, *, unread: bool) -> None:
        """The connection ended before the response was whole; unread: nobody has read anything of the request."""

    def upstream_writable(self, writable: bool) -> None:
        """Whether the replica takes more of the request's body."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to the replica, with at most one request on it."""

    def __init__(self, released: Callable[["UpstreamConnection"], None], *, local: bool) -> None:
        self._released = released
        self._local = local
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.closed = False
        self.request_whole = False
        """Whether all of the present request went out: else the replica would take the next one for its body."""
        self._sink: ResponseSink | None = None
        self._head_request = False
        self._headers: Headers = []
        self._head_bytes = 0
        self._phrase = b""
        self._until_eof = False
        self._head_done = False
        self._whole = False
        self._keep_alive = False
        self._broken = False
        self._heard = False
        self._pieces = 0
        self._bytes = 0

    def begin(self, sink: ResponseSink, *, head_request: bool) -> None:
        """The next response on this connection goes to the sink."""
        self._sink = sink
        self._head_request = head_request
        self._head_done = False
        self._whole = False
        self._until_eof = False
        self._heard = False
        self._pieces = self._bytes = 0
        self.request_whole = False

    def write(self, data: bytes) -> None:
        """Sends a piece of the request."""
        assert self.transport is not None  # noqa: S101 - connected
        self._pieces += 1
        self._bytes += len(data)
        self.transport.write(data)

    def ended(self) -> bool:
        """Whether the replica has closed this idle connection, also if that was not seen yet."""
        if self.closed or self.transport is None:
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._sink is None:
            self.close()
            return
        if self._broken:
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._broken = True
        if self._whole:
            self._complete()
        elif self._broken and self._sink is not None:
            # It is read on to its end: until then the replica may work on the request.
            self._sink.response_malformed("the replica's answer is not valid HTTP/1.1")
        elif self._sink is not None:
            self._sink.response_pause()

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    def pause_writing(self) -> None:
        if self._sink is not None:
            self._sink.upstream_writable(False)

    def resume_writing(self) -> None:
        if self._sink is not None:
            self._sink.upstream_writable(True)

    def close(self) -> None:
        """Closes without waiting; nothing more is told to the sink."""
        self.closed = True
        self._sink = None
        if self.transport is not None:
            self.transport.abort()

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        if self._whole:
            raise httptools.HttpParserError("more than one response")
        self._headers = []
        self._phrase = b""
        self._head_bytes = 0

    def on_status(self, phrase: bytes) -> None:
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES and name.lower() not in FRAMING:
            # Parsed on, so that its end is known: only then is the replica done.
            return
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._sink is None or status < 200:
            return
        names = {name for name, _ in self._headers}
        bodiless = self._head_request or status in (204, 304)
        self._head_done = True
        self._until_eof = not bodiless and b"content-length" not in names and b"transfer-encoding" not in names
        if self._head_bytes > MAX_HEAD_BYTES:
            self._sink.response_malformed("the head of the replica's answer is too large")
        else:
            self._sink.response_head(status, self._phrase, self._headers, bodiless or b"content-length" in names)
        if self._head_request and self._sink is not None:
            # The parser waits for a body that never comes: the connection cannot be used again.
            sink, self._sink = self._sink, None
            self.close()
            sink.response_end()

    def on_body(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.response_body(data)

    def on_message_complete(self) -> None:
        self._whole = self._head_done
        self._keep_alive = self._parser.should_keep_alive()

    # --- ends

    def _complete(self) -> None:
        sink, self._sink = self._sink, None
        if self.request_whole and not self._broken and self._keep_alive:
            self._released(self)
        else:
            self.close()
        if sink is not None:
            sink.response_end()

    def _ended(self, error: Exception | None) -> None:
        whole = self._head_done and self._until_eof
        sink = self._sink
        self.close()
        if sink is None:
            return
        if whole:
            sink.response_end()
        else:
            sink.upstream_lost(unread=self._unread(error))

    def _unread(self, error: Exception | None) -> bool:
        """A Unix socket is reset only when its other end was closed with something unread in it."""
        reset = self._local and isinstance(error, ConnectionResetError | BrokenPipeError)
        return reset and not self._heard and self._pieces == 1 and self._bytes <= WHOLE_BYTES


class UpstreamPool:
    """Opens connections to one replica and keeps idle ones for a second."""

    def __init__(self, address: Address, limit: int) -> None:
        self._address = address
        self._limit = limit
        self._idle: list[UpstreamConnection] = []

    def idle(self) -> UpstreamConnection | None:
        """A connection that can be used again, if there is one."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since > IDLE_SECONDS or connection.ended():
                connection.close()
                continue
            return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection. Raises OSError (also at the deadline)."""
        local = self._address.path is not None
        async with asyncio.timeout(CONNECT_SECONDS):
            return await self._address.connect(lambda: UpstreamConnection(self._release, local=local))

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _release(self, connection: UpstreamConnection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        if len(self._idle) < self._limit:
            self._idle.append(connection)
        else:
            connection.close()
