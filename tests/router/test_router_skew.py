"""Two routers that have not heard the same yet of a change of versions."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from router_pair import Pair

from aks_inference_runtime.router.model import RouterState
from aks_inference_runtime.router.ownership import AWAY

Make = Callable[..., RouterState]
MANY = 20


async def answers(bed: Any, pair: Pair, **headers: str) -> set[tuple[int, str | None]]:
    """Of many requests by way of the first router: status and version."""
    asked = (bed.ask(port=pair.ports["a"], **headers) for _ in range(MANY))
    return {(answer.status, answer.version) for answer in await asyncio.gather(*asked)}


@pytest.fixture
async def versions(bed: Any, pair: Pair) -> dict[str, Any]:
    return {name: await bed.replica(name, cap=MANY) for name in "AB"}


@pytest.mark.parametrize("wait_ms", [5_000, 4_321])
async def test_a_version_that_its_owner_has_not_heard_of(
    bed: Any, pair: Pair, make_state: Make, versions: dict[str, Any], wait_ms: int
) -> None:
    one, two = versions["A"], versions["B"]
    old = make_state({"A": (10_000, [one])}, max_request_wait_time=wait_ms)
    new = make_state({"A": (0, [one]), "B": (10_000, [two])}, max_request_wait_time=wait_ms)
    await pair.give_to("b", old)
    await pair.tell("a", new, owner="b", tenure=AWAY)
    assert await answers(bed, pair) == {(200, "A")}
    swagger = await bed.ask(method="GET", data=None, path="/api/v1/service/svc/swagger.json", port=pair.ports["a"])
    assert swagger.version == "A"
    # Who asks for it by name gets no other one: it is waited for, for a while.
    assert await answers(bed, pair, x_aks_inference_version="B") == {(404, None)}
    assert await answers(bed, pair, x_aks_inference_version="A") == {(200, "A")}
    before = await pair.came_back("b")
    named = asyncio.create_task(answers(bed, pair, x_aks_inference_version="B"))

    async def back() -> bool:
        return await pair.came_back("b") > before

    await bed.until(back)
    await pair.tell("b", new, owner=None, tenure=pair.tenure(name="b", epoch=pair.epoch))
    assert await named == {(200, "B")}
    assert await answers(bed, pair) == {(200, "B")}


async def test_a_version_that_its_owner_has_no_more(
    bed: Any, pair: Pair, make_state: Make, versions: dict[str, Any]
) -> None:
    await pair.give_to("b", make_state({"A": (10_000, [versions["A"]])}, max_request_wait_time=5_000))
    new = make_state({"B": (10_000, [versions["B"]])}, max_request_wait_time=5_000)
    await pair.tell("b", new, owner=None, tenure=pair.tenure(name="b", epoch=pair.epoch))
    assert await answers(bed, pair) == {(200, "B")}
    assert await answers(bed, pair, x_aks_inference_version="A") == {(404, None)}


async def test_an_endpoint_that_its_owner_has_no_more(
    bed: Any, pair: Pair, make_state: Make, versions: dict[str, Any]
) -> None:
    await pair.give_to("b", make_state({"A": (10_000, [versions["A"]])}))
    await pair.routers["b"].apply(RouterState())
    assert await answers(bed, pair) == {(404, None)}
