"""Connections from the gate to a replica that speaks gRPC: HTTP/2 in clear, by prior knowledge, a call at a time each.

One at a time, so that a call that is paused, reset or lost is nobody else's business, and a connection's end is the end
of one call. As many as there are slots, and they are kept.
"""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from aks_inference_runtime.router.gate.address import Address
from aks_inference_runtime.router.gate.goaways import GoAways
from aks_inference_runtime.router.gate.sockets import Sockets
from aks_inference_runtime.router.gate.upstream import CONNECT_SECONDS, HIGH_BYTES, READ_BYTES, ResponseSink
from aks_inference_runtime.router.gate.wire import MAX_HEAD_BYTES, Headers

IDLE_SECONDS = 60.0
"""How long a connection may be used again. Servers say when they end one (GOAWAY), so that no call meets its end."""
WINDOW_BYTES = 262_144
"""Of an answer that the replica may send beyond what was taken: what the gate keeps for a slow reader."""
ALL_WINDOW_BYTES = 16_777_216
"""Of the connection: it has one call, whose own window counts."""


def client() -> H2Connection:
    """The protocol's state on the client's side, with its first frames to be sent."""
    made = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    limits = {
        SettingCodes.ENABLE_PUSH: 0,
        SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
        SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
    }
    made.local_settings = Settings(client=True, initial_values=limits)
    made.initiate_connection()
    made.increment_flow_control_window(ALL_WINDOW_BYTES)
    return made


