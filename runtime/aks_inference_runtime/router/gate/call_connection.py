"""A connection from the router to a gate whose replica speaks gRPC."""

from aks_inference_runtime.router.gate import grpc_wire, wire
from aks_inference_runtime.router.gate.call import Call
from aks_inference_runtime.router.gate.connection import NOT_WAITED, OURS, RouterConnection
from aks_inference_runtime.router.gate.context import RequestHead
from aks_inference_runtime.router.gate.deadline import waited
from aks_inference_runtime.router.gate.telemetry import request_id
from aks_inference_runtime.router.gate.tracing import HEADER

_NOT_PASSED_ON = OURS | {b"content-length", b"host", grpc_wire.TIMEOUT}
"""Of the connection, of the router, and what the call says of itself in other words."""
NO_CALL = "this endpoint speaks gRPC: call it with a gRPC client, or over HTTP/2 with content-type application/grpc"


class CallRouterConnection(RouterConnection):
    """One call at a time."""

    def on_headers_complete(self) -> None:
        settings, parser = self._c.settings, self._parser
        if parser is None:
            return
        names = dict(self._headers)
        path = self._url.partition(b"?")[2]
        typed = names.get(b"content-type", b"").startswith(grpc_wire.CONTENT_TYPE)
        if not typed or not path.startswith(b"/") or parser.get_http_version() != "1.1":
            self.write(wire.answer(400, "bad-request", NO_CALL, settings.version))
            self.done()
            return
        turn = names.get(wire.TURN_HEADER)
        if turn is not None and self._c.departed.take(turn):
            # Nobody reads this.
            code, message = grpc_wire.Code.CANCELLED, "the client left while the call waited"
            self.write(grpc_wire.answer(code, "bad-request", message, settings.version))
            self.done()
            return
        ahead_s = self._c.ahead_s()
        queue = NOT_WAITED if turn is None else waited(names.get(wire.SINCE_HEADER), self._c.wall(), ahead_s)
        record = grpc_wire.CallRecord(request_id(names.get(wire.REQUEST_ID)), b"POST", path, queue.seconds)
        head = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", names.get(b"host", b"replica")),
            *wire.passed_on(self._headers, _NOT_PASSED_ON),
            (b"te", b"trailers"),
            (wire.REQUEST_ID, record.id),
        ]
        if (tracer := self._c.telemetry.tracer) is not None:
            record.trace = tracer.begin(names.get(HEADER))
            if record.trace is not None:
                head = [pair for pair in head if pair[0] != HEADER] + [(HEADER, record.trace.header)]
        timeout_s = grpc_wire.seconds_of(names.get(grpc_wire.TIMEOUT))
        if timeout_s is not None and ahead_s is not None:
            # It ran while the call waited; by clocks that differ nothing is taken away.
            timeout_s -= max(0.0, queue.seconds - ahead_s)
        request = RequestHead(
            bytes=b"",
            is_head=False,
            chunked=False,
            expects_continue=False,
            http_11=True,
            record=record,
            left_s=queue.left_s,
        )
        self._exchange = self._feeding = self._fresh = Call(self._c, self, request, head, record, timeout_s)
