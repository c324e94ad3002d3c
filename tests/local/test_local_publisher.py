"""Rounds of telling the router: shared, and nobody's own."""

import asyncio
from typing import Any

import pytest

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.local.publisher import Publisher
from aks_inference_runtime.router.model import RouterState


class SlowRouter:
    """Takes a state when it is told to; `wanted` is what there is to tell."""

    def __init__(self) -> None:
        self.wanted = 0
        self.began: list[Any] = []
        self.took: list[Any] = []
        self.go = asyncio.Semaphore(0)
        self.error: Exception | None = None

    def state(self) -> Any:
        return self.wanted

    async def apply(self, state: RouterState) -> None:
        self.began.append(state)
        await self.go.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.took.append(state)

    async def until_began(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.began) < count:
                await asyncio.sleep(0)


@pytest.fixture
def router() -> SlowRouter:
    return SlowRouter()


@pytest.fixture
def publisher(router: SlowRouter) -> Publisher:
    return Publisher(router, router.state)  # type: ignore[arg-type]


async def test_who_leaves_does_not_end_the_round_of_the_others(router: SlowRouter, publisher: Publisher) -> None:
    first = asyncio.create_task(publisher.publish())
    await router.until_began(1)
    router.wanted = 1
    others = [asyncio.create_task(publisher.publish()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    others[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    router.go.release()
    await router.until_began(2)
    assert router.took == [0], "the round of the one that left came to its end"
    assert not others[1].done(), "its state is older than what these want"
    router.go.release()
    await asyncio.wait_for(asyncio.gather(*others[1:]), 10)
    assert router.took == [0, 1], "one round for all who came meanwhile"
    assert others[0].cancelled()


async def test_an_error_reaches_all_who_wait_and_the_next_round_tries_again(
    router: SlowRouter, publisher: Publisher
) -> None:
    router.error = OperationFailed("broken")
    waiting = [asyncio.create_task(publisher.publish()) for _ in range(2)]
    router.go.release()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in done] == ["broken", "broken"]
    router.go.release()
    await asyncio.wait_for(publisher.publish(), 10)
    await asyncio.wait_for(publisher.publish(), 10)
    assert router.began == [0, 0], "what the router has is not told again"


async def test_an_error_that_nobody_waits_for_any_more_is_no_warning(router: SlowRouter, publisher: Publisher) -> None:
    router.error = OperationFailed("broken")
    alone = asyncio.create_task(publisher.publish())
    await router.until_began(1)
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    router.go.release()
    router.go.release()
    await asyncio.wait_for(publisher.publish(), 10)
    assert router.took == [0]


async def test_the_end_stops_what_is_under_way(router: SlowRouter, publisher: Publisher) -> None:
    waiting = asyncio.create_task(publisher.publish())
    await router.until_began(1)
    await asyncio.wait_for(publisher.close(), 10)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert router.took == []
