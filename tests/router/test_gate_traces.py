"""Traces through router and gate to a collector, and on to the replica."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.router.gate.tracing import Tracer
from aks_inference_runtime.router.model import RouterState

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
async def collector() -> AsyncIterator[tuple[str, list[Any]]]:
    """An OpenTelemetry collector: its address, and the spans that it got."""
    spans: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        for resource in (await request.json())["resourceSpans"]:
            (name,) = resource["resource"]["attributes"]
            assert name == {"key": "service.name", "value": {"stringValue": "aks-inference-router"}}
            spans.extend(span for scope in resource["scopeSpans"] for span in scope["spans"])
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", spans
    await runner.cleanup()


def told(span: Any) -> dict[str, str]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


async def test_a_request_s_spans(bed: Any, make_state: Callable[..., RouterState], collector: Any) -> None:
    url, spans = collector
    replica = await bed.replica(sleep_ms=300, otlpEndpoint=url, endpoint="svc", traceRatio=0)
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=20_000))
    ask = partial(bed.ask, x_request_id="mine")
    quiet = f"00-{'1' * 32}-{PARENT}-00"
    await ask(traceparent=quiet)
    assert (await replica.stats())["last_headers"]["traceparent"] == quiet
    await ask()
    assert "traceparent" not in (await replica.stats())["last_headers"]
    # The second one of two waits in the queue.
    await asyncio.gather(*(ask(traceparent=f"00-{TRACE}-{PARENT}-01") for _ in range(2)))
    passed = (await replica.stats())["last_headers"]["traceparent"]

    async def all_there() -> bool:
        return len(spans) >= 5

    await bed.until(all_there, 30)
    assert {span["traceId"] for span in spans} == {TRACE}
    roots = [span for span in spans if span.get("parentSpanId") == PARENT]
    assert [(s["name"], s["kind"]) for s in roots] == [("POST /api/v1/service/svc/score", 2)] * 2
    about = told(roots[0])
    assert (about["aks_inference.endpoint"], about["aks_inference.version"]) == ("svc", "A")
    assert (about["http.response.status_code"], about["aks_inference.request_id"]) == ("200", "mine")
    below = {name: [s for s in spans if s["name"] == name] for name in ("queue", "score")}
    assert (len(below["queue"]), len(below["score"])) == (1, 2)
    assert {s["parentSpanId"] for s in below["score"]} == {s["spanId"] for s in roots}
    # What the replica does belongs below its score.
    assert passed in {f"00-{TRACE}-{s['spanId']}-01" for s in below["score"]}
    (waited,) = below["queue"]
    assert int(waited["endTimeUnixNano"]) - int(waited["startTimeUnixNano"]) > 50_000_000


@pytest.mark.parametrize(
    ("given", "ratio", "traced"),
    [
        (None, 1.0, True),
        (None, 0.0, False),
        (f"00-{TRACE}-{PARENT}-01".encode(), 0.0, True),
        (f"00-{TRACE}-{PARENT}-00".encode(), 1.0, False),
        (b"nonsense", 1.0, True),
        (f"01-{TRACE}-{PARENT}-01".encode(), 0.0, False),
    ],
)
def test_what_is_traced(given: bytes | None, ratio: float, traced: bool) -> None:
    trace = Tracer("http://c", {}, ratio, random.Random(1)).begin(given)
    assert (trace is not None) is traced
    if trace is not None and given is not None and given.startswith(b"00-"):
        assert (trace.id, trace.parent) == (TRACE, PARENT)


def test_a_failure_and_the_bound() -> None:
    tracer = Tracer("http://c", {"a": "b"}, 1.0, random.Random(1))
    about = {"http.request.method": "POST", "url.path": "/score", "http.response.status_code": 504, "reason": ""}
    for _ in range(3_000):
        trace = tracer.begin(None)
        assert trace is not None
        tracer.end(trace, about, 0.0, 0.5, 10.0)
    assert len(tracer._spans) == 4_096
    root = tracer._spans[-2]
    assert (root["status"], root["startTimeUnixNano"], "parentSpanId" in root) == ({"code": 2}, "9500000000", False)
    assert told(root) == {
        "a": "b",
        "http.request.method": "POST",
        "url.path": "/score",
        "http.response.status_code": "504",
    }
