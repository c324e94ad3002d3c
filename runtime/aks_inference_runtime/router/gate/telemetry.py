"""What a gate counts and logs of each request that reached it: answers by status and reason, two histograms, a line.

Here, and not in HAProxy: 2.8 has no histograms, and each rule there costs every request. What HAProxy answers itself is
counted there, on the way of errors only (`router/answers.py`).
"""

import json
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count

from aks_inference_runtime.router.gate.settings import GateFigures, HistogramFigures
from aks_inference_runtime.router.gate.tracing import Trace, Tracer

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets, seconds: from a small model's answer to the scoring timeout's default."""
CUT = "cut"
"""Reason of an answer that began and could not be completed: its client sees a broken connection."""
SLOW_READER = "client-timeout"
"""Reason of an answer that was cut because its reader was too slow; the code is the one that it began with."""
CLIENT_LEFT = "client-left"
"""Reason of a request whose client did not wait for its answer; code 499, as nginx has it."""
LEFT_CODE = 499
MOST_ID_BYTES = 128
_OWN = os.urandom(8).hex().encode()
"""Of this process: the beginning of the ids that it makes."""
_NUMBERS = count()


class Histogram:
    """Counts by bucket, and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """One value."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum += seconds

    def figures(self) -> HistogramFigures:
        """So far."""
        return HistogramFigures(counts=tuple(self.counts), sum=self.sum)


class Telemetry:
    """Of one gate. Totals since it began."""

    def __init__(
        self, labels: Mapping[str, str], log: Callable[[str], None] | None = None, tracer: Tracer | None = None
    ) -> None:
        """
        Args:
            labels: Required. In each line: which replica, of which version and endpoint.
            log: Optional. Takes a line of the access log, JSON without its end. Default: none is made.
            tracer: Optional. Default: nothing is traced.
        """
        self.answers: Counter[tuple[int, str]] = Counter()
        """By status and reason; no reason: the model's own status."""
        self.served = Histogram()
        """From the moment that the replica has the request until its last byte."""
        self.waited = Histogram()
        """In the router's queue, of what reached the replica."""
        self.tracer = tracer
        self._labels = dict(labels)
        self._log = log

    def tell(self, log: Callable[[str], None] | None, tracer: Tracer | None) -> None:
        """From now on these are told; see the arguments of the constructor."""
        self._log, self.tracer = log, tracer

    def figures(self, lines_lost: int = 0) -> GateFigures:
        """Totals, as they are told."""
        return GateFigures(
            answers=tuple((code, reason, count) for (code, reason), count in sorted(self.answers.items())),
            served=self.served.figures(),
            waited=self.waited.figures(),
            lines_lost=lines_lost,
        )

    def answered(self, request: "Request", code: int, reason: str, served_s: float | None, wall_s: float) -> None:
        """One request is over. `served_s`: None, the replica did not get it. `wall_s`: now, since 1970."""
        self.answers[code, reason] += 1
        if served_s is not None:
            self.served.observe(served_s)
            self.waited.observe(request.waited_s)
        if self.tracer is not None and request.trace is not None:
            about = {"http.request.method": _text(request.method), "url.path": _text(request.path)}
            about |= {"aks_inference.request_id": _text(request.id), "aks_inference.reason": reason}
            outcome: dict[str, object] = {**about, "http.response.status_code": code}
            self.tracer.end(request.trace, outcome, request.waited_s, served_s, wall_s)
        if self._log is not None:
            self._log(json.dumps({**self._labels, **request.line(), **_outcome(code, reason, served_s, wall_s)}))


class Request:
    """What is kept of a request for its line."""

    __slots__ = ("id", "method", "path", "trace", "waited_s")

    def __init__(self, id: bytes, method: bytes, path: bytes, waited_s: float, trace: Trace | None = None) -> None:
        self.trace = trace
        self.id = id
        self.method = method
        self.path = path
        self.waited_s = waited_s

    def line(self) -> dict[str, object]:
        """Its part of the line. Neither query nor headers: they may hold secrets."""
        return {
            "request_id": _text(self.id),
            "method": _text(self.method),
            "path": _text(self.path),
            "queue_ms": round(self.waited_s * 1_000, 3),
        }


def request_id(given: bytes | None) -> bytes:
    """The client's own where it can stand in a line and a header, else a new one."""
    if given and len(given) <= MOST_ID_BYTES and given.isascii() and given.decode("ascii").isprintable():
        return given
    return b"%b%016x" % (_OWN, next(_NUMBERS))


def _text(value: bytes) -> str:
    return value.decode("ascii", errors="replace")


def _outcome(code: int, reason: str, served_s: float | None, wall_s: float) -> dict[str, object]:
    at = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")
    outcome: dict[str, object] = {"time": at, "status": code}
    if reason:
        outcome["reason"] = reason
    if served_s is not None:
        outcome["service_ms"] = round(served_s * 1_000, 3)
    return outcome
