"""Refusals over HTTP/2, frame by frame: whole answers, and a connection that serves the next request."""

import asyncio
import json

import pytest
from http2_clients import Client

PATH = "/api/v1/service/svc/score"

REFUSED = {
    "a wrong key": ("POST", PATH, "wrong", 401, "auth"),
    "no such endpoint": ("POST", PATH.replace("svc", "none"), "k", 404, "not-found"),
    "a method": ("PUT", PATH, "k", 405, "method"),
}


@pytest.mark.parametrize("size", [0, 100, 200_000, 3_000_000])
async def test_a_refusal_is_whole_and_its_connection_serves_the_next(bed, make_state, size):
    replica = await bed.replica()
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("k",)))
    client = Client(*await asyncio.open_connection("127.0.0.1", bed.port))
    for what, (method, path, key, status, reason) in REFUSED.items():
        got = await client.ask(method, path, key, size)
        assert (got.status, got.reason, got.ended) == (status, reason, "whole"), what
        assert b"message" in got.body
        got = await client.ask("POST", PATH, "k", 2)
        assert (got.status, got.ended) == (200, "whole"), what
    assert not client.gone_away
    client.writer.transport.abort()


async def test_by_way_of_the_router_that_does_not_own_it(bed, pair, make_state):
    """Between routers HTTP/1.1 is spoken: bodies of any size, refusals, and the next request of the connection."""
    replica = await bed.replica()
    await pair.give_to("b", make_state({"A": (10_000, [replica])}, keys=("k",)))
    client = Client(*await asyncio.open_connection("127.0.0.1", pair.ports["a"]))
    for size in (0, 2, 200_000, 3_000_000):
        got = await client.ask("POST", PATH, "k", size)
        assert (got.status, got.ended, json.loads(got.body)["length"]) == (200, "whole", size)
        got = await client.ask("POST", PATH, "wrong", size)
        assert (got.status, got.reason, got.ended) == (401, "auth", "whole")
    assert not client.gone_away
    client.writer.transport.abort()
