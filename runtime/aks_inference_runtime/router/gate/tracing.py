"""Traces: W3C trace context in and out, spans to an OpenTelemetry collector (OTLP over HTTP, JSON).

Written here and not with the SDK: three spans a request, and no library that a gate would have to load for them.
A collector that is away costs the spans that do not fit the buffer, never a request.
"""

import asyncio
import logging
import os
import random
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

HEADER = b"traceparent"
_PARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
FLUSH_S = 2.0
POST_S = 5.0
MOST_SPANS = 4_096
"""That wait to be sent; older ones are dropped."""
SERVICE = "aks-inference-router"
_SERVER, _CLIENT, _INTERNAL = 2, 3, 1
"""Kinds of spans."""
_ERROR = 2
_log = logging.getLogger(__name__)


class Trace:
    """A request's place in its trace."""

    __slots__ = ("id", "parent", "root", "score")

    def __init__(self, id: str, parent: str | None) -> None:
        self.id = id
        self.parent = parent
        self.root = os.urandom(8).hex()
        self.score = os.urandom(8).hex()

    @property
    def header(self) -> bytes:
        """For the replica: what it does belongs below its score."""
        return f"00-{self.id}-{self.score}-01".encode()


class Tracer:
    """Keeps spans and sends them."""

    def __init__(self, endpoint: str, labels: Mapping[str, str], ratio: float, chance: random.Random) -> None:
        """
        Args:
            endpoint: Required. The collector: `http://collector:4318`.
            labels: Required. Attributes of all spans.
            ratio: Required. Share of the requests without a caller's decision that are traced, 0 to 1.
            chance: Required. Decides it.
        """
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        self._labels = labels
        self._ratio = ratio
        self._chance = chance
        self._spans: deque[dict[str, Any]] = deque(maxlen=MOST_SPANS)

    def begin(self, given: bytes | None) -> Trace | None:
        """The trace of a request with this `traceparent`; None: it is not traced, as its caller wants it."""
        match = _PARENT.fullmatch(given) if given else None
        if match is None:
            return Trace(os.urandom(16).hex(), None) if self._chance.random() < self._ratio else None
        trace, parent, flags = (part.decode() for part in match.groups())
        return Trace(trace, parent) if int(flags, 16) & 1 else None

    def end(
        self, trace: Trace, about: Mapping[str, object], waited_s: float, served_s: float | None, at: float
    ) -> None:
        """A request is over. `at`: now, seconds since 1970; `about`: attributes."""
        attributes = {**self._labels, **about}
        code = int(str(attributes.get("http.response.status_code", 0)))
        name = f"{about['http.request.method']} {about['url.path']}"
        began = at - waited_s - (served_s or 0.0)
        self._add(trace, trace.root, trace.parent, name, _SERVER, began, at, attributes, failed=code >= 500)
        if waited_s:
            self._add(trace, os.urandom(8).hex(), trace.root, "queue", _INTERNAL, began, began + waited_s, {})
        if served_s is not None:
            self._add(trace, trace.score, trace.root, "score", _CLIENT, at - served_s, at, {}, failed=code >= 500)

    def _add(
        self,
        trace: Trace,
        span: str,
        parent: str | None,
        name: str,
        kind: int,
        began: float,
        ended: float,
        attributes: Mapping[str, object],
        *,
        failed: bool = False,
    ) -> None:
        made: dict[str, Any] = {
            "traceId": trace.id,
            "spanId": span,
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(int(began * 1e9)),
            "endTimeUnixNano": str(int(ended * 1e9)),
            "attributes": _attributes(attributes),
        }
        if parent is not None:
            made["parentSpanId"] = parent
        if failed:
            made["status"] = {"code": _ERROR}
        self._spans.append(made)

    async def send(self) -> None:
        """Until cancelled; what is kept then is sent once more."""
        import aiohttp  # a gate without traces does not load it

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(POST_S)) as session:
            try:
                while True:
                    await asyncio.sleep(FLUSH_S)
                    await self._flush(session)
            except asyncio.CancelledError:
                await self._flush(session)
                raise

    async def _flush(self, session: Any) -> None:  # noqa: ANN401 - of a module that is loaded late
        import aiohttp

        if not self._spans:
            return
        spans = list(self._spans)
        self._spans.clear()
        scope = {"scope": {"name": "aks_inference"}, "spans": spans}
        resource = {"attributes": _attributes({"service.name": SERVICE})}
        try:
            async with session.post(
                self._url, json={"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}
            ) as answer:
                problem = "" if answer.status < 300 else f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            problem = type(error).__name__
        if problem:
            _log.warning("%d spans are lost: %s: %s", len(spans), self._url, problem)


def _attributes(given: Mapping[str, object]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
        for key, value in given.items()
        if value != ""
    ]
