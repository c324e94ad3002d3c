"""GOAWAY frames, taken out of what a server sends: pure.

`h2` takes the first one for the end of the connection, calls in hand included; a server that sends one wants no further
calls, and goes on with those (RFC 9113 6.8).
"""

_HEAD_BYTES = 9
_GOAWAY = 0x7
_LAST_MASK = 0x7FFFFFFF


class GoAways:
    """Of one connection."""

    __slots__ = ("_left", "_rest", "last")

    def __init__(self) -> None:
        self.last: int | None = None
        """The last call that the server works on; None: it takes further ones."""
        self._rest = b""
        """The beginning of a frame whose head is not whole, or a GOAWAY."""
        self._left = 0
        """Of a frame that is passed on."""

    def without(self, data: bytes) -> bytes:
        """What came, but for these frames."""
        data, self._rest = self._rest + data, b""
        kept: list[bytes] = []
        at = 0
        while at < len(data):
            if not self._left:
                head = data[at : at + _HEAD_BYTES]
                length = _HEAD_BYTES + int.from_bytes(head[:3], "big")
                if len(head) < _HEAD_BYTES or (head[3] == _GOAWAY and len(data) - at < length):
                    self._rest = data[at:]
                    break
                if head[3] == _GOAWAY:
                    self.last = int.from_bytes(data[at + _HEAD_BYTES : at + _HEAD_BYTES + 4], "big") & _LAST_MASK
                    at += length
                    continue
                self._left = length
            step = min(self._left, len(data) - at)
            kept.append(data[at : at + step])
            self._left -= step
            at += step
        return b"".join(kept)
