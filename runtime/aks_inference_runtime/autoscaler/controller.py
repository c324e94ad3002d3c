"""Looks, decides, scales; what it looks at and what it scales are protocols."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aks_inference_runtime.autoscaler.policy import Decision, Load, Memory, Rules, decide, observe, stays
from aks_inference_runtime.observability.failures import Failures
from aks_inference_runtime.router.model import VersionKey, VersionLoad

SAMPLE_S = 0.1
_log = logging.getLogger(__name__)


class ScalingTarget(NamedTuple):
    """A version that is scaled by need."""

    current: int
    """Replicas that are wanted now."""
    rules: Rules
    refresh_s: float
    """The least time between two changes."""
    room: Callable[[], int]
    """Further replicas that fit, when it is asked: what was decided before in the same round has its place (I5)."""
    ready: bool = True
    """Whether one of its replicas is ready, and made as is declared now."""
    proven: bool = True
    """Whether what is declared now was ready once: until then the last replica stays."""
    start_s: float = 0.0
    """So long the last replica of what is proven is waited for."""


class LoadSource(Protocol):
    """Where the figures come from."""

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        """The newest figures; a version that could not be observed is missing."""


class Scaler(Protocol):
    """What is scaled."""

    def targets(self) -> Mapping[VersionKey, ScalingTarget]:
        """All versions that are to be scaled now."""

    def scale(self, key: VersionKey, decision: Decision) -> None:
        """Called with each decision that changes the number, and once per refresh interval with one that does not."""


@dataclass(slots=True)
class _Past:
    """Of a version."""

    memory: Memory
    decided: float | None = None
    changed: float | None = None
    """When its number was changed last."""
    began: float | None = None
    """Since when it has replicas; None: it has none."""
    started: bool = False
    """Whether one was ready since."""

    def starts(self, now: float, target: ScalingTarget) -> bool:
        """Whether its first replica is still waited for."""
        if target.current == 0:
            self.began, self.started = None, False
            return False
        if self.began is None or now < self.began:
            self.began = now
        self.started = self.started or target.ready
        return not (target.proven and (self.started or now - self.began >= target.start_s))


class Autoscaler:
    """One for all versions of a runtime."""

    def __init__(
        self,
        source: LoadSource,
        scaler: Scaler,
        clock: Callable[[], float] = time.monotonic,
        news: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(SAMPLE_S),
    ) -> None:
        """
        Args:
            source, scaler: Required. Where the figures come from, and what is scaled.
            clock: Optional. In seconds.
            news: Optional. Waits for other figures, for a while. Default: waits for a while.
        """
        self._source = source
        self._scaler = scaler
        self._clock = clock
        self._news = news
        self._pasts: dict[VersionKey, _Past] = {}

    async def run(self) -> None:
        """Until cancelled. A failed round is logged, and everything stays as it is."""
        failures = Failures(_log, "scaling round failed; replicas stay as they are")
        while True:
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 - the autoscaler must not end with one version's figures
                failures.tell(error)
            await self._news()

    def step(self) -> None:
        """One round: observes and decides for every version; changes are a refresh interval apart."""
        now = self._clock()
        loads = self._source.load()
        targets = self._scaler.targets()
        for gone in self._pasts.keys() - targets.keys():
            del self._pasts[gone]
        for key, target in targets.items():
            if (past := self._pasts.get(key)) is None:
                past = self._pasts[key] = _Past(Memory())
            seen = loads.get(key)
            load = None if seen is None else Load(seen.busy, seen.queued)
            memory = past.memory = observe(past.memory, now, load, target.rules)
            starts = not target.rules.minimum and past.starts(now, target)
            if past.changed is not None and 0 <= now - past.changed < target.refresh_s:
                continue
            early = past.decided is not None and 0 <= now - past.decided < target.refresh_s
            if early and stays(memory, now, target.current, target.rules):
                continue
            decision = decide(memory, now, target.current, target.rules, target.rules.maximum, starts=starts)
            if decision.replicas > target.current:
                decision = decide(memory, now, target.current, target.rules, target.room())
            if decision.replicas != target.current:
                past.changed = now
            elif early:
                continue
            past.decided = now
            self._scaler.scale(key, decision)
