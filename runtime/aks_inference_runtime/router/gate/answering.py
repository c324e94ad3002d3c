"""A replica's answer on its way out: held until it is whole, for a moment at most."""

from aks_inference_runtime.router.gate import wire

HELD_BYTES = 65_536
"""Of an answer that are held back until it is whole: it goes out in one write, which no end of the gate cuts."""
HELD_SECONDS = 0.02
"""For so long at most; what comes in pieces without a length goes out with its first one."""
OURS = wire.HOP_BY_HOP | {wire.REASON_HEADER, wire.VERSION_HEADER, wire.STATUS_HEADER, wire.REQUEST_ID}
"""Headers that only the gate and the router may set."""


class Answer:
    """Head and body as they go to the router."""

    __slots__ = (
        "_bytes", "_chunked", "_held", "_length_known", "_request_id", "_version", "begun", "keeps", "sent", "status"
    )  # fmt: skip

    def __init__(self, version: bytes, request_id: bytes) -> None:
        self.status = 0
        """The replica's own."""
        self._request_id = request_id
        self.begun = False
        """The head is there."""
        self.sent = False
        """Something of it was taken out."""
        self._version = version
        self.keeps = False
        """The router is told that the next request may come on this connection."""
        self._held: list[bytes] = []
        self._bytes = 0
        self._length_known = False
        self._chunked = False

    def head(self, status: int, phrase: bytes, headers: wire.Headers, *, length_known: bool, http_11: bool) -> None:
        """Status and headers of the replica's; those of its connection are not passed on."""
        self.begun = True
        self.status = status
        self._length_known = length_known
        kept = wire.passed_on(headers, OURS)
        kept.append((wire.VERSION_HEADER, self._version))
        kept.append((wire.REQUEST_ID, self._request_id))
        self._chunked = http_11 and not length_known
        if self._chunked:
            kept.append((b"transfer-encoding", b"chunked"))
        if not self.keeps:
            kept.append(wire.CLOSE)
        if status == wire.ELSEWHERE:
            kept.append((wire.STATUS_HEADER, b"%d" % status))
            status = wire.MASKED
        self._held.append(wire.head(wire.status_line(status, phrase), kept))

    def body(self, data: bytes) -> None:
        """A piece."""
        self._held.append(wire.chunk(data) if self._chunked else data)
        self._bytes += len(data)

    @property
    def waits(self) -> bool:
        """Whether what is here should wait for more."""
        return not self.sent and self._bytes < HELD_BYTES and (self._length_known or not self._bytes)

    @property
    def too_late(self) -> bool:
        """Whether no other answer can be given any more."""
        return self.sent

    def take(self) -> bytes:
        """What is held."""
        held, self._held = b"".join(self._held), []
        self.sent = True
        return held

    def take_last(self) -> bytes:
        """What is held, with the end."""
        if self._chunked:
            self._held.append(wire.LAST_CHUNK)
        return self.take()
