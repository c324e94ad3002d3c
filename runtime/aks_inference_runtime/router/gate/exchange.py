"""One request on its way through the gate: wait for a slot, pass it on, answer, and see the replica finish."""

from functools import partial

from aks_inference_runtime.router.gate import wire
from aks_inference_runtime.router.gate.admission import Ticket
from aks_inference_runtime.router.gate.answering import HELD_SECONDS, Answer
from aks_inference_runtime.router.gate.context import Context, RequestHead, RouterSide
from aks_inference_runtime.router.gate.deadline import LATE_SECONDS
from aks_inference_runtime.router.gate.telemetry import CLIENT_LEFT, CUT, LEFT_CODE, SLOW_READER
from aks_inference_runtime.router.gate.timed import Timed
from aks_inference_runtime.router.gate.upstream import Upstream

ACKNOWLEDGE_SECONDS = 0.05
"""How long an answer waits until the router's agent has taken the slot away; then it goes out anyway."""
WAITING_BYTES = 65_536
"""Of a body that are kept while its request waits. Up to that is read on, so that a caller who leaves is noticed."""


class Exchange(Timed):
    """Implements `upstream.ResponseSink`."""

    __slots__ = ("_came", "_entered", "_left_at", "_pending", "_request", "_streams", "_told", "_upstream", "_whole_at")

    def __init__(self, context: Context, side: RouterSide, request: RequestHead) -> None:
        self._c = context
        self._side: RouterSide | None = side
        self._request = request
        self._ticket = Ticket(self._start)
        self._upstream: Upstream | None = None
        self._pending: list[bytes] = []
        self._body_bytes = 0
        self._body_done = False
        self._out = Answer(context.version, request.record.id)
        self._given_at: float | None = None
        """When the replica got it."""
        self._whole_at: float | None = None
        """When its answer was whole."""
        self._streams = False
        """It answers without a length: it may do so without an end."""
        self._ended_at: float | None = None
        """When a replica that streams was told that nobody listens any more."""
        self._left_at = 0.0
        """When nobody listened any more."""
        self._told = False
        self._came = self._began = context.loop.time()
        self._last_byte = self._began
        self._client_slow = False
        self._slow_since: float | None = None
        """When the replica began to take no more of the body."""
        self._armed = False
        self._entered = False

    def begin(self) -> None:
        """Takes its place. Not before what came with its head is here, so that the replica gets it in one piece."""
        context, left_s = self._c, self._request.left_s
        if self._side is None:
            return
        self._entered = True
        if left_s is not None and left_s < -LATE_SECONDS:
            # It takes no place in the line.
            self._ticket.finished = True
            self._refuse_late()
        elif not context.admission.enter(self._ticket):
            wait_s = context.settings.queue_timeout_ms / 1000
            wait_s = wait_s if left_s is None else min(wait_s, max(0.0, left_s))
            self._arm(wait_s, self._waited_too_long)

    # --- from the router

    def body(self, data: bytes) -> None:
        """A piece of the request's body."""
        self._body_bytes += len(data)
        self._last_byte = self._c.loop.time()
        if self._side is None:
            return
        if self._body_bytes > self._c.settings.max_body_bytes:
            limit = self._c.settings.max_body_bytes
            self._give_up(413, "too-large", f"the body is larger than {limit} bytes")
            return
        self._send(wire.chunk(data) if self._request.chunked else data)
        if self._upstream is None and self._body_bytes > WAITING_BYTES:
            self._side.hold("slot", True)

    def body_end(self) -> None:
        """The request is whole: from here on the scoring timeout counts."""
        self._body_done = True
        if self._side is None:
            return
        if self._request.chunked:
            self._send(wire.LAST_CHUNK)
        if self._upstream is not None:
            self._upstream.request_whole = True
        if self._ticket.running and not self._out.begun:
            self._arm_scoring()

    def malformed(self) -> None:
        """The rest of the request is none: a trailer that says how long the body is, a chunk without its size."""
        self._give_up(400, "bad-request", "the request is not valid HTTP/1.1")

    def router_gone(self) -> None:
        """Nobody waits for the answer any more."""
        if self._side is None:
            return
        self._side = None
        if self._leave():
            self._disarm()
            self._tell(LEFT_CODE, CLIENT_LEFT)
            return
        self._orphan()

    def reader_too_slow(self) -> None:
        """Nobody gets the rest of the answer any more."""
        if self._side is not None:
            self._side = None
            self._tell(self._out.status, SLOW_READER)
            self._orphan()

    def answer_over(self, reason: str) -> None:
        """The end of the answer was taken, or never will be: told only now."""
        self._tell(LEFT_CODE if reason == CLIENT_LEFT else self._out.status, reason)

    def client_writable(self, writable: bool) -> None:
        """Whether the router takes more of the answer."""
        self._client_slow = not writable
        self._last_byte = self._c.loop.time()
        if self._upstream is not None and self._side is not None:
            self._upstream.pause(not writable)

    # --- from the replica

    def response_head(self, status: int, phrase: bytes, headers: wire.Headers, length_known: bool) -> None:
        self._last_byte = self._c.loop.time()
        self._disarm()
        self._streams = not length_known
        if self._side is None:
            self._check_hung()
            return
        # Before the rest of the body is there, which is then only dropped, the router must not take it for a kept one.
        self._out.keeps = self._request.keeps and self._body_done and self._c.keeps()
        self._out.head(status, phrase, headers, length_known=length_known, http_11=self._request.http_11)

    def response_body(self, data: bytes) -> None:
        self._last_byte = self._c.loop.time()
        if self._side is not None:
            self._out.body(data)

    def response_pause(self) -> None:
        if self._side is None:
            self._end_stream()
            return
        if not self._out.begun:
            return
        if not self._out.waits:
            self._send_held()
        elif not self._armed:
            self._arm(HELD_SECONDS, self._send_held)

    def response_end(self) -> None:
        self._disarm()
        side, self._side = self._side, None
        self._whole_at = self._c.loop.time()
        if side is None:
            self._tell(LEFT_CODE, CLIENT_LEFT)
        else:
            side.write(self._out.take_last())
            if side.done(keeps=self._out.keeps):
                self._tell(self._out.status, "")
        self._c.admission.finish(self._ticket)

    def response_malformed(self, what: str) -> None:
        self._give_up(502, "replica-lost", what)

    def upstream_lost(self, *, unread: bool) -> None:
        self._disarm()
        if unread:
            self._c.doubted()
            self._hand_back()
            return
        side, self._side = self._side, None
        if side is None or self._out.sent:
            if side is not None:
                side.abort()
            self._tell(*(LEFT_CODE, CLIENT_LEFT) if side is None else (self._out.status, CUT))
            self._c.admission.finish(self._ticket)
            return
        # A dead replica answers quickest: first it gets no more requests, then the answer frees its slot.
        self._c.doubted()
        self._c.when_acknowledged(ACKNOWLEDGE_SECONDS, partial(self._answer_lost, side))

    def upstream_writable(self, writable: bool) -> None:
        self._last_byte = now = self._c.loop.time()
        if writable:
            self._held_up(now - (now if self._slow_since is None else self._slow_since))
        self._slow_since = None if writable else now
        if self._side is not None:
            self._side.hold("replica", not writable)
            self._check_upload()

    def _held_up(self, seconds: float) -> None:
        """By the replica, which is not the client's fault."""
        self._began += seconds

    # --- steps

    def _start(self) -> None:
        """The slot is there."""
        self._disarm()
        if not self._c.trusted():
            # Not at once: the line is being gone through.
            self._c.loop.call_soon(self._hand_back)
            return
        upstream = self._c.pool.idle()
        if upstream is not None:
            self._connected(upstream)
        else:
            task = self._c.loop.create_task(self._connect())
            self._c.tasks.add(task)
            task.add_done_callback(self._c.tasks.discard)

    async def _connect(self) -> None:
        try:
            upstream = await self._c.pool.connect()
        except OSError:
            self._c.doubted()
            self._hand_back()
            return
        self._connected(upstream)

    def _hand_back(self) -> None:
        """Nothing of it was given to the replica: the router may send it elsewhere."""
        self._disarm()
        side, self._side = self._side, None
        if side is not None and self._request.left_s is not None and self._past(self._request.left_s):
            # The router would let it wait as long again.
            self._refuse_waited(side)
        elif side is not None:
            self._answer(side, wire.ELSEWHERE, "replica-lost", "the replica cannot be reached")
        self._c.admission.finish(self._ticket, served=False)

    def _connected(self, upstream: Upstream) -> None:
        side = self._side
        if side is None:
            # Nothing went out yet and nobody waits: the replica need not see this request.
            upstream.close()
            self._c.admission.finish(self._ticket, served=False)
            return
        if self._request.expects_continue and not self._body_bytes:
            side.write(wire.CONTINUE)
        self._upstream = upstream
        self._given_at = self._c.loop.time()
        upstream.begin(self, head_request=self._request.is_head)
        upstream.write(b"".join([self._request.bytes, *self._pending]))
        self._pending.clear()
        side.hold("slot", False)
        upstream.request_whole = self._body_done
        if self._body_done:
            self._arm_scoring()
        else:
            self._began = self._last_byte = self._c.loop.time()
            self._check_upload()

    def _send(self, data: bytes) -> None:
        if self._upstream is None:
            self._pending.append(data)
        else:
            self._upstream.write(data)

    def _send_held(self) -> None:
        if self._side is None:
            return
        if not self._out.sent:
            self._arm(self._c.settings.scoring_timeout_ms / 1000, self._check_stall)
        self._side.write(self._out.take())

    # --- deadlines

    def _waited_too_long(self) -> None:
        side, self._side = self._side, None
        if side is not None and self._c.admission.leave(self._ticket):
            self._refuse_waited(side)

    # --- ends

    def _tell(self, code: int, reason: str) -> None:
        """How it ended, once."""
        if not self._told:
            self._told = True
            ended = self._c.loop.time() if self._whole_at is None else self._whole_at
            served_s = None if self._given_at is None else ended - self._given_at
            self._c.telemetry.answered(self._request.record, code, reason, served_s, self._c.wall())

    def _give_up(self, status: int, reason: str, message: str) -> None:
        """Answers while the replica may still work: first the router's agent takes the slot away, then the answer."""
        side, self._side = self._side, None
        if side is None:
            return
        if self._out.too_late:
            self._cut(side)
            return
        if self._leave():
            self._disarm()
            self._answer(side, status, reason, message)
            return
        self._tell(status, reason)
        self._orphan()
        self._c.when_acknowledged(ACKNOWLEDGE_SECONDS, partial(self._answer, side, status, reason, message))

    def _cut(self, side: RouterSide) -> None:
        """In the middle of an answer there is no other."""
        side.abort()
        self._tell(self._out.status, CUT)
        self._orphan()

    def _leave(self) -> bool:
        """Whether the replica has nothing of it, and never will."""
        return not self._entered or self._c.admission.leave(self._ticket)

    def _orphan(self) -> None:
        self._disarm()
        self._c.admission.abandon(self._ticket)
        self._left_at = self._c.loop.time()
        self._check_hung()
        if self._upstream is None:
            return
        self._upstream.pause(False)
        if not self._body_done:
            # The replica must learn that the rest never comes; its answer still tells when it is done.
            self._upstream.end()
        self._end_stream()

    def _end_stream(self) -> None:
        """Servers that watch for it stop. One that has an end may reach it before: its slot is then never free while
        the replica works, where a server that stops drops the connection at once, and may work a moment longer."""
        if not self._streams or self._ended_at is not None or self._upstream is None:
            return
        now = self._c.loop.time()
        if (rest := self._left_at + self._c.settings.scoring_timeout_ms / 1000 - now) > 0:
            self._arm(rest, self._end_stream)
            return
        self._ended_at = now
        self._upstream.end()
        self._check_hung()

    def _past(self, left_s: float) -> bool:
        return self._c.loop.time() - self._came > left_s

    def _refuse_late(self) -> None:
        side, self._side = self._side, None
        if side is not None:
            self._refuse_waited(side)

    def _refuse_waited(self, side: RouterSide) -> None:
        self._answer(side, 503, "queue-timeout", "no replica took the request in time", retry_after_s=1)

    def _answer_lost(self, side: RouterSide) -> None:
        self._answer(side, 502, "replica-lost", "the replica closed the connection before it answered")
        self._c.admission.finish(self._ticket)

    def _answer(
        self, side: RouterSide, status: int, reason: str, message: str, retry_after_s: int | None = None
    ) -> None:
        version, name = self._c.settings.version, self._request.record.id
        side.write(wire.answer(status, reason, message, version, request_id=name, retry_after_s=retry_after_s))
        side.done()
        if status == wire.ELSEWHERE:
            # The gate that answers it tells of it.
            self._told = True
        else:
            self._tell(status, reason)
