"""A connection from the router: requests are parsed here, one exchange at a time."""

import asyncio
from typing import cast

import httptools

from aks_inference_runtime.router.gate import wire
from aks_inference_runtime.router.gate.exchange import Context, Exchange, RequestHead

LINGER_SECONDS = 2.0
"""After an early answer the rest of the body is read and dropped for so long: closing at once would send a reset that
overtakes the answer."""


class RouterConnection(asyncio.Protocol):
    """Implements `exchange.RouterSide`."""

    def __init__(self, context: Context, connections: set["RouterConnection"]) -> None:
        self._c = context
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._feeding: Exchange | None = None
        self._holds: set[str] = set()
        self._url = b""
        self._headers: wire.Headers = []
        self._head_bytes = 0
        self._closing = False

    @property
    def idle(self) -> bool:
        """No request is on it."""
        return self._exchange is None

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._malformed()

    def eof_received(self) -> bool:
        # The router closes only what it has given up; a half-closed client stays its business.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._closing = True
        self._transport = None
        exchange, self._exchange, self._feeding = self._exchange, None, None
        if exchange is not None:
            exchange.router_gone()

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client_writable(True)

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        if self._exchange is not None:
            raise httptools.HttpParserError("a request before the answer to the one before it")
        self._url = b""
        self._headers = []
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        settings = self._c.settings
        method = self._parser.get_method()
        names = dict(self._headers)
        if b"content-length" in names and b"transfer-encoding" in names:
            raise httptools.HttpParserError("both Content-Length and Transfer-Encoding")
        turn = names.get(wire.TURN_HEADER)
        if turn is not None and self._c.departed.take(turn):
            # Only a client that closes its side and still listens ever reads this.
            text = "the client closed its side while the request waited"
            self.write(wire.answer(400, "bad-request", text, settings.version, close=True))
            self._linger()
            return
        path, mark, query = self._url.partition(b"?")
        target = settings.swagger_path if path.endswith(b"/swagger.json") else settings.score_path
        dropped = wire.named_by_connection(self._headers) | {wire.TURN_HEADER}
        kept = [pair for pair in self._headers if pair[0] not in dropped]
        chunked = b"transfer-encoding" in names
        if chunked:
            kept.append((b"transfer-encoding", b"chunked"))
        http_11 = self._parser.get_http_version() == "1.1"
        request = RequestHead(
            bytes=wire.head(b"%b %b HTTP/1.1" % (method, target.encode() + mark + query), kept),
            is_head=method == b"HEAD",
            chunked=chunked,
            expects_continue=http_11 and names.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=self._parser.should_keep_alive(),
            http_11=http_11,
        )
        # `done` may be called before the constructor returns only through the loop: the order here is safe.
        self._exchange = self._feeding = Exchange(self._c, self, request)

    def on_body(self, data: bytes) -> None:
        if self._feeding is not None:
            self._feeding.body(data)

    def on_message_complete(self) -> None:
        if self._feeding is not None:
            feeding, self._feeding = self._feeding, None
            feeding.body_end()

    # --- exchange.RouterSide

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def hold(self, reason: str, on: bool) -> None:
        before = bool(self._holds)
        if on:
            self._holds.add(reason)
        else:
            self._holds.discard(reason)
        if self._transport is None or before == bool(self._holds):
            return
        if self._holds:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def done(self, *, keep_alive: bool) -> None:
        self._exchange = self._feeding = None
        for reason in tuple(self._holds):
            self.hold(reason, False)
        if not keep_alive:
            self._linger()

    def abort(self) -> None:
        self._closing = True
        self._exchange = self._feeding = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Closes a connection without a request on it."""
        if self._transport is not None:
            self._transport.close()

    # --- ends

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > wire.MAX_HEAD_BYTES:
            raise httptools.HttpParserError("the request's head is too large")

    def _malformed(self) -> None:
        if self._exchange is not None:
            # The body broke off or a second request came too early: nobody can be answered in order any more.
            exchange, self._exchange, self._feeding = self._exchange, None, None
            exchange.router_gone()
            self.abort()
            return
        self.write(
            wire.answer(400, "bad-request", "the request is not valid HTTP/1.1", self._c.settings.version, close=True)
        )
        self._linger()

    def _linger(self) -> None:
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        if transport.can_write_eof():
            transport.write_eof()
        self._c.loop.call_later(LINGER_SECONDS, transport.abort)
