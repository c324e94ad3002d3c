"""One timer for many deadlines: each comes once, in order, never early, and not after it was taken back."""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.router.gate.alarms import Alarms


class Clock:
    """Of a loop, as far as alarms use it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, then: Callable[[], None]) -> Any:
        handle = asyncio.TimerHandle(at, then, (), self)  # type: ignore[arg-type]
        self.timers.append(handle)
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        assert isinstance(context["exception"], ZeroDivisionError)

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def run(self, until: float) -> None:
        while due := [timer for timer in self.timers if timer.when() <= until]:
            first = min(due, key=lambda timer: timer.when())
            self.timers.remove(first)
            self.now = max(self.now, first.when())
            first._run()
        self.now = until


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 4), st.integers(0, 50)),
        st.tuples(st.just("clear"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(0, 30)),
    ),
    max_size=40,
)


@given(STEPS)
def test_as_a_timer_for_each_would(steps: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    alarms = Alarms(clock)  # type: ignore[arg-type]
    came: list[tuple[float, int]] = []
    wanted: dict[int, float] = {}
    expected: list[tuple[float, int]] = []

    def pass_to(now: float) -> None:
        over = sorted((at, key) for key, at in wanted.items() if at <= now)
        expected.extend(over)
        for _, key in over:
            del wanted[key]

    for what, key, amount in [*steps, ("wait", 0, 1_000)]:
        if what == "set":
            alarms.set(key, amount, lambda key=key: came.append((clock.now, key)))  # type: ignore[misc]
            wanted[key] = clock.now + amount
        elif what == "clear":
            alarms.clear(key)
            wanted.pop(key, None)
        else:
            clock.run(clock.now + amount)
            pass_to(clock.now)
            assert sorted(came) == sorted(expected)
            assert len(clock.timers) <= 1
    assert [at for at, _ in came] == sorted(at for at, _ in came)


def test_one_may_take_back_or_set_another() -> None:
    clock = Clock()
    alarms = Alarms(clock)  # type: ignore[arg-type]
    came: list[str] = []

    def first() -> None:
        came.append("first")
        alarms.clear("second")
        alarms.set("third", 5, lambda: came.append("third anew"))

    alarms.set("first", 1, first)
    alarms.set("second", 1, lambda: came.append("second"))
    alarms.set("third", 1, lambda: came.append("third"))
    clock.run(3)
    assert came == ["first"]
    clock.run(10)
    assert came == ["first", "third anew"]


def test_nothing_comes_after_the_end() -> None:
    clock = Clock()
    alarms = Alarms(clock)  # type: ignore[arg-type]
    came: list[str] = []
    alarms.set("one", 1, lambda: came.append("one"))
    alarms.close()
    clock.run(5)
    assert not came


def test_one_that_fails_takes_none_with_it() -> None:
    clock = Clock()
    alarms = Alarms(clock)  # type: ignore[arg-type]
    came: list[str] = []

    def fails() -> None:
        raise ZeroDivisionError

    alarms.set("fails", 1, fails)
    alarms.set("same time", 1, lambda: came.append("same time"))
    alarms.set("later", 2, lambda: came.append("later"))
    clock.run(5)
    assert came == ["same time", "later"]
