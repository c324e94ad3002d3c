"""Registries that do not answer: who asks them waits together, and not again so soon."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.images.errors import RegistryError, RegistryUnavailable
from aks_inference_runtime.images.reference import ImageReference
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


async def test_a_request_that_is_given_up_tells_nothing_of_its_registry() -> None:
    clock = Clock()
    silence = Silence(10, 60, clock)
    with pytest.raises(asyncio.CancelledError):
        async with silence.bounded("a"):
            raise asyncio.CancelledError
    clock.now += 11
    async with silence.bounded("a"):
        pass


async def test_an_answer_lets_all_who_wait_for_the_registry_go_on() -> None:
    """The one that came late had 0.01 s left."""
    clock = Clock()
    silence = Silence(600, 60, clock)
    late, answered = asyncio.Event(), asyncio.Event()
    loop, left = asyncio.get_running_loop(), 0.0

    async def first() -> None:
        async with silence.bounded("a"):
            await late.wait()
            silence.heard("a")
        answered.set()

    async def second() -> None:
        nonlocal left
        async with silence.bounded("a"):
            (bound,) = [one for one in silence._open["a"] if one.timeout.when() < loop.time() + 300]  # type: ignore[operator]
            late.set()
            await answered.wait()
            left = (bound.timeout.when() or 0.0) - loop.time()

    asking = asyncio.create_task(first())
    await asyncio.sleep(0)
    clock.now += 540
    await asyncio.gather(asking, second())
    assert left > 300
    assert not silence._open


async def test_who_wants_to_be_asked_later_is_not_silent() -> None:
    clock = Clock()
    silence = Silence(0.01, 60, clock)

    async def ask() -> None:
        async with silence.bounded("a"):
            silence.heard("a", "a: HEAD answered 429")
            await asyncio.Event().wait()

    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match=r"a: HEAD answered 429; waited for 0\.01 s"):
            await ask()
        clock.now += 1


async def test_why_a_registry_cannot_be_asked_is_told_to_all() -> None:
    clock = Clock()
    silence = Silence(10, 60, clock)
    with pytest.raises(RegistryUnavailable):
        async with silence.bounded("a"):
            raise RegistryUnavailable("a: HEAD failed (refused)")
    clock.now += 11
    with pytest.raises(RegistryUnavailable, match=r"no answer within 10 s \(a: HEAD failed \(refused\)\)"):
        async with silence.bounded("a"):
            pytest.fail("asked again")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_registry_that_refuses_for_now_is_asked_each_time(server: Any, quick: Any, status: int) -> None:
    """All of its tries are refused; the next who asks gets its own words again."""
    clock, asked = Clock(), []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        clock.now += 4
        return web.Response(status=status)

    host = await server(handle)
    async with quick(tries=3, silence=Silence(10, 60, clock)) as client:
        for _ in range(2):
            with pytest.raises(RegistryUnavailable, match=f"HEAD answered {status}; gave up after 3 tries"):
                await client.head(ImageReference.parse(f"{host}/a/b:1"))
    assert len(asked) == 6
