"""The load of what a router owns, as it tells it: JSON lines. Both ends.

A line has what changed since the one before on the same stream, and says that the rest is as it was.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import aiohttp
from aiohttp import web
from pydantic import Field, ValidationError

from aks_inference_runtime.api.base import OpenWire
from aks_inference_runtime.autoscaler.routers import Figures
from aks_inference_runtime.router.model import VersionKey, VersionLoad

REPORT_S = 0.1
STALE_S = 1.0
"""A router that has not reported for so long tells nothing: its versions' figures are missing, never zero."""
LOST_S = 5.0
"""What a router serves is as it said last for so long; then it does not count: its node may be dead, and the API server
takes most of a minute to say so."""
FIGURES_STALE_S = 3.0
"""A router's own figures come once a second."""
AGAIN_S = 0.2
LEAST_S = 0.05
"""Between two looks at what routers have reported. On average they are `REPORT_S` apart, however many routers report;
this one lets looks that followed a late report catch up."""
PATH = "/v1/load"
T = TypeVar("T")

Loads = Mapping[VersionKey, VersionLoad]


class VersionReport(OpenWire):
    """The figures of one version."""

    endpoint: str
    version: str
    busy: int
    queued: int
    ready: int
    requests_total: int
    rejected_total: int


class RouterReport(OpenWire):
    """The router's own figures: see `autoscaler.routers.Figures`."""

    number: int
    """Another one with each measurement."""
    routing_ms: float
    cores: float
    busiest: float


class Report(OpenWire):
    """One line."""

    changed: tuple[VersionReport, ...] = ()
    gone: tuple[tuple[str, str], ...] = ()
    """Versions that this router does not report any more."""
    generations: dict[str, int] = Field(default_factory=dict)
    """Endpoint → the newest generation that this router serves whole, where that changed. 0: it is gone."""
    unserved: dict[str, str] = Field(default_factory=dict)
    """Endpoint → why this router does not serve it as it is declared, where that changed. Empty: nothing is wrong."""
    waits: str = ""
    """What all endpoints wait for (`Known.waits`), as long as they do."""
    router: RouterReport | None = None
    """Where it was measured again."""


def together(loads: Iterable[Loads]) -> Loads:
    """Of several routers. While an endpoint changes hands two of them have some of its requests."""
    found: Loads = {}
    for one in loads:
        if not found:
            found = one
            continue
        both = found.keys() & one.keys()
        found = {**found, **one, **{key: _sum(found[key], one[key]) for key in both}}
    return found


class Told(NamedTuple):
    """What a router has to say of endpoints."""

    loads: Loads = MappingProxyType({})
    generations: Mapping[str, int] = MappingProxyType({})
    unserved: Mapping[str, str] = MappingProxyType({})
    waits: str = ""


def difference(before: Told, now: Told) -> Report:
    """What a line has to say."""
    return Report(
        waits=now.waits,
        generations=_changed(before.generations, now.generations, 0),
        unserved=_changed(before.unserved, now.unserved, ""),
        changed=tuple(
            VersionReport(
                endpoint=key.endpoint,
                version=key.version,
                busy=load.busy,
                queued=load.queued,
                ready=load.ready_replicas,
                requests_total=load.requests_total,
                rejected_total=load.rejected_total,
            )
            for key, load in now.loads.items()
            if before.loads.get(key) != load
        ),
        gone=tuple((key.endpoint, key.version) for key in before.loads if key not in now.loads),
    )


def _changed(before: Mapping[str, T], now: Mapping[str, T], gone: T) -> dict[str, T]:
    changed = {name: one for name, one in now.items() if before.get(name) != one}
    return changed | dict.fromkeys(before.keys() - now.keys(), gone)


def merged(before: Loads, report: Report) -> dict[VersionKey, VersionLoad]:
    """The figures after a line."""
    now = dict(before)
    for key in report.gone:
        now.pop(VersionKey(*key), None)
    for entry in report.changed:
        now[VersionKey(entry.endpoint, entry.version)] = VersionLoad(
            entry.busy, entry.queued, entry.ready, entry.requests_total, entry.rejected_total
        )
    return now


async def stream(
    request: web.Request,
    told: Callable[[], Told],
    figures: Callable[[], RouterReport | None] = lambda: None,
) -> web.StreamResponse:
    """The router's side of `GET /v1/load`."""
    answer = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
    before = Told()
    measured_before: RouterReport | None = None
    try:
        # Who asked may have left while this process stood still.
        await answer.prepare(request)
        while True:
            loads, generations, unserved, waits = told()
            now, measured = Told(dict(loads), dict(generations), dict(unserved), waits), figures()
            line = difference(before, now)
            if measured != measured_before:
                line = line.model_copy(update={"router": measured})
            await answer.write(line.model_dump_json(by_alias=True, exclude_defaults=True).encode() + b"\n")
            before, measured_before = now, measured
            await asyncio.sleep(REPORT_S)
    except ConnectionError:
        return answer


