"""Which of many sockets have something to read, or take more: one set of them, which the loop watches as a whole.

A socket that the loop watches by itself costs several system calls and objects; here most of them carry one small
request and end.
"""

import asyncio
import os
import select
import time
from collections.abc import Callable
from typing import Protocol

EXPECTED_SECONDS = 0.0004
"""A little above what HAProxy takes from an answer to the next request (0.2 to 0.3 ms on a busy machine)."""


class Watched(Protocol):
    """What is told; it looks itself whether there is anything, so that being told once too often does no harm."""

    def readable(self) -> None:
        """There is something to read, or the other end has gone."""

    def writable(self) -> None:
        """More can be written."""

    def hung_up(self) -> None:
        """The other end has gone, and nothing was to be read."""


class Sockets:
    """By epoll; where the system has none (macOS), by the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            loop: Required. What runs.
            now: Optional. Seconds, as they pass also within a round of the loop.
            give_way: Optional. Lets other processes have the processor. Default: the system's `sched_yield`.
        """
        self._loop = loop
        self._now = now
        yields: Callable[[], None] = getattr(os, "sched_yield", _nothing)
        self._give_way = yields if give_way is None else give_way
        self._watched: dict[int, Watched] = {}
        self._expected = 0.0
        """Until then it is looked without a pause."""
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, number: int, watched: Watched, *, reading: bool, writing: bool) -> None:
        """Takes a socket in, or changes what is asked for."""
        known = number in self._watched
        self._watched[number] = watched
        if self._epoll is None:
            if reading:
                self._loop.add_reader(number, watched.readable)
            else:
                self._loop.remove_reader(number)
            if writing:
                self._loop.add_writer(number, watched.writable)
            else:
                self._loop.remove_writer(number)
            return
        mask = select.EPOLLIN * reading | select.EPOLLOUT * writing
        if known:
            self._epoll.modify(number, mask)
        else:
            self._epoll.register(number, mask)

    def expect(self) -> None:
        """Something is about to come, for which a replica waits: for a moment this process does not go to sleep.

        Waking up would take longer than what comes takes to be read, with caches that are cold by then.
        """
        self._expected = self._now() + EXPECTED_SECONDS

    def leave(self, number: int) -> None:
        """Takes a socket out that stays open."""
        if self._watched.pop(number, None) is None:
            return
        if self._epoll is not None:
            self._epoll.unregister(number)
        else:
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)

    def forget(self, number: int) -> None:
        """A socket that is closed next: that takes it out of the set."""
        if self._watched.pop(number, None) is not None and self._epoll is None:
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)

    def close(self) -> None:
        """The end; no socket is told of anything any more."""
        self._watched.clear()
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _ready(self) -> None:
        assert self._epoll is not None  # noqa: S101 - it is what became ready
        self._tell(self._epoll.poll(0))
        while self._expected > self._now():
            if events := self._epoll.poll(0):
                self._expected = 0.0
                self._tell(events)
                # What that expects in turn is not looked for before the loop has done its other work.
                break
            self._give_way()

    def _tell(self, events: list[tuple[int, int]]) -> None:
        for number, mask in events:
            watched = self._watched.get(number)
            if watched is None:
                continue
            if mask & select.EPOLLOUT:
                watched.writable()
            if mask & select.EPOLLIN:
                watched.readable()
            elif mask & (select.EPOLLHUP | select.EPOLLERR):
                watched.hung_up()


def _nothing() -> None:
    return
