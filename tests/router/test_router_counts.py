"""What HAProxy answers itself is counted by endpoint, version, status and reason; waits are told to the gate."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from aks_inference_runtime.router.answers import AnswerKey
from aks_inference_runtime.router.gate.deadline import waited
from aks_inference_runtime.router.gate.telemetry import (
    BOUNDS_S,
    Histogram,
    Request,
    Telemetry,
    request_id,
)
from aks_inference_runtime.router.model import RouterState


async def test_answers_of_the_router_itself(
    bed: Any, make_state: Callable[..., RouterState], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aks_inference_runtime.router.answers")
    router = await bed.router()
    replica = await bed.replica(sleep_ms=3_000)
    settings = {"max_request_wait_time": 1_500, "max_queued_requests": 1}
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("key-1",), **settings))
    ask = partial(bed.ask, key="key-1")
    assert (await bed.ask(key="wrong")).status == 401
    assert (await bed.ask(path="/api/v1/service/none/score")).status == 404
    assert (await ask(method="PUT")).status == 405
    slow = asyncio.create_task(ask())
    await bed.counts(router, busy=1)
    waits = asyncio.create_task(ask())
    await bed.counts(router, busy=1, queued=1)
    assert (await ask()).status == 429
    assert ((await slow).status, (await waits).status) == (200, 503)
    wanted = {
        AnswerKey("svc", "", 401, "auth"): 1,
        AnswerKey("", "", 404, "not-found"): 1,
        AnswerKey("svc", "", 405, "method"): 1,
        AnswerKey("svc", "A", 429, "queue-full"): 1,
        AnswerKey("svc", "A", 503, "queue-timeout"): 1,
    }

    async def counted() -> bool:
        return router.answers == wanted

    try:
        await bed.until(counted)
    except TimeoutError:
        raise AssertionError(dict(router.answers)) from None
    lines = [json.loads(record.message) for record in caplog.records if record.name.endswith("router.answers")]
    assert {"endpoint": "svc", "version": "", "code": 401, "reason": "auth", "count": 1} in lines
    assert sum(line["count"] for line in lines) == 5


def test_a_histogram() -> None:
    found = Histogram()
    for value in (0.0, 0.001, 0.0011, 59.9, 60.0, 61.0):
        found.observe(value)
    assert (found.counts[0], found.counts[1], found.counts[-2], found.counts[-1]) == (2, 1, 2, 1)
    assert found.sum == pytest.approx(180.9021)
    assert list(BOUNDS_S) == sorted(BOUNDS_S)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(b"abc-1", True), (None, False), (b"", False), (b"x" * 129, False), ("ä".encode(), False), (b"a\tb", False)],
)
def test_request_ids(given: bytes | None, kept: bool) -> None:
    assert (request_id(given) == given) is kept
    assert request_id(None) != request_id(None)


@pytest.mark.parametrize(
    ("since", "seconds"),
    [
        (None, 0.0),
        (b"", 0.0),
        (b"-5", 0.0),
        (b"9999500", 0.5),
        (b"10000100", 0.0),
        # Of a client that writes the router's headers itself.
        (b"0", 0.0),
        (b"9" * 400, 0.0),
        (b"9" * 5_000, 0.0),
    ],
)
def test_waits(since: bytes | None, seconds: float) -> None:
    assert waited(since, 10_000.0, None).seconds == pytest.approx(seconds)


def test_a_line_of_the_access_log() -> None:
    lines: list[str] = []
    telemetry = Telemetry({"endpoint": "churn"}, lines.append)
    telemetry.answered(Request(b"id", b"POST", b"/score", 0.25), 502, "replica-lost", 0.5, 0.0)
    telemetry.answered(Request(b"id", b"POST", b"/score", 0.0), 413, "too-large", None, 0.0)
    first, second = map(json.loads, lines)
    assert first == {
        "endpoint": "churn",
        "request_id": "id",
        "method": "POST",
        "path": "/score",
        "queue_ms": 250.0,
        "time": "1970-01-01T00:00:00.000+00:00",
        "status": 502,
        "reason": "replica-lost",
        "service_ms": 500.0,
    }
    assert "service_ms" not in second
    # What the replica did not get is in no histogram.
    assert (sum(telemetry.served.counts), sum(telemetry.waited.counts)) == (1, 1)
    assert dict(telemetry.answers) == {(502, "replica-lost"): 1, (413, "too-large"): 1}
    assert sys.getsizeof(Request(b"", b"", b"", 0.0)) < 100