class Reports:
    """The autoscaler's side: the figures of all routers."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loads: dict[str, Loads] = {}
        self._generations: dict[str, dict[str, int]] = {}
        """As each said last, also while it is not heard."""
        self._unserved: dict[str, dict[str, str]] = {}
        self._waits: dict[str, str] = {}
        self._since: dict[str, float] = {}
        """When it was heard last, or was begun to be listened to."""
        self._ready: frozenset[str] = frozenset()
        self._figures: dict[str, tuple[Figures, float]] = {}
        self._reported = asyncio.Event()
        self._look_at = 0.0

    async def news(self) -> None:
        """Until a router has reported once more, or should have; at most ten times a second."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(LEAST_S, self._look_at - loop.time()))
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * REPORT_S):
                await self._reported.wait()
        self._reported.clear()
        self._look_at = max(self._look_at, loop.time() - LEAST_S) + REPORT_S

    def listen(self, session: aiohttp.ClientSession, routers: Mapping[str, bool]) -> None:
        """To the routers at these URLs, and no more; with whether clients reach it."""
        self._ready = frozenset(url for url, ready in routers.items() if ready)
        now = asyncio.get_running_loop().time()
        for url in self._tasks.keys() - routers.keys():
            self._tasks.pop(url).cancel()
            self._loads.pop(url, None)
            self._generations.pop(url, None)
            self._unserved.pop(url, None)
            self._waits.pop(url, None)
            self._since.pop(url, None)
            self._figures.pop(url, None)
        for url in routers.keys() - self._tasks.keys():
            self._since[url] = now
            self._tasks[url] = asyncio.create_task(self._hear(session, url))

    def load(self) -> Loads:
        """The newest figures by version; what was not heard lately is missing."""
        oldest = asyncio.get_running_loop().time() - STALE_S
        return together(loads for url, loads in self._loads.items() if self._since[url] > oldest)

    def served(self) -> Callable[[str], int | None]:
        """By endpoint: the newest generation that every router serves that clients reach; None: nobody knows now."""
        if not self._ready:
            return lambda _: 0
        oldest = asyncio.get_running_loop().time() - LOST_S
        counted = [self._generations.get(url) for url in self._ready if self._since.get(url, 0.0) > oldest]
        if not counted or None in counted:
            return lambda _: None
        told = [one for one in counted if one is not None]
        return lambda endpoint: min(one.get(endpoint, 0) for one in told)

    def unserved(self) -> Mapping[str, str]:
        """Why a router that clients reach does not serve an endpoint as it is declared, by the endpoint's name."""
        return {name: why for url in self._heard() for name, why in self._unserved.get(url, {}).items()}

    def waits(self) -> str:
        """What all endpoints wait for at a router that clients reach; empty: nothing."""
        return next(filter(None, (self._waits.get(url) for url in self._heard())), "")

    def _heard(self) -> list[str]:
        oldest = asyncio.get_running_loop().time() - LOST_S
        return sorted(url for url in self._ready if self._since.get(url, 0.0) > oldest)

    def figures(self, url: str) -> Figures | None:
        """The newest of a router itself; None: not heard lately."""
        found, at = self._figures.get(url, (None, 0.0))
        return found if asyncio.get_running_loop().time() - at <= FIGURES_STALE_S else None

    async def close(self) -> None:
        """Ends listening."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _hear(self, session: aiohttp.ClientSession, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALE_S, sock_read=STALE_S)
        while True:
            loads: Loads = {}
            generations: dict[str, int] = {}
            unserved: dict[str, str] = {}
            try:
                async with session.get(url + PATH, timeout=timeout) as answer:
                    async for line in answer.content:
                        report = Report.model_validate_json(line)
                        loads = self._loads[url] = merged(loads, report)
                        generations |= report.generations
                        self._generations[url] = generations
                        unserved |= report.unserved
                        self._unserved[url] = unserved = {name: why for name, why in unserved.items() if why}
                        self._waits[url] = report.waits
                        now = self._since[url] = asyncio.get_running_loop().time()
                        self._reported.set()
                        if (own := report.router) is not None:
                            self._figures[url] = Figures(own.routing_ms, own.cores, own.busiest), now
            except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, ValueError):
                pass  # it is asked again; until then its figures grow old
            await asyncio.sleep(AGAIN_S)


def _sum(one: VersionLoad, other: VersionLoad) -> VersionLoad:
    return VersionLoad(
        # What runs is counted at the gates by whoever listens to them: the same requests.
        max(one.busy, other.busy),
        one.queued + other.queued,
        max(one.ready_replicas, other.ready_replicas),
        one.requests_total + other.requests_total,
        one.rejected_total + other.rejected_total,
    )
