"""A connection from the router: one request and one answer at a time.

Over a plain socket: a transport of the loop would cost more than all else that is done for a small request.
"""

import asyncio
import select
import socket

import httptools

from aks_inference_runtime.router.gate import wire
from aks_inference_runtime.router.gate.context import Context, RequestHead
from aks_inference_runtime.router.gate.deadline import Waited, waited
from aks_inference_runtime.router.gate.exchange import Exchange
from aks_inference_runtime.router.gate.reading import Reading
from aks_inference_runtime.router.gate.sockets import Sockets
from aks_inference_runtime.router.gate.telemetry import CLIENT_LEFT, SLOW_READER, Request, request_id
from aks_inference_runtime.router.gate.tracing import HEADER

LINGER_SECONDS = 2.0
"""After an answer that is the last word it is read on for so long: closing at once would reset what is not read yet."""
DROP_SECONDS = 30.0
DROP_BYTES = 256 * 1024 * 1024
"""After an early answer so much of the rest of the body is read and dropped, with no end of the own side: HAProxy would
close the connection to the client, who may write all before it reads. The same bounds as in `refuse.lua`."""
FIRST_BYTES = 16_384
"""HAProxy's buffer: it sends no more at once of a new request."""
MORE_BYTES = 65_536
OURS = wire.HOP_BY_HOP | wire.OF_ROUTERS | {wire.TURN_HEADER, wire.SINCE_HEADER, wire.KEEP_HEADER, wire.REQUEST_ID}
"""Of the connection; of routers, for each other and for the gate; and what the gate says anew."""
NOT_PASSED_ON = OURS | {wire.SCRIPT_NAME}
NOT_WAITED = Waited()
TOO_LARGE = "the request's head is too large"
HIGH_BYTES = 65_536
"""With more than this unsent the replica's answer is not read on."""


