"""What a gate has to know of gRPC over HTTP/2 (grpc's PROTOCOL-HTTP2, http-grpc-status-mapping): pure.

Between HAProxy and the gate a call is an HTTP/1.1 request: POST, a chunked body, the call's own path as the query.
"""

from enum import IntEnum

from aks_inference_runtime.router.gate import wire
from aks_inference_runtime.router.gate.telemetry import Request

CONTENT_TYPE = b"application/grpc"
"""How the type of a call's content begins: `+proto` and others may follow."""
TIMEOUT = b"grpc-timeout"
STATUS = b"grpc-status"
MESSAGE = b"grpc-message"
_PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length."""
_UNITS_S = {b"H": 3_600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST_DIGITS = 8
"""Of a timeout."""


class Code(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


OF_STATUS: dict[int, Code] = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    404: Code.UNIMPLEMENTED,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.UNAVAILABLE,
    500: Code.INTERNAL,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
"""What a caller is told in place of a status of ours. As gRPC maps HTTP's, but for what has an own word there: a score
that took too long (a retry would run it again), a message that is too large."""

STATUS_OF: dict[int, int] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
"""As which status a model's own code is counted and logged (google.rpc.Code); others are 500."""

OF_RESET: dict[int, Code] = {
    0x7: Code.UNAVAILABLE,
    0x8: Code.CANCELLED,
    0xB: Code.RESOURCE_EXHAUSTED,
    0xC: Code.PERMISSION_DENIED,
}
"""What it means that a server resets a call with this error of HTTP/2; others are INTERNAL."""
REFUSED_STREAM = 0x7


class CallRecord(Request):
    """What is kept of a call for its line."""

    __slots__ = ("code",)

    def __init__(self, id: bytes, method: bytes, path: bytes, waited_s: float) -> None:
        super().__init__(id, method, path, waited_s)
        self.code: int | None = None
        """The model's own; None: it said none."""

    def line(self) -> dict[str, object]:
        said = super().line()
        return said if self.code is None else {**said, "grpc_status": self.code}


class Messages:
    """Where the messages of a stream begin and end."""

    __slots__ = ("_left", "_prefix", "begun")

    def __init__(self) -> None:
        self._prefix = b""
        self._left = 0
        self.begun = 0
        """So many messages have begun."""

    @property
    def midway(self) -> bool:
        """Whether something of a message is still to come."""
        return bool(self._prefix) or self._left > 0

    def largest(self, data: bytes) -> int:
        """Takes a piece of the stream: the bytes of the largest message whose length stands in it; 0: none's."""
        found = at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            if not self._prefix:
                self.begun += 1
            piece = data[at : at + _PREFIX_BYTES - len(self._prefix)]
            at += len(piece)
            self._prefix += piece
            if len(self._prefix) == _PREFIX_BYTES:
                self._left = int.from_bytes(self._prefix[1:], "big")
                self._prefix = b""
                found = max(found, self._left)
        return found


def seconds_of(timeout: bytes | None) -> float | None:
    """Of a call's timeout; None: it has none that can be read."""
    if not timeout or len(timeout) - 1 > _MOST_DIGITS or not timeout[:-1].isdigit():
        return None
    unit = _UNITS_S.get(timeout[-1:])
    return None if unit is None else int(timeout[:-1]) * unit


def timeout_of(seconds: float) -> bytes:
    """As a call says it, in the finest unit that fits."""
    for unit, factor in (b"u", 1e6), (b"m", 1e3), (b"S", 1.0):
        count = max(1, int(seconds * factor))
        if count < 10**_MOST_DIGITS:
            return b"%d%b" % (count, unit)
    return b"%d%b" % (10**_MOST_DIGITS - 1, b"S")


def code_of(headers: wire.Headers) -> int | None:
    """The status of an answer, from its trailers."""
    for name, value in headers:
        if name == STATUS and value.isdigit() and len(value) <= 3:
            return int(value)
    return None


def status_of(code: int) -> int:
    """As which status a model's code counts."""
    return STATUS_OF.get(code, 500)


def encoded(message: str) -> bytes:
    """A message as it stands in a header: what is not printable ASCII, and `%`, by its UTF-8 bytes."""
    return b"".join(
        bytes([byte]) if 0x20 <= byte <= 0x7E and byte != ord("%") else b"%%%02X" % byte for byte in message.encode()
    )


def ending(code: int, message: str, reason: str) -> wire.Headers:
    """The last headers of a call that the gate ends."""
    return [(STATUS, b"%d" % code), (MESSAGE, encoded(message)), (wire.REASON_HEADER, reason.encode())]


def answer(
    code: Code,
    reason: str,
    message: str,
    version: str,
    *,
    request_id: bytes | None = None,
    retry_after_s: int | None = None,
) -> bytes:
    """A whole answer of the gate's own, headers only."""
    headers: wire.Headers = [
        (b"content-type", CONTENT_TYPE),
        # With it HAProxy knows with the head that nothing follows, which clients then take for an ending.
        (b"content-length", b"0"),
        *ending(code, message, reason),
        (wire.VERSION_HEADER, version.encode()),
    ]
    if request_id is not None:
        headers.append((wire.REQUEST_ID, request_id))
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    headers.append(wire.CLOSE)
    return wire.head(wire.status_line(200), headers)
