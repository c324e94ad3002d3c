"""Looks, decides, scales; what it looks at and what it scales are protocols."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from aks_inference_runtime.autoscaler.policy import Decision, Load, Memory, Rules, decide, observe, stays
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
        self._memories: dict[VersionKey, Memory] = {}
        self._decided: dict[VersionKey, float] = {}
        self._changed: dict[VersionKey, float] = {}

    async def run(self) -> None:
        """Until cancelled. A failed round is logged, and everything stays as it is."""
        while True:
            try:
                self.step()
            except Exception:  # noqa: BLE001 - the autoscaler must not end with one version's figures
                _log.exception("scaling round failed; replicas stay as they are")
            await self._news()

    def step(self) -> None:
        """One round: observes and decides for every version; changes are a refresh interval apart."""
        now = self._clock()
        loads = self._source.load()
        targets = self._scaler.targets()
        for gone in self._memories.keys() - targets.keys():
            del self._memories[gone]
            self._decided.pop(gone, None)
            self._changed.pop(gone, None)
        for key, target in targets.items():
            seen = loads.get(key)
            load = None if seen is None else Load(seen.busy, seen.queued)
            memory = observe(self._memories.get(key, Memory()), now, load, target.rules)
            self._memories[key] = memory
            last = self._decided.get(key)
            early = last is not None and 0 <= now - last < target.refresh_s
            changed = self._changed.get(key)
            if changed is not None and 0 <= now - changed < target.refresh_s:
                continue
            if early and stays(memory, now, target.current, target.rules):
                continue
            decision = decide(memory, now, target.current, target.rules, target.rules.maximum)
            if decision.replicas > target.current:
                decision = decide(memory, now, target.current, target.rules, target.room())
            if decision.replicas != target.current:
                self._changed[key] = now
            elif early:
                continue
            self._decided[key] = now
            self._scaler.scale(key, decision)