class RouterConnection:
    """Implements `context.RouterSide` and `sockets.Watched`."""

    def __init__(
        self, context: Context, connections: set["RouterConnection"], sockets: Sockets, accepted: socket.socket
    ) -> None:
        self._c = context
        self._connections = connections
        self._sockets = sockets
        self._socket: socket.socket | None = accepted
        self._number = accepted.fileno()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None
        self._feeding: Exchange | None = None
        self._ending: Exchange | None = None
        """Its replica is done; the end of its answer waits to be taken."""
        self._reading: Reading | None = None
        self._too_slow: asyncio.TimerHandle | None = None
        self._holds: set[str] = set()
        self._unsent = b""
        self._full = False
        self._asked = (False, False)
        self._url = b""
        self._headers: wire.Headers = []
        self._head_bytes = 0
        self._begun = False
        self._parsing = False
        self._fresh: Exchange | None = None
        """It begins once all that has come of it is read."""
        self._request_whole = False
        self._keeps = False
        """After this answer the next request may come."""
        self._waited = False
        """In the router's queue: the present request."""
        self._kept = False
        """It has had one."""
        self._over = False
        """The answer is written, or none can be: what still comes is dropped."""
        self._lingers = False
        self._midway = False
        """The answer came before the whole of the body."""
        self._dropped = 0
        connections.add(self)
        # The router sends right after it has connected.
        self._read(FIRST_BYTES)
        self._watch()

    @property
    def unsent(self) -> bool:
        """Whether a part of an answer waits for its reader here."""
        return bool(self._unsent)

    # --- sockets.Watched

    def readable(self) -> None:
        if self._over or not self._holds:
            self._read(MORE_BYTES)
            self._watch()

    def writable(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._send(unsent)
        if self._reading is not None:
            self._reading.took(len(unsent) - len(self._unsent), self._c.loop.time())
        if not self._unsent:
            self._all_taken()
            self._finish()
        self._watch()

    def hung_up(self) -> None:
        # Told of a number that another connection had a moment ago, it would end this one.
        if self._socket is not None and _ended(self._number):
            self._gone()

    def _read(self, most: int) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(most)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            # The router closes only what it has given up; a half-closed client stays its business.
            self._gone()
        elif self._over:
            self._dropped += len(data)
            if self._dropped > DROP_BYTES:
                self._close()
        elif self._parser is not None:
            self._parsing = True
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._malformed()
            self._parsing = False
            fresh, self._fresh = self._fresh, None
            if fresh is not None:
                fresh.begin()
            self._finish()

    def _watch(self) -> None:
        if self._socket is None:
            return
        wanted = (self._over or not self._holds, bool(self._unsent))
        if wanted != self._asked:
            self._asked = wanted
            self._sockets.watch(self._number, self, reading=wanted[0], writing=wanted[1])

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        if self._begun:
            raise httptools.HttpParserError("a second request")
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_bytes += len(url)
        if self._head_bytes > wire.MAX_HEAD_BYTES:
            raise httptools.HttpParserError(TOO_LARGE)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > wire.MAX_HEAD_BYTES:
            raise httptools.HttpParserError(TOO_LARGE)
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        settings, parser = self._c.settings, self._parser
        if parser is None:
            return
        method = parser.get_method()
        names = dict(self._headers)
        if b"content-length" in names and b"transfer-encoding" in names:
            raise httptools.HttpParserError("both Content-Length and Transfer-Encoding")
        turn = names.get(wire.TURN_HEADER)
        if turn is not None and self._c.departed.take(turn):
            # Only a client that closes its side and still listens ever reads this.
            self.write(
                wire.answer(400, "bad-request", "the client closed its side while the request waited", settings.version)
            )
            self.done()
            return
        path, mark, query = self._url.partition(b"?")
        target = settings.swagger_path if path.endswith(b"/swagger.json") else settings.score_path
        kept = wire.passed_on(self._headers, NOT_PASSED_ON)
        queue = NOT_WAITED
        self._waited = turn is not None
        if turn is not None:
            queue = waited(names.get(wire.SINCE_HEADER), self._c.wall(), self._c.ahead_s())
        record = Request(request_id(names.get(wire.REQUEST_ID)), method, path, queue.seconds)
        kept.append((wire.REQUEST_ID, record.id))
        if (tracer := self._c.telemetry.tracer) is not None:
            record.trace = tracer.begin(names.get(HEADER))
            if record.trace is not None:
                kept = [pair for pair in kept if pair[0] != HEADER] + [(HEADER, record.trace.header)]
        chunked = b"transfer-encoding" in names
        if chunked:
            kept.append((b"transfer-encoding", b"chunked"))
        http_11 = parser.get_http_version() == "1.1"
        request = RequestHead(
            bytes=wire.head(b"%b %b HTTP/1.1" % (method, target.encode() + mark + query), kept),
            is_head=method == b"HEAD",
            chunked=chunked,
            expects_continue=http_11 and names.get(b"expect", b"").lower() == b"100-continue",
            http_11=http_11,
            record=record,
            keeps=http_11 and wire.KEEP_HEADER in names and names.get(b"connection") is None,
            left_s=queue.left_s,
        )
        self._exchange = self._feeding = self._fresh = Exchange(self._c, self, request)

    def on_body(self, data: bytes) -> None:
        if self._feeding is not None:
            self._feeding.body(data)

    def on_message_complete(self) -> None:
        self._request_whole = True
        if self._feeding is not None:
            feeding, self._feeding = self._feeding, None
            feeding.body_end()

    # --- context.RouterSide

    def write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
        else:
            self._send(data)
        if self._unsent and self._too_slow is None:
            self._time_reader()
        if len(self._unsent) > HIGH_BYTES and not self._full:
            self._full = True
            if self._exchange is not None:
                self._exchange.client_writable(False)
        self._watch()

    def hold(self, reason: str, on: bool) -> None:
        if on:
            self._holds.add(reason)
        else:
            self._holds.discard(reason)
        self._watch()

    def done(self, *, keeps: bool = False) -> bool:
        self._midway = self._feeding is not None
        self._keeps = keeps and self._request_whole
        self._ending = self._exchange if self._unsent else None
        self._exchange = self._feeding = None
        self._over = True
        self._finish()
        return self._ending is None

    def abort(self) -> None:
        self._exchange = self._feeding = None
        self._close()

    def close(self) -> None:
        """The gate ends."""
        self._gone()

    def close_idle(self) -> None:
        """No more requests are wanted; one that has come already is answered, and so is the first one."""
        if self._kept and not self._begun:
            self._read(FIRST_BYTES)
            if not self._begun:
                self._close()

    # --- ends

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # Not from within what writes: that goes on as if it waited to be taken.
            self._c.loop.call_soon(self._gone)
            sent = 0
        if sent < len(data):
            self._unsent = data[sent:]

    def _all_taken(self) -> None:
        if self._reading is not None:
            self._reading.caught_up(self._c.loop.time())
        self._stop_timing()
        if self._full:
            self._full = False
            if self._exchange is not None:
                self._exchange.client_writable(True)
        self._answer_over("")

    def _answer_over(self, reason: str) -> None:
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.answer_over(reason)

    def _time_reader(self) -> None:
        """Something waits for the reader; looks again when that may have been too long."""
        loop = self._c.loop
        now = loop.time()
        if self._reading is None:
            self._reading = Reading(self._c.settings.reader_timeout_ms / 1000, now)
        self._reading.waits(now)
        self._too_slow = loop.call_later(max(0.01, self._reading.left_s(now)), self._check_reader)

    def _check_reader(self) -> None:
        # Should this process have been held up, the reader was not.
        self.writable()
        if self._too_slow is None or self._reading is None or self._socket is None:
            return
        if self._reading.left_s(self._c.loop.time()) > 0:
            self._time_reader()
            return
        exchange, self._exchange, self._feeding = self._exchange, None, None
        self._answer_over(SLOW_READER)
        self._close()
        if exchange is not None:
            exchange.reader_too_slow()

    def _stop_timing(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _finish(self) -> None:
        """Ends what is over, once all is written and all that came is read."""
        if self._socket is None or not self._over or self._unsent or self._parsing or self._lingers:
            return
        if self._keeps and self._c.keeps():
            self._again()
            return
        if self._request_whole:
            self._close()
            return
        try:
            if not self._midway:
                self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()
            return
        self._lingers = True
        self._watch()
        self._c.loop.call_later(DROP_SECONDS if self._midway else LINGER_SECONDS, self._close)

    def _again(self) -> None:
        """For the next request."""
        self._kept = True
        self._keeps = self._over = self._begun = self._request_whole = False
        self._url, self._headers, self._head_bytes = b"", [], 0
        self._reading = None
        # Whoever held it has ended, and says nothing any more.
        self._holds.clear()
        self._watch()
        if self._waited:
            # It came out of the queue: most often another one waits there.
            self._sockets.expect()

    def _gone(self) -> None:
        """Nobody is there any more."""
        exchange, self._exchange, self._feeding = self._exchange, None, None
        self._answer_over(CLIENT_LEFT)
        self._close()
        if exchange is not None:
            exchange.router_gone()

    def _close(self) -> None:
        self._connections.discard(self)
        self._stop_timing()
        self._over = True
        closing, self._socket = self._socket, None
        # It refers back to this object: without it both go at once, not at the next collection.
        self._parser = None
        if closing is not None:
            self._sockets.forget(self._number)
            closing.close()

    def _malformed(self) -> None:
        if self._exchange is not None:
            if self._request_whole:
                # A second request came too early: nobody can be answered in order any more.
                self._gone()
            else:
                self._exchange.malformed()
            return
        self.write(wire.answer(400, "bad-request", "the request is not valid HTTP/1.1", self._c.settings.version))
        self.done()


def _ended(number: int) -> bool:
    look = select.poll()
    look.register(number, 0)
    return bool(look.poll(0))
