"""Pages of other origins: preflights are answered by the router, answers say which page may read them."""

from dataclasses import replace
from typing import Any

import pytest

from aks_inference_runtime.router.model import RouterState

APP, OTHER = "https://app.example.com", "http://localhost:3000"
ALLOW = "access-control-allow-origin"


@pytest.fixture
async def served(bed: Any, make_state: Any) -> Any:
    """`svc` for two origins, with the key `k`; `open` for none."""
    replica = await bed.replica(cap=4)
    router = await bed.router()
    svc = make_state({"A": (10_000, [replica])}, keys=("k",)).endpoints["svc"]
    await router.apply(
        RouterState(
            {"svc": replace(svc, cors_origins=(APP, OTHER)), "open": replace(svc, name="open")},
        )
    )
    return replica


async def preflight(bed: Any, name: str, origin: str, **headers: str) -> Any:
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,content-type"}
    return await bed.ask(name, method="OPTIONS", data=None, origin=origin, **(asked | headers))


@pytest.mark.parametrize("origin", [APP, OTHER])
async def test_a_preflight_needs_no_key_and_no_replica(bed: Any, served: Any, origin: str) -> None:
    answer = await preflight(bed, "svc", origin)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers[ALLOW] == origin
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert answer.headers["vary"] == "origin"
    assert (await served.stats())["served"] == 0


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com.evil.example", "https://app.example.co", "http://app.example.com", "null", "x y"],
)
async def test_another_page_is_told_nothing(bed: Any, served: Any, origin: str) -> None:
    answer = await preflight(bed, "svc", origin)
    assert (answer.status, ALLOW in answer.headers) == (401, False)
    answer = await bed.ask(key="k", origin=origin)
    assert (answer.status, ALLOW in answer.headers) == (200, False)


async def test_an_endpoint_without_origins_has_none(bed: Any, served: Any) -> None:
    assert (await preflight(bed, "open", APP)).status == 401
    assert ALLOW not in (await bed.ask("open", key="k", origin=APP)).headers
    assert (await preflight(bed, "missing", APP)).status == 404


async def test_answers_of_all_kinds_can_be_read(bed: Any, served: Any) -> None:
    good = await bed.ask(key="k", origin=APP)
    model = await bed.ask(key="k", origin=APP, x_status="418")
    refused = await bed.ask(key="wrong", origin=APP)
    large = await bed.ask(key="wrong", origin=APP, data=b"x" * 500_000)
    method = await bed.ask(method="PUT", key="k", origin=APP)
    assert [one.status for one in (good, model, refused, large, method)] == [200, 418, 401, 401, 405]
    for answer in (good, model, refused, large, method):
        assert answer.headers[ALLOW] == APP, answer
        assert "x-aks-inference-reason" in answer.headers["access-control-expose-headers"]
        assert "origin" in answer.headers["vary"]


async def test_who_has_no_origin_sees_no_difference(bed: Any, served: Any) -> None:
    answer = await bed.ask(key="k")
    assert answer.status == 200
    assert not {ALLOW, "access-control-expose-headers", "vary"} & set(answer.headers)
    assert (await bed.ask(method="OPTIONS", data=None, key="k")).status == 405
