"""Who waits for a time is called then, once for each call that was asked for, and never before."""

import asyncio
import random

import pytest
import uvloop

from aks_inference_runtime.router.turns import STEP_S, Turns, turns

LATE_S = 5.0
"""On a machine that does something else."""


class Waiting:
    def __init__(self) -> None:
        self.rang: list[float] = []

    def ring(self) -> None:
        self.rang.append(asyncio.get_running_loop().time())


async def rung(count: int, waiting: list[Waiting]) -> None:
    async with asyncio.timeout(LATE_S):
        while sum(len(one.rang) for one in waiting) < count:
            await asyncio.sleep(STEP_S)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_in_any_order(loop: object) -> None:
    draw = random.Random(3)

    async def run() -> None:
        calls = Turns()
        now = asyncio.get_running_loop().time()
        times = [now + draw.uniform(-0.05, 0.3) for _ in range(200)]
        waiting = [Waiting() for _ in times]
        for when, who in zip(times, waiting, strict=True):
            calls.at(when, who)
        await rung(len(times), waiting)
        for when, who in zip(times, waiting, strict=True):
            (rang,) = who.rang
            assert rang >= when

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(run())


async def test_an_earlier_call_does_not_wait_for_a_later_one() -> None:
    calls, late, soon = Turns(), Waiting(), Waiting()
    now = asyncio.get_running_loop().time()
    calls.at(now + 3_600, late)
    calls.at(now + STEP_S, soon)
    await rung(1, [soon])
    assert not late.rang


async def test_who_is_called_may_ask_again() -> None:
    class Again(Waiting):
        def ring(self) -> None:
            super().ring()
            if len(self.rang) < 5:
                turns().at(self.rang[-1] + STEP_S, self)

    again = Again()
    turns().at(0.0, again)
    await rung(5, [again])
    assert again.rang == sorted(again.rang)
    assert turns() is turns()
