"""How fast an answer is taken. Pure: told of the clock.

Time counts only while something waits to be taken: a replica that is slow itself costs its reader nothing. There is no
shorter bound for a pause than the grace, because the system's buffers hide the reader: it may read all the time, and
room is made for the next piece only once a megabyte is gone.
"""

READ_BYTES_PER_SECOND = 50_000
"""An answer may take the grace and this rate: slower readers would hold a replica for nothing. As for bodies."""


class Reading:
    """Of one answer, from the first moment on that something of it waits."""

    __slots__ = ("_bytes", "_grace_s", "_last", "_seconds", "_since")

    def __init__(self, grace_s: float, now: float) -> None:
        """
        Args:
            grace_s: Required. Beyond what the rate allows, and the longest pause.
            now: Required. Seconds; something waits from now on.
        """
        self._grace_s = grace_s
        self._bytes = 0
        self._seconds = 0.0
        """That something waited, until `_since`."""
        self._since: float | None = now
        self._last = now

    def waits(self, now: float) -> None:
        """Something waits again."""
        if self._since is None:
            self._since = self._last = now

    def took(self, count: int, now: float) -> None:
        """So many bytes of what waited were taken."""
        if count:
            self._bytes += count
            self._last = now

    def caught_up(self, now: float) -> None:
        """Nothing waits any more."""
        if self._since is not None:
            self._seconds += now - self._since
            self._since = None

    def left_s(self, now: float) -> float:
        """Seconds until it is too slow, if nothing is taken until then; 0 or less: it is. While something waits."""
        since = now if self._since is None else self._since
        waited = self._seconds + now - since
        allowed = self._grace_s + self._bytes / READ_BYTES_PER_SECOND
        return min(self._last + self._grace_s - now, allowed - waited)
