"""The bytes of HTTP/1.1 that the gate writes itself."""

import json
from collections.abc import Iterable
from http import HTTPStatus

VERSION_HEADER = b"x-aks-inference-version"
REASON_HEADER = b"x-aks-inference-reason"
STATUS_HEADER = b"x-aks-inference-replica-status"
ELSEWHERE = 425
"""Says to the router that nothing of the request was given to the replica: it may be sent to another one. Of the
statuses that HAProxy can send a request again for (its `retry-on`) the one that model servers use least."""
MASKED = 520
"""In place of a model's own 425, which stands in a header: the router puts it back."""
TURN_HEADER = b"x-aks-inference-turn"
"""The router's name for a request that had to wait."""
SINCE_HEADER = b"x-aks-inference-since"
"""Since when it waits, and how long it may: `<ms since 1970 by the router's clock>+<ms>`."""
KEEP_HEADER = b"x-aks-inference-keep"
"""The router says that its next request may come on the same connection."""
OF_ROUTERS = frozenset(
    b"x-aks-inference-" + name for name in (b"version", b"router", b"hops", b"sent", b"unsent", b"asked")
)
"""What routers say to each other of a request; it may have been passed on until it came here."""
SCRIPT_NAME = b"script_name"
"""With it a proxy tells gunicorn where an application is mounted, which answers 500 when the path is elsewhere."""
REQUEST_ID = b"x-request-id"
"""Of the client, or made by the gate: in the replica's request, the answer and the access log."""
MAX_HEAD_BYTES = 65_536
"""Of a request's or response's head; HAProxy's own limit (16 KiB) is below it."""

CLOSE = (b"connection", b"close")
"""In every answer but those of replicas to who asked to keep the connection."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    }
)
"""Headers of one connection, not of the message (RFC 9110, 7.6.1); `expect` is answered by the gate."""

OF_THE_MESSAGE = frozenset({b"content-length", b"host", b"authorization"})
"""What a Connection header may not take away: without its length a body would be read as the next request."""

Headers = list[tuple[bytes, bytes]]


def passed_on(headers: Headers, ours: frozenset[bytes]) -> Headers:
    """What goes on: neither hop-by-hop, nor declared by a Connection header to be of this connection only, nor ours.

    Args:
        headers: Required. Names in lower case.
        ours: Required. HOP_BY_HOP and what only the gate and the router may set.
    """
    kept = [pair for pair in headers if pair[0] not in ours]
    if len(kept) == len(headers):
        return kept
    for name, value in headers:
        if name == b"connection":
            named = {part.strip().lower() for part in value.split(b",")}
            ours = ours | (named - OF_THE_MESSAGE)
            kept = [pair for pair in kept if pair[0] not in ours]
    return kept


def head(first_line: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """First line and headers, up to and with the empty line."""
    return b"\r\n".join([first_line, *[b"%b: %b" % pair for pair in headers], b"\r\n"])


def status_line(status: int, reason: bytes = b"") -> bytes:
    """`HTTP/1.1 <status> <reason>`, with the standard phrase where none is given."""
    if not reason:
        try:
            reason = HTTPStatus(status).phrase.encode()
        except ValueError:
            reason = b""
    return b"HTTP/1.1 %d %b" % (status, reason)


def answer(
    status: int,
    reason: str,
    message: str,
    version: str,
    *,
    request_id: bytes | None = None,
    retry_after_s: int | None = None,
) -> bytes:
    """A whole answer of the gate's own, as the table of status codes has it."""
    body = json.dumps({"message": message}).encode()
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (REASON_HEADER, reason.encode()),
        (VERSION_HEADER, version.encode()),
    ]
    if request_id is not None:
        headers.append((REQUEST_ID, request_id))
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    headers.append(CLOSE)
    return head(status_line(status), headers) + body


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
