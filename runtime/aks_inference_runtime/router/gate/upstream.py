"""Connections from the gate to its replica: responses are parsed here, idle connections are kept for a moment."""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from typing import Protocol

import httptools

from aks_inference_runtime.router.gate.address import Address
from aks_inference_runtime.router.gate.sockets import Sockets
from aks_inference_runtime.router.gate.wire import MAX_HEAD_BYTES, Headers

IDLE_SECONDS = 1.0
"""How long an idle connection may be used again: below the keep-alive of model servers (gunicorn 2 s, uvicorn 5 s), so
that a request never meets a connection which the server is just closing."""
CONNECT_SECONDS = 2.0
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
READ_BYTES = 65_536
HIGH_BYTES = 65_536
"""With more than this unsent the rest of the request is not read on."""
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


class Upstream(Protocol):
    """A connection to the replica, as an exchange uses it."""

    request_whole: bool

    def begin(self, sink: ResponseSink, *, head_request: bool) -> None:
        """The next response on this connection goes to the sink."""

    def write(self, data: bytes) -> None:
        """Sends a piece of the request."""

    def end(self) -> None:
        """Nothing more of the request comes."""

    def pause(self, on: bool) -> None:
        """Whether the response is not read on."""

    def close(self) -> None:
        """Closes without waiting; nothing more is told to the sink."""


class Pool(Protocol):
    """Connections to one replica."""

    def idle(self) -> Upstream | None:
        """A connection that can be used again, if there is one."""

    async def connect(self) -> Upstream:
        """A new connection. Raises OSError (also at the deadline)."""

    def close(self) -> None:
        """Closes what is idle."""


class UpstreamConnection:
    """One connection to the replica, with at most one request on it. Implements `sockets.Watched`.

    Over a plain socket: what is written goes out at once, not at the end of the loop's round.
    """

    def __init__(
        self,
        connected: socket.socket,
        sockets: Sockets,
        loop: asyncio.AbstractEventLoop,
        released: Callable[["UpstreamConnection"], None],
    ) -> None:
        self._socket = connected
        self._number = connected.fileno()
        self._sockets = sockets
        self._loop = loop
        self._released = released
        self._local = connected.family == socket.AF_UNIX
        self._parser = httptools.HttpResponseParser(self)
        self._look = select.poll()
        self._look.register(self._number, select.POLLIN)
        self.idle_since = 0.0
        self.closed = False
        self.request_whole = False
        """Whether all of the present request went out: else the replica would take the next one for its body."""
        self._sink: ResponseSink | None = None
        self._unsent = b""
        self._failed: OSError | None = None
        """What writing came to: nothing more is written, what came before is still read."""
        self._full = False
        self._eof = False
        self._paused = False
        self._asked = (False, False)
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
        self._watch()

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
        self._pieces += 1
        self._bytes += len(data)
        if self.closed or self._failed is not None:
            return
        if self._unsent:
            self._unsent += data
        else:
            self._send(data)
        if len(self._unsent) > HIGH_BYTES and not self._full:
            self._full = True
            if self._sink is not None:
                self._sink.upstream_writable(False)
        self._watch()

    def end(self) -> None:
        """Nothing more of the request comes."""
        self._eof = True
        if self.closed or self._unsent:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def pause(self, on: bool) -> None:
        """Whether the response is not read on."""
        self._paused = on
        self._watch()

    def ended(self) -> bool:
        """Whether the replica has closed this idle connection, also if that was not seen yet."""
        return self.closed or bool(self._look.poll(0))

    # --- sockets.Watched

    def readable(self) -> None:
        if self.closed or self._paused:
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            if self._failed is not None:
                self._ended(self._failed)
            return
        except OSError as error:
            self._ended(error)
            return
        if data:
            self._received(data)
        else:
            self._ended(self._failed)

    def writable(self) -> None:
        if self.closed:
            return
        unsent, self._unsent = self._unsent, b""
        self._send(unsent)
        if not self._unsent:
            if self._eof:
                self.end()
            if self._full:
                self._full = False
                if self._sink is not None:
                    self._sink.upstream_writable(True)
        self._watch()

    def hung_up(self) -> None:
        if self._paused and not self.closed:
            # What has come is read later; until then the system would tell it without end.
            self._sockets.leave(self._number)
            self._asked = (False, False)
        else:
            self.readable()

    def _send(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            # Not from within what writes. It may have answered before it closed.
            self._failed = error
            self._loop.call_soon(self.readable)
            return
        if sent < len(data):
            self._unsent = data[sent:]

    def _watch(self) -> None:
        wanted = (not self._paused, bool(self._unsent))
        if wanted != self._asked and not self.closed:
            self._asked = wanted
            self._sockets.watch(self._number, self, reading=wanted[0], writing=wanted[1])

    def _received(self, data: bytes) -> None:
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

    def close(self) -> None:
        """Closes without waiting; nothing more is told to the sink."""
        self._sink = None
        if not self.closed:
            self.closed = True
            self._sockets.forget(self._number)
            self._socket.close()

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
        # What the replica has not taken would stand before the next request.
        taken = self.request_whole and not self._unsent and not self._eof and self._failed is None
        if taken and not self._broken and self._keep_alive:
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

    def __init__(self, address: Address, limit: int, sockets: Sockets) -> None:
        self._address = address
        self._limit = limit
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._idle: list[UpstreamConnection] = []

    def idle(self) -> UpstreamConnection | None:
        """A connection that can be used again, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if self._loop.time() - connection.idle_since > IDLE_SECONDS or connection.ended():
                connection.close()
                continue
            return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection. Raises OSError (also at the deadline)."""
        async with asyncio.timeout(CONNECT_SECONDS):
            connected = await self._address.connect()
        return UpstreamConnection(connected, self._sockets, self._loop, self._release)

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _release(self, connection: UpstreamConnection) -> None:
        connection.idle_since = self._loop.time()
        if len(self._idle) < self._limit:
            self._idle.append(connection)
        else:
            connection.close()
