"""Connections from the gate to its replica: responses are parsed here, idle connections are kept for a moment."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from aks_inference_runtime.router.gate.wire import MAX_HEAD_BYTES, Headers

IDLE_SECONDS = 1.0
"""How long an idle connection may be used again: below the keep-alive of model servers (gunicorn 2 s, uvicorn 5 s), so
that a request never meets a connection which the server is just closing."""
CONNECT_SECONDS = 2.0


class ResponseSink(Protocol):
    """Where a response goes."""

    def response_head(self, status: int, phrase: bytes, headers: Headers, length_known: bool) -> None:
        """Status and headers are there."""

    def response_body(self, data: bytes) -> None:
        """A piece of the body."""

    def response_end(self) -> None:
        """The response is whole: the replica is done."""

    def upstream_lost(self) -> None:
        """The connection ended before the response was whole."""

    def upstream_writable(self, writable: bool) -> None:
        """Whether the replica takes more of the request's body."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to the replica, with at most one request on it."""

    def __init__(self, released: Callable[["UpstreamConnection"], None]) -> None:
        self._released = released
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

    def begin(self, sink: ResponseSink, *, head_request: bool) -> None:
        """The next response on this connection goes to the sink."""
        self._sink = sink
        self._head_request = head_request
        self._head_done = False
        self._until_eof = False
        self.request_whole = False

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._sink is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._lost()

    def eof_received(self) -> bool:
        self._ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()

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
        self._headers = []
        self._phrase = b""
        self._head_bytes = 0

    def on_status(self, phrase: bytes) -> None:
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise httptools.HttpParserError("the response's headers are too large")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._sink is None or status < 200:
            return
        names = {name for name, _ in self._headers}
        bodiless = self._head_request or status in (204, 304)
        self._head_done = True
        self._until_eof = not bodiless and b"content-length" not in names and b"transfer-encoding" not in names
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
        if self._sink is None or not self._head_done:
            return
        sink, self._sink = self._sink, None
        if self.request_whole and self._parser.should_keep_alive():
            self._released(self)
        else:
            self.close()
        sink.response_end()

    # --- ends

    def _ended(self) -> None:
        if self._sink is not None and self._head_done and self._until_eof:
            sink, self._sink = self._sink, None
            self.close()
            sink.response_end()
            return
        self._lost()

    def _lost(self) -> None:
        sink = self._sink
        self.close()
        if sink is not None:
            sink.upstream_lost()


class UpstreamPool:
    """Opens connections to one replica and keeps idle ones for a second."""

    def __init__(self, host: str, port: int, limit: int) -> None:
        self._host = host
        self._port = port
        self._limit = limit
        self._idle: list[UpstreamConnection] = []

    def idle(self) -> UpstreamConnection | None:
        """A connection that can be used again, if there is one."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.closed or now - connection.idle_since > IDLE_SECONDS:
                connection.close()
                continue
            return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection. Raises OSError (also at the deadline)."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self._release), self._host, self._port
            )
        return connection

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
