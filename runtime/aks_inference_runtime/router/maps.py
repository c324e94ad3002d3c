"""The maps that processes decide by: few changes are told entry by entry, many by a whole map in its place."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router import routes
from aks_inference_runtime.router.admin import AdminSocket, word
from aks_inference_runtime.router.deltas import Delta, Entries, delta
from aks_inference_runtime.router.fleet import Fleet
from aks_inference_runtime.router.model import RouterState, VersionKey
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.process import write_private
from aks_inference_runtime.router.slots import Slot

_log = logging.getLogger(__name__)
OF_ALL = ""
"""Stands for the name of an endpoint where entries are nobody's."""


class RouteMap:
    """One process's."""

    def __init__(self, file: Path, admin: Callable[[], AdminSocket], dead: Callable[[], bool]) -> None:
        """
        Args:
            file: Required. The map's name. It is empty but while the process starts: nobody else may start with what
                was right once.
            admin: Required. Of the process.
            dead: Required. Whether it is to be started again.
        """
        self._file = file
        self._admin = admin
        self._dead = dead
        self._parts: dict[str, Entries] = {}
        """By endpoint, as they should be."""
        self._taken_over: Entries | None = {}
        """What HAProxy has, before anything was declared."""
        self._known = False
        """HAProxy has `_parts`, and nothing else that was told here."""

    async def adopt(self) -> None:
        """Learns from a running process what it has."""
        self._taken_over = await self._admin().show_map(self._file)

    async def declare(self, parts: Mapping[str, Entries]) -> None:
        """These endpoints have these entries from now on, all others what they had; without any it is gone.

        Raises OperationFailed, or RuntimeUnavailable when HAProxy does not answer: what it has is not known then.
        """
        pairs = [(self._parts.get(name, {}), entries) for name, entries in parts.items()]
        changed = [(before, after) for before, after in pairs if before != after]
        if self._known and not changed:
            return
        self._parts |= parts
        for name in [name for name, entries in parts.items() if not entries]:
            del self._parts[name]
        steps = delta(changed) if self._known else None
        taken_over, self._taken_over, self._known = self._taken_over, None, False
        try:
            if steps is not None:
                await self._tell(steps)
            elif (whole := self._whole()) != taken_over:
                await self._admin().replace_map(self._file, whole)
        except RuntimeUnavailable:
            if not self._dead():
                raise
        self._known = True

    async def remember(self, key: str, good: bool) -> None:
        """Puts a key beside what is declared, or takes it out. Raises RuntimeUnavailable."""
        await self._admin().run(f"add map {word(self._file)} {key} 1" if good else f"del map {word(self._file)} {key}")

    def write(self) -> None:
        """For the process that is about to start."""
        entries = self._whole() if self._taken_over is None else self._taken_over
        write_private(self._file, "".join(f"{key} {value}\n" for key, value in entries.items()))

    def started(self) -> None:
        """It has read them."""
        self._known = self._taken_over is None
        write_private(self._file, "")

    async def _tell(self, steps: Delta) -> None:
        admin, name = self._admin(), word(self._file)
        values = {**steps.changed, **steps.settled}
        await admin.add_to_map(self._file, steps.added)
        await admin.must([f"set map {name} {word(key)} {word(value)}" for key, value in values.items()])
        await admin.add_to_map(self._file, steps.opened)
        await admin.must([f"del map {name} {word(key)}" for key in (*steps.closed, *steps.removed)])

    def _whole(self) -> dict[str, str]:
        return {key: value for entries in self._parts.values() for key, value in entries.items()}


class Maps:
    """Of the first process, and among several routers of the one that the others reach."""

    def __init__(self, paths: Paths, fleet: Fleet) -> None:
        self._fleet = fleet
        self._of = {
            n: RouteMap(paths.routes(f"p{n}"), partial(fleet.admin, n), partial(_is_dead, fleet, n))
            for n in range(fleet.permanent)
        }
        self._numbers: Mapping[str, int] = {}

    async def adopt(self) -> None:
        """Learns from running processes what they have."""
        for number in self._of.keys() & self._fleet.layouts.keys():
            await self._of[number].adopt()

    async def declare(
        self,
        state: RouterState,
        names: Iterable[str],
        slots: Mapping[VersionKey, Slot],
        numbers: Mapping[str, int],
    ) -> None:
        """What clients and other routers are served from now on. Raises as `RouteMap.declare`.

        Args:
            state: Required. All that is served.
            names: Required. Of the endpoints that may have changed since the last time.
            slots: Required. Of their versions.
            numbers: Required. Of the other routers.
        """
        served = {name: state.endpoints.get(name) for name in names}
        # What others pass on has its place before anybody is sent there.
        for number in self._of.keys() - {0}:
            own = {name: {} if e is None else routes.owner_entries(e, slots, number) for name, e in served.items()}
            await self._of[number].declare(own)
        if numbers != self._numbers:
            served |= {name: e for name, e in state.endpoints.items() if e.owner is not None}
        found = {name: {} if e is None else routes.entries(e, slots, numbers) for name, e in served.items()}
        await self._of[0].declare({OF_ALL: routes.OF_ALL, **found})
        self._numbers = dict(numbers)

    async def remember(self, entry: str, good: bool) -> None:
        """A token's digest gets into the first process's map, or out of it. What a map in its place forgets is asked
        again."""
        try:
            await self._of[0].remember(entry, good)
        except RuntimeUnavailable as error:
            _log.info("%s", error)

    def write(self, number: int) -> None:
        """For a process that is about to start."""
        if number in self._of:
            self._of[number].write()

    def started(self, number: int) -> None:
        """It has read them."""
        if number in self._of:
            self._of[number].started()


def _is_dead(fleet: Fleet, number: int) -> bool:
    return f"p{number}" in fleet.dead()
