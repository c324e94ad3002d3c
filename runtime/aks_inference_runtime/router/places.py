"""A slot for each version, with a further process where the others have none left."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.router.fleet import Fleet
from aks_inference_runtime.router.model import EndpointRoute, RouterState, VersionKey
from aks_inference_runtime.router.slots import Slot, assign, staying

AGAIN_SECONDS = 1.0
"""Between attempts to have a slot for what has none."""
_log = logging.getLogger(__name__)


class Remembers(Protocol):
    """Something of each process."""

    def forget(self, process: int) -> None:
        """That has ended; another one may get its number."""


class Places:
    """Who gets no slot is not served as declared, and holds nobody else up."""

    def __init__(self, fleet: Fleet, parts: Iterable[Remembers]) -> None:
        """`parts`: what remembers something of processes."""
        self.problems: dict[str, str] = {}
        """Why an endpoint is not served as declared, by name."""
        self.again_at = 0.0
        """When another attempt is due; no process is started before."""
        self._fleet = fleet
        self._parts = tuple(parts)
        self._why = ""

    async def assign(
        self,
        wanted: Mapping[VersionKey, int],
        current: Mapping[VersionKey, Slot],
        occupied: Callable[[], Collection[Slot]],
    ) -> Mapping[VersionKey, Slot]:
        """Slots by version. One without a slot of its timeout (milliseconds, `wanted`) keeps the present one; where it
        has none it is left out. Endpoints that are not asked about have no problem."""
        if len(stay := staying(wanted, current, self._fleet.layouts)) == len(wanted):
            self._note({})
            return stay
        taken = occupied()
        found = assign(wanted, current, self._fleet.layouts, taken)
        why = ""
        if found.missing:
            for number in self._fleet.layouts.keys() - {slot.process for slot in (*taken, *found.slots.values())}:
                if number >= self._fleet.permanent:
                    await self._fleet.end_slots(number)
                    for part in self._parts:
                        part.forget(number)
            why = await self._add(found.missing)
            found = assign(wanted, current, self._fleet.layouts, taken)
        lacking = wanted.keys() - found.slots.keys()
        self._note({key.endpoint: f"version {key.version}: {why}" for key in sorted(lacking)})
        kept = {key: slot for key in lacking if (slot := current.get(key)) and slot.process in self._fleet.layouts}
        return {**found.slots, **kept}

    def served(self, state: RouterState, slots: Mapping[VersionKey, Slot]) -> RouterState:
        """What is declared, without the versions that have no slot; their share is the largest other one's."""
        if not self.problems:
            return state
        endpoints = dict(state.endpoints)
        for name in self.problems:
            if (endpoint := _with_slots(endpoints.pop(name), slots)) is not None:
                endpoints[name] = endpoint
        return replace(state, endpoints=endpoints)

    async def _add(self, missing: Mapping[int, int]) -> str:
        """Starts a process; else says why not."""
        now = asyncio.get_running_loop().time()
        if now < self.again_at:
            return self._why
        self._why, self.again_at = "", now + AGAIN_SECONDS
        try:
            await self._fleet.add_slots(missing)
        except (AksInferenceError, OSError) as error:
            self._why = f"no queue can be had for it: {error}"
        else:
            self.again_at = 0.0
        return self._why

    def _note(self, problems: dict[str, str]) -> None:
        for endpoint in problems.keys() | self.problems.keys():
            if (now := problems.get(endpoint)) != self.problems.get(endpoint):
                _log.warning("endpoint %s: %s", endpoint, now or "has its queues again")
        self.problems = problems


def _with_slots(endpoint: EndpointRoute, slots: Mapping[VersionKey, Slot]) -> EndpointRoute | None:
    there = [version for version in endpoint.versions if VersionKey(endpoint.name, version.name) in slots]
    if not there:
        return None
    lost = sum(version.traffic for version in endpoint.versions) - sum(version.traffic for version in there)
    heir = max(there, key=lambda version: version.traffic)
    versions = (replace(one, traffic=one.traffic + lost) if one is heir else one for one in there)
    return replace(endpoint, versions=tuple(versions))
