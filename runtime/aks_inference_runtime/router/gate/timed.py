"""The deadlines of an exchange: of the body, of the score, of the answer, and of a replica that nobody waits for."""

from collections.abc import Callable

from aks_inference_runtime.router.gate.admission import Ticket
from aks_inference_runtime.router.gate.answering import Answer
from aks_inference_runtime.router.gate.context import Context, RouterSide
from aks_inference_runtime.router.gate.uploading import too_slow


class Timed:
    """One deadline at a time; what each of them is counted from is the exchange's to say."""

    __slots__ = (
        "_armed", "_began", "_body_bytes", "_body_done", "_c", "_client_slow", "_ended_at", "_given_at", "_last_byte",
        "_out", "_side", "_slow_since", "_ticket",
    )  # fmt: skip
    _armed: bool
    _began: float
    _body_bytes: int
    _body_done: bool
    _c: Context
    _client_slow: bool
    _ended_at: float | None
    _given_at: float | None
    _last_byte: float
    _out: Answer
    _side: RouterSide | None
    _slow_since: float | None
    _ticket: Ticket

    def _give_up(self, status: int, reason: str, message: str) -> None:
        raise NotImplementedError

    def _cut(self, side: RouterSide) -> None:
        raise NotImplementedError

    def _arm_scoring(self) -> None:
        self._arm(self._c.settings.scoring_timeout_ms / 1000, self._scored_too_long)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._armed = True
        self._c.alarms.set(self, seconds, then)

    def _disarm(self) -> None:
        if self._armed:
            self._armed = False
            self._c.alarms.clear(self)

    def _scored_too_long(self) -> None:
        self._give_up(504, "scoring-timeout", f"no answer within {self._c.settings.scoring_timeout_ms} ms")

    def _check_upload(self) -> None:
        if self._side is None or self._body_done or self._out.begun:
            return
        now = self._c.loop.time()
        quiet = self._c.settings.client_timeout_ms / 1000
        if self._slow_since is not None:
            self._check_stuck(now)
        elif now - self._last_byte >= quiet or too_slow(now - self._began, self._body_bytes):
            self._give_up(408, "client-timeout", "the client is too slow in sending the body")
        else:
            self._arm(max(0.01, self._last_byte + quiet - now), self._check_upload)

    def _check_stuck(self, now: float) -> None:
        """Of a replica that takes no more of the body: it has as long as for a score."""
        rest = self._last_byte + self._c.settings.scoring_timeout_ms / 1000 - now
        if rest > 0:
            self._arm(rest, self._check_upload)
        else:
            self._scored_too_long()

    def _check_stall(self) -> None:
        if self._side is None:
            return
        seconds = self._c.settings.scoring_timeout_ms / 1000
        rest = self._last_byte + seconds - self._c.loop.time()
        if self._client_slow:
            self._arm(seconds, self._check_stall)
        elif rest > 0:
            self._arm(rest, self._check_stall)
        else:
            side, self._side = self._side, None
            self._cut(side)

    def _check_hung(self) -> None:
        """Of an orphan: the replica has its time for the score and some more, and then is taken for hung."""
        settings = self._c.settings
        if settings.hung_after_ms is None or self._given_at is None:
            return
        quiet = (settings.scoring_timeout_ms + settings.hung_after_ms) / 1000
        since = max(self._last_byte, self._given_at)
        if self._ended_at is not None:
            # One that streams on for nobody gives no sign by it.
            since = min(since, self._ended_at)
        rest = since + quiet - self._c.loop.time()
        self._ticket.overdue = rest <= 0
        if rest > 0:
            self._arm(rest, self._check_hung)