class CallUpstream:
    """One connection. Implements `sockets.Watched` and `upstream.Upstream`."""

    def __init__(
        self,
        connected: socket.socket,
        sockets: Sockets,
        loop: asyncio.AbstractEventLoop,
        released: Callable[["CallUpstream"], None],
    ) -> None:
        self._socket = connected
        self._number = connected.fileno()
        self._sockets = sockets
        self._loop = loop
        self._released = released
        self._h2 = client()
        self._goaways = GoAways()
        self._look = select.poll()
        self._look.register(self._number, select.POLLIN)
        self.idle_since = 0.0
        self.closed = False
        self.request_whole = False
        self.trailers: Headers = []
        """Of the present call, once its answer is whole; headers alone have them themselves."""
        self.reset_code: int | None = None
        """The error of HTTP/2 that the replica has ended the present call with."""
        self._sink: ResponseSink | None = None
        self._stream = 0
        self._sending = False
        """The call's own side is open."""
        self._body = bytearray()
        """What the replica's window has no room for yet."""
        self._full = False
        self._paused = False
        self._untold = 0
        """Bytes that were passed on while nobody took them: the replica's window stays closed by them."""
        self._unsent = b""
        self._failed: OSError | None = None
        self._asked = (False, False)
        self._flush()

    def begin(self, sink: ResponseSink, *, head_request: bool) -> None:
        """The next call's answer goes to the sink. `head_request`: never, a call has no such."""
        self._sink = sink
        self.request_whole = False
        self.trailers, self.reset_code = [], None
        self._full = self._paused = False
        self._untold = 0
        self._body.clear()

    def open(self, headers: Headers) -> None:
        """Sends a call's head. Raises ValueError: these headers cannot be sent, and the call has not begun."""
        try:
            self._stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(self._stream, headers)
        except H2Error as error:
            self._sink = None
            raise ValueError(str(error)) from None
        self._sending = True
        self._flush()

    def write(self, data: bytes) -> None:
        """Sends a piece of the call's messages."""
        if self.closed or not self._sending:
            return
        self._body += data
        self._pump()

    def end(self) -> None:
        """The call's messages are whole."""
        self.request_whole = True
        self._pump()

    def pause(self, on: bool) -> None:
        """Whether no more of the answer is taken than fits the window."""
        self._paused = on
        if not on and self._untold:
            self._took(0)

    def cancel(self) -> None:
        """Tells the replica that nobody waits for the answer any more; the sink hears nothing any more."""
        self._sink = None
        self._end_stream(ErrorCodes.CANCEL)
        self._give_back()

    def give_back(self) -> None:
        """Unused."""
        self._sink = None
        self._give_back()

    def ended(self) -> bool:
        """Whether this idle connection takes no further call."""
        if not self.closed and self._look.poll(0):
            self.readable()
        return self.closed or self._goaways.last is not None

    def close(self) -> None:
        """Closes without waiting; nothing more is told to the sink."""
        self._sink = None
        if not self.closed:
            self.closed = True
            self._sockets.forget(self._number)
            self._socket.close()

    # --- sockets.Watched

    def readable(self) -> None:
        if self.closed:
            return
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            if self._failed is not None:
                self._lost()
            return
        except OSError:
            self._lost()
            return
        if data:
            self._received(data)
        else:
            self._lost()

    def writable(self) -> None:
        if self.closed:
            return
        unsent, self._unsent = self._unsent, b""
        self._send(unsent)
        self._tell_room()
        self._watch()

    def hung_up(self) -> None:
        self.readable()

    # --- out

    def _pump(self) -> None:
        """Sends what the replica's window takes."""
        try:
            while self._sending and self._body:
                room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                piece = bytes(self._body[:room])
                del self._body[:room]
                self._sending = bool(self._body) or not self.request_whole
                self._h2.send_data(self._stream, piece, end_stream=not self._sending)
            if self._sending and self.request_whole and not self._body:
                self._sending = False
                self._h2.end_stream(self._stream)
        except H2Error:
            # The replica has ended the call: what it said is read, or was.
            self._sending = False
        self._flush()
        self._tell_room()

    def _tell_room(self) -> None:
        full = self._sending and len(self._body) + len(self._unsent) > HIGH_BYTES
        if full != self._full:
            self._full = full
            if self._sink is not None:
                self._sink.upstream_writable(not full)

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            if self._unsent:
                self._unsent += data
            else:
                self._send(data)
        self._watch()

    def _send(self, data: bytes) -> None:
        if self.closed or self._failed is not None:
            return
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
        wanted = (True, bool(self._unsent))
        if wanted != self._asked and not self.closed:
            self._asked = wanted
            self._sockets.watch(self._number, self, reading=wanted[0], writing=wanted[1])

    # --- in

    def _received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(self._goaways.without(data))
        except H2Error:
            with contextlib.suppress(H2Error):
                self._flush()
            self._lost()
            return
        for event in events:
            if not self.closed and getattr(event, "stream_id", None) == self._stream and self._sink is not None:
                self._of_call(event, self._sink)
        if self.closed:
            return
        # A window may have opened.
        self._pump()
        last = self._goaways.last
        if self._sink is not None and last is not None and last < self._stream:
            sink = self._sink
            self.close()
            sink.upstream_lost(unread=True)
        elif self._sink is not None:
            self._sink.response_pause()
        elif last is not None:
            self.close()

    def _of_call(self, event: Event, sink: ResponseSink) -> None:
        match event:
            case ResponseReceived(headers=list(headers)):
                status = next((int(value) for name, value in headers if name == b":status"), 200)
                rest = [pair for pair in headers if not pair[0].startswith(b":")]
                sink.response_head(status, b"", rest, event.stream_ended is not None)
            case DataReceived(data=bytes(data)):
                self._took(event.flow_controlled_length or 0)
                sink.response_body(data)
            case TrailersReceived(headers=list(headers)):
                self.trailers = [pair for pair in headers if not pair[0].startswith(b":")]
            case StreamEnded():
                self._sink = None
                # A server may answer before it has the whole of the messages, and wants no more of them then.
                self._end_stream(ErrorCodes.NO_ERROR)
                self._give_back()
                sink.response_end()
            case StreamReset():
                self._sink = None
                self.reset_code = int(event.error_code or 0)
                self._sending = False
                self._give_back()
                sink.upstream_lost(unread=False)
            case _:
                # Of the connection, or a head that says nothing yet.
                return

    def _took(self, count: int) -> None:
        self._untold += count
        if self._paused:
            return
        told, self._untold = self._untold, 0
        with contextlib.suppress(H2Error):
            self._h2.acknowledge_received_data(told, self._stream)
        self._flush()

    def _end_stream(self, code: ErrorCodes) -> None:
        """Of the call's own side, where that is still open; with CANCEL of both."""
        if self._sending or code is ErrorCodes.CANCEL:
            self._sending = False
            with contextlib.suppress(H2Error):
                self._h2.reset_stream(self._stream, code)

    def _give_back(self) -> None:
        self._body.clear()
        self._paused = self._full = False
        if self.closed:
            return
        if self._untold:
            self._took(0)
        self._flush()
        if self._failed is None and self._goaways.last is None:
            self._released(self)
        else:
            self.close()

    def _lost(self) -> None:
        sink = self._sink
        self.close()
        if sink is not None:
            sink.upstream_lost(unread=False)


class CallPool:
    """Opens connections to one replica and keeps them. Implements `upstream.Pool`."""

    def __init__(self, address: Address, limit: int, sockets: Sockets) -> None:
        self._address = address
        self._limit = limit
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._idle: list[CallUpstream] = []

    def idle(self) -> CallUpstream | None:
        """A connection that can be used again, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if self._loop.time() - connection.idle_since > IDLE_SECONDS or connection.ended():
                connection.close()
                continue
            return connection
        return None

    async def connect(self) -> CallUpstream:
        """A new connection. Raises OSError (also at the deadline)."""
        async with asyncio.timeout(CONNECT_SECONDS):
            connected = await self._address.connect()
        return CallUpstream(connected, self._sockets, self._loop, self._release)

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _release(self, connection: CallUpstream) -> None:
        self._idle = [other for other in self._idle if not other.closed]
        connection.idle_since = self._loop.time()
        if len(self._idle) < self._limit:
            self._idle.append(connection)
        else:
            connection.close()
