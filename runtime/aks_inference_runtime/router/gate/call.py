"""One gRPC call on its way through the gate: an exchange whose replica speaks HTTP/2.

What the router and its agent see is what they see of any request: one answer, one slot from the call's begin to its
end. What differs: the messages of both sides may come at any time, so that it is their pauses which count; refusals are
statuses of gRPC; and who leaves a call of which the replica must hear more, or has said something already, cancels it.
"""

from functools import partial

from aks_inference_runtime.router.gate import grpc_wire, wire
from aks_inference_runtime.router.gate.answering import OURS, Answer
from aks_inference_runtime.router.gate.context import Context, RequestHead, RouterSide
from aks_inference_runtime.router.gate.exchange import ACKNOWLEDGE_SECONDS, WAITING_BYTES, Exchange
from aks_inference_runtime.router.gate.h2_upstream import CallUpstream
from aks_inference_runtime.router.gate.telemetry import CLIENT_LEFT, LEFT_CODE
from aks_inference_runtime.router.gate.uploading import too_slow
from aks_inference_runtime.router.gate.upstream import Upstream

LOST = "the replica ended the connection before the call was over"
ENDS_SECONDS = 1.0
"""Of one answer the end comes with its message. What has a whole one and no end for so long is a stream."""


class CallAnswer(Answer):
    """Head, messages and trailers as they go to the router."""

    __slots__ = ()

    @property
    def too_late(self) -> bool:
        """Never: the trailers say how it went."""
        return False

    def take_ended(self, trailers: wire.Headers) -> bytes:
        """What is held, with the end."""
        if self._chunked:
            self._held.append(wire.head(b"0", wire.passed_on(trailers, OURS - {wire.REASON_HEADER})))
        return self.take()


