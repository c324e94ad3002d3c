"""How often the autoscaler looks at what routers report, on a clock that jumps to what is due next."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.kubernetes.reports import (
    LEAST_S,
    LOST_S,
    REPORT_S,
    Report,
    Reports,
    Told,
    difference,
    merged,
    together,
)
from aks_inference_runtime.router.model import VersionKey, VersionLoad

VERSIONS = [VersionKey("a", "blue"), VersionKey("a", "green"), VersionKey("b", "blue")]
loads = st.dictionaries(
    st.sampled_from(VERSIONS), st.builds(VersionLoad, *[st.integers(0, 5) for _ in range(5)]), max_size=len(VERSIONS)
)
SECONDS = 10.0
CLOSE_S = 0.001


class Jumping(selectors.DefaultSelector):
    """Waits for nothing."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    clock = Jumping()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    yield loop.run_until_complete
    loop.close()


class Looks:
    """Routers that report at these times, each for itself, and whoever waits for news."""

    def __init__(self, routers: list[list[float]]) -> None:
        self.reports = Reports()
        self.routers = routers
        self.at: list[float] = []

    async def run(self) -> None:
        looking = asyncio.create_task(self._look())
        await asyncio.gather(*(self._report(times) for times in self.routers))
        await asyncio.sleep(1)
        looking.cancel()

    async def _look(self) -> None:
        while True:
            await self.reports.news()
            self.at.append(asyncio.get_running_loop().time())

    async def _report(self, times: list[float]) -> None:
        for at in times:
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            self.reports._reported.set()

    def delay(self, reported: float) -> float:
        return min(at for at in self.at if at >= reported - CLOSE_S) - reported


def every(period: float, first: float) -> list[float]:
    return [first + number * period for number in range(int(SECONDS / period))]


@pytest.mark.parametrize("routers", [1, 2, 3, 20])
def test_many_routers_are_looked_at_as_often_as_one(
    run: Callable[[Coroutine[Any, Any, None]], None], routers: int
) -> None:
    looks = Looks([every(0.102, 0.1 + 0.1 * number / routers) for number in range(routers)])
    run(looks.run())
    assert len([at for at in looks.at if at < SECONDS]) <= SECONDS / REPORT_S + 1
    # None is put off for longer than until the next look.
    assert max(looks.delay(at) for times in looks.routers for at in times) <= REPORT_S + CLOSE_S


def test_after_a_late_report_the_next_are_looked_at_at_once(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    times = every(0.102, 0.1)
    times[5] += LEAST_S - CLOSE_S
    looks = Looks([times])
    run(looks.run())
    assert max(looks.delay(at) for at in times[1:]) <= CLOSE_S


@pytest.mark.parametrize(
    ("routers", "served"),
    [
        ({"a": (True, 2, 0)}, 2),
        ({"a": (True, 2, 0), "b": (True, 1, 0)}, 1),
        # One that begins takes no requests yet.
        ({"a": (True, 2, 0), "b": (False, 0, 0), "c": (False, None, 0)}, 2),
        # For a moment the last word of one that is silent stands; then its node may be dead.
        ({"a": (True, 2, 0), "b": (True, 1, LOST_S - 1)}, 1),
        ({"a": (True, 2, 0), "b": (True, 1, LOST_S + 1)}, 2),
        # Whoever has just begun to listen does not know.
        ({"a": (True, 2, 0), "b": (True, None, LOST_S - 1)}, None),
        ({"a": (True, 2, 0), "b": (True, None, LOST_S + 1)}, 2),
        ({"a": (True, None, LOST_S + 1)}, None),
        ({}, 0),
        ({"a": (False, 2, 0)}, 0),
    ],
)
async def test_what_all_routers_serve_that_clients_reach(
    routers: dict[str, tuple[bool, int | None, float]], served: int | None
) -> None:
    """By whether it is ready, the generation that it said last, and how long it has been silent."""
    reports = Reports()
    session: Any = None
    reports._hear = lambda *_: asyncio.sleep(60)  # type: ignore[method-assign]
    reports.listen(session, {url: ready for url, (ready, _, _) in routers.items()})
    now = asyncio.get_running_loop().time()
    for url, (_, generation, silent_s) in routers.items():
        reports._since[url] = now - silent_s
        if generation is not None:
            reports._generations[url] = {"svc": generation}
    assert reports.served()("svc") == served
    reports.listen(session, {})
    assert reports.served()("svc") == 0
    await reports.close()


@given(loads, loads)
def test_a_line_says_what_has_changed_and_what_was_before_stays_as_it_is(
    before: dict[VersionKey, VersionLoad], now: dict[VersionKey, VersionLoad]
) -> None:
    kept = dict(before)
    line = difference(Told(before), Told(now)).model_dump_json(by_alias=True, exclude_defaults=True)
    assert merged(before, Report.model_validate_json(line)) == now
    assert before == kept


@given(st.lists(loads, max_size=3))
def test_what_several_routers_tell_is_added_up(told: list[dict[VersionKey, VersionLoad]]) -> None:
    kept = [dict(one) for one in told]
    found = together(told)
    assert set(found) == {key for one in told for key in one}
    for key, load in found.items():
        of = [one[key] for one in told if key in one]
        assert load.queued == sum(one.queued for one in of)
        assert load.requests_total == sum(one.requests_total for one in of)
        assert load.rejected_total == sum(one.rejected_total for one in of)
        # What runs is counted at the gates: the same requests.
        assert (load.busy, load.ready_replicas) == (max(o.busy for o in of), max(o.ready_replicas for o in of))
    assert told == kept
