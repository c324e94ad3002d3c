"""Registries that do not answer: who asks them waits together, and not again so soon."""

import asyncio

import pytest

from aks_inference_runtime.images.errors import RegistryError, RegistryUnavailable
from aks_inference_runtime.images.registry import Silence


class Clock:
    """Stands still until it is told."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_all_that_is_asked_of_a_registry_shares_its_time() -> None:
    clock = Clock()
    silence = Silence(10, 60, clock)
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        async with silence.bounded("a"):
            raise RegistryUnavailable("a: cannot be reached")
    clock.now += 11
    with pytest.raises(RegistryUnavailable, match="a: no answer within 10 s"):
        async with silence.bounded("a"):
            pytest.fail("asked again")
    async with silence.bounded("b"):
        pass


@pytest.mark.parametrize("refused", [False, True])
async def test_an_answer_of_any_kind_gives_it_all_its_time_again(refused: bool) -> None:
    clock = Clock()
    silence = Silence(10, 60, clock)
    for _ in range(3):
        clock.now += 8
        try:
            async with silence.bounded("a"):
                if refused:
                    raise RegistryError("a: HEAD answered 400", 400)
        except RegistryError:
            pass


async def test_who_was_silent_is_asked_again_after_a_while() -> None:
    clock = Clock()
    silence = Silence(10, 60, clock)
    with pytest.raises(RegistryUnavailable):
        async with silence.bounded("a"):
            raise RegistryUnavailable("a: cannot be reached")
    clock.now += 71
    async with silence.bounded("a"):
        pass


async def test_the_wait_ends_and_a_cancellation_stays_one() -> None:
    with pytest.raises(RegistryUnavailable, match=r"no answer within 0\.0001 s"):
        async with Silence(0.0001).bounded("a"):
            await asyncio.Event().wait()

    async def ask() -> None:
        async with Silence(600).bounded("a"):
            await asyncio.Event().wait()

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