class Call(Exchange):
    """Implements `upstream.ResponseSink`."""

    __slots__ = ("_answers", "_head", "_left_s", "_message_at", "_messages", "_record", "_replica", "_spoke")

    def __init__(
        self,
        context: Context,
        side: RouterSide,
        request: RequestHead,
        head: wire.Headers,
        record: grpc_wire.CallRecord,
        left_s: float | None,
    ) -> None:
        """
        Args:
            context: Required. The gate around it.
            side: Required. The connection to the router.
            request: Required. As of any exchange; its bytes are none.
            head: Required. The call's head as it goes to the replica, but for its timeout.
            record: Required. The request's own.
            left_s: Required. Until the call's deadline; None: it has none.
        """
        super().__init__(context, side, request)
        self._out: CallAnswer = CallAnswer(context.version, record.id)
        self._head = head
        self._record = record
        self._left_s = left_s
        self._messages = grpc_wire.Messages()
        self._message_at = self._came
        """When the present message of the caller's began."""
        self._replica: CallUpstream | None = None
        self._answers = grpc_wire.Messages()
        """The replica's, that came when nobody waited any more."""
        self._spoke = False
        """The replica has sent something of a message."""

    # --- from the router

    def body(self, data: bytes) -> None:
        now = self._c.loop.time()
        self._body_bytes += len(data)
        self._last_byte = now
        if self._side is None:
            return
        begun = self._messages.begun
        largest, limit = self._messages.largest(data), self._c.settings.max_body_bytes
        if self._messages.begun != begun:
            self._message_at, self._body_bytes = now, 0
        if largest > limit:
            self._give_up(413, "too-large", f"a message of {largest} bytes is larger than {limit}")
            return
        self._send(data)
        if self._upstream is None and sum(map(len, self._pending)) > WAITING_BYTES:
            self._side.hold("slot", True)

    def body_end(self) -> None:
        self._body_done = True
        if self._side is None:
            return
        if self._upstream is not None:
            self._upstream.end()
        if self._ticket.running and not self._out.begun:
            self._arm_scoring()

    # --- from the replica

    def response_head(self, status: int, phrase: bytes, headers: wire.Headers, length_known: bool) -> None:
        """`length_known`: nothing follows, and these are the trailers too."""
        self._last_byte = self._c.loop.time()
        self._disarm()
        if self._side is None:
            self._check_hung()
            return
        kept = [pair for pair in headers if pair[0] != b"content-length"]
        if length_known:
            kept.append((b"content-length", b"0"))
        self._out.head(status, phrase, kept, length_known=length_known, http_11=True)
        self._told_code(headers)

    def response_body(self, data: bytes) -> None:
        self._spoke = True
        super().response_body(data)
        if self._side is None:
            self._unheard(data)

    def response_end(self) -> None:
        trailers = self._replica.trailers if self._replica is not None else []
        self._told_code(trailers)
        self._disarm()
        side, self._side = self._side, None
        self._whole_at = self._c.loop.time()
        if side is None:
            self._tell(LEFT_CODE, CLIENT_LEFT)
        else:
            side.write(self._out.take_ended(trailers))
            if side.done():
                self._tell(self._out.status, "")
        self._c.admission.finish(self._ticket)

    def upstream_lost(self, *, unread: bool) -> None:
        self._disarm()
        code = self._replica.reset_code if self._replica is not None else None
        if unread or (code == grpc_wire.REFUSED_STREAM and not self._out.begun):
            self._hand_back()
            return
        side, self._side = self._side, None
        if code is None:
            # First it gets no more requests, then the answer frees its slot.
            self._c.doubted()
        if side is None:
            self._tell(LEFT_CODE, CLIENT_LEFT)
            self._c.admission.finish(self._ticket)
        elif code is None:
            self._c.when_acknowledged(ACKNOWLEDGE_SECONDS, partial(self._answer_lost, side))
        else:
            self._reset(side, code)

    # --- steps

    def _connected(self, upstream: Upstream) -> None:
        assert isinstance(upstream, CallUpstream)  # noqa: S101 - the gate has one pool
        side, now = self._side, self._c.loop.time()
        left_s = None if self._left_s is None else self._left_s - (now - self._came)
        if side is None or (left_s is not None and left_s <= 0):
            # Nothing went out yet and nobody waits: the replica need not see this call.
            upstream.give_back()
            self._disarm()
            self._side = None
            if side is None:
                self._tell(LEFT_CODE, CLIENT_LEFT)
            else:
                self._answer(side, 504, "queue-timeout", "the call's deadline passed before a replica was free")
            self._c.admission.finish(self._ticket, served=False)
            return
        timeout = [] if left_s is None else [(grpc_wire.TIMEOUT, grpc_wire.timeout_of(left_s))]
        upstream.begin(self, head_request=False)
        try:
            upstream.open([*self._head, *timeout])
        except ValueError:
            upstream.give_back()
            self._side = None
            self._answer(side, 400, "bad-request", "the call's metadata are not valid HTTP/2")
            self._c.admission.finish(self._ticket, served=False)
            return
        self._upstream = self._replica = upstream
        self._given_at = self._began = self._last_byte = now
        upstream.write(b"".join(self._pending))
        self._pending.clear()
        side.hold("slot", False)
        if self._body_done:
            upstream.end()
            self._arm_scoring()
        else:
            self._check_upload()

    def _held_up(self, seconds: float) -> None:
        self._message_at += seconds

    def _told_code(self, headers: wire.Headers) -> None:
        code = grpc_wire.code_of(headers)
        if code is not None:
            self._record.code = code
            self._out.status = grpc_wire.status_of(code)

    # --- deadlines

    def _check_upload(self) -> None:
        """A message is sent as any body is; between messages either side may pause for as long as a score may take."""
        if self._side is None or self._body_done or self._out.begun:
            return
        settings, now = self._c.settings, self._c.loop.time()
        sending_s, scoring_s = settings.client_timeout_ms / 1000, settings.scoring_timeout_ms / 1000
        quiet_s = now - self._last_byte
        late = too_slow(now - self._message_at, self._body_bytes)
        if self._slow_since is not None:
            self._check_stuck(now)
        elif self._messages.midway and (quiet_s >= sending_s or late):
            self._give_up(408, "client-timeout", "the client is too slow in sending a message")
        elif quiet_s >= scoring_s:
            self._scored_too_long()
        else:
            longest_s = min(sending_s, scoring_s)
            self._arm(max(0.01, longest_s - quiet_s % longest_s), self._check_upload)

    def _check_stall(self) -> None:
        if self._side is None:
            return
        seconds = self._c.settings.scoring_timeout_ms / 1000
        rest_s = self._last_byte + seconds - self._c.loop.time()
        if self._client_slow or rest_s > 0:
            self._arm(seconds if self._client_slow else rest_s, self._check_stall)
        else:
            self._scored_too_long()

    # --- ends

    def _unheard(self, data: bytes) -> None:
        """Now it shows whether this is one answer, which the model is through with, or a stream to be cancelled."""
        self._disarm()
        self._answers.largest(data)
        if self._answers.begun > 1:
            self._cancel()
        elif self._answers.midway:
            self._check_hung()
        else:
            self._arm(ENDS_SECONDS, self._cancel)

    def _orphan(self) -> None:
        if self._replica is None or (self._body_done and not self._spoke):
            # It works on the whole of a request: as of any, its answer tells when it is done.
            super()._orphan()
            return
        self._cancel()

    def _cancel(self) -> None:
        self._disarm()
        if self._replica is not None:
            self._replica.cancel()
        self._tell(LEFT_CODE, CLIENT_LEFT)
        self._c.admission.finish(self._ticket)

    def _reset(self, side: RouterSide, code: int) -> None:
        """The replica has ended the call without a word of gRPC's."""
        told = grpc_wire.OF_RESET.get(code, grpc_wire.Code.INTERNAL)
        self._record.code = told
        message = f"the replica reset the call (HTTP/2 error {code})"
        self._end(side, "replica-lost", message, told)
        self._tell(grpc_wire.status_of(told), "replica-lost")
        self._c.admission.finish(self._ticket)

    def _answer_lost(self, side: RouterSide) -> None:
        self._answer(side, 502, "replica-lost", LOST)
        self._c.admission.finish(self._ticket)

    def _answer(
        self, side: RouterSide, status: int, reason: str, message: str, retry_after_s: int | None = None
    ) -> None:
        # HAProxy sends no call again: nothing of it is kept there.
        status = 502 if status == wire.ELSEWHERE else status
        self._end(side, reason, message, grpc_wire.OF_STATUS[status], retry_after_s)
        self._tell(status, reason)

    def _end(
        self,
        side: RouterSide,
        reason: str,
        message: str,
        code: grpc_wire.Code,
        retry_after_s: int | None = None,
    ) -> None:
        if self._out.sent:
            side.write(self._out.take_ended(grpc_wire.ending(code, message, reason)))
        else:
            version, name = self._c.settings.version, self._request.record.id
            side.write(grpc_wire.answer(code, reason, message, version, request_id=name, retry_after_s=retry_after_s))
        side.done()
