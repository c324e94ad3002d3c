"""Clients of the scoring URI."""

import asyncio
import collections
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp

VERSION_HEADER = "x-aks-inference-version"
REASON_HEADER = "x-aks-inference-reason"
Z_999 = 3.2905
"""Standard normal quantile: 99.9 % of all outcomes lie within."""


@dataclass(frozen=True)
class Answer:
    """What one request got."""

    status: int
    version: str
    reason: str
    predictions: list[float]


@dataclass
class Tally:
    """What many requests got."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    versions: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Requests that ended, whatever their end."""
        return self.statuses.total() + len(self.failures)

    @property
    def failed(self) -> int:
        """Requests that ended other than with 200."""
        return self.sent - self.statuses[200]

    def add(self, answer: Answer) -> None:
        """Counts one answer."""
        self.statuses[answer.status] += 1
        if answer.status == 200:
            self.versions[answer.version] += 1


async def score(session: aiohttp.ClientSession, uri: str, key: str, rows: Sequence[Sequence[float]]) -> Answer:
    """Sends rows, one request."""
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post(uri, json={"data": rows}, headers=headers) as response:
        content = await response.json(content_type=None) if response.status == 200 else []
        return Answer(
            response.status,
            response.headers.get(VERSION_HEADER, ""),
            response.headers.get(REASON_HEADER, ""),
            content,
        )


async def score_each(
    uri: str,
    key: str,
    rows: Sequence[Sequence[float]],
    count: int,
    per_second: float,
    until: asyncio.Event | None = None,
) -> Tally:
    """Sends single rows at a steady rate: `count` of them and, if asked, more until the event is set."""
    tally = Tally()
    supply = itertools.cycle(rows)
    begun = time.monotonic()
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for number in itertools.count():
            if number >= count and (until is None or until.is_set()):
                break
            await asyncio.sleep(max(0.0, begun + number / per_second - time.monotonic()))
            group.create_task(_one(session, uri, key, next(supply), tally))
    return tally


async def _one(session: aiohttp.ClientSession, uri: str, key: str, row: Sequence[float], tally: Tally) -> None:
    try:
        tally.add(await score(session, uri, key, [row]))
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.failures.append(f"{type(error).__name__}: {error}")


async def press(uri: str, key: str, rows: Sequence[Sequence[float]], clients: int, done: Callable[[], bool]) -> Tally:
    """Keeps `clients` requests under way until `done` says so."""
    tally = Tally()

    async def client(session: aiohttp.ClientSession) -> None:
        while not done():
            await _one(session, uri, key, rows[0], tally)

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(session))
    return tally


def within_binomial_bound(hits: int, trials: int, share: float) -> bool:
    """Whether a count lies within the 99.9 % bound of its share (normal approximation with continuity correction)."""
    return abs(hits - trials * share) <= Z_999 * math.sqrt(trials * share * (1 - share)) + 0.5
