"""Small maps by slot: whether a version has a ready replica, when to come again, how many of those who wait have left.

Only requests that cannot be served at once look at them.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router import late
from aks_inference_runtime.router.admin import AdminSocket, word
from aks_inference_runtime.router.observing import Observations
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.process import write_private
from aks_inference_runtime.router.slots import Slot
from aks_inference_runtime.router.versions import ServedVersion

RATE_SECONDS = 1.0
"""Window of the rate that Retry-After is estimated from."""
LONGEST_RETRY_S = 60
REFUSED_SECONDS = 0.5
"""Between looks at what `refuse.lua` has counted."""
OTHERS_SECONDS = 10.0
"""The same at processes without slots, where nothing is counted: there may be one an endpoint."""


class Hints:
    """Keeps `<process>.ready`, `.retry` and `.gone` as they should be."""

    def __init__(self, paths: Paths, admin_of: Callable[[int], AdminSocket]) -> None:
        self._paths = paths
        self._admin_of = admin_of
        self._told: dict[tuple[int, str], dict[str, str] | None] = {}
        """What HAProxy has; None: not known."""
        self._next_count = 0.0
        self._next_others = 0.0
        self._rates: dict[object, tuple[float, int, float]] = {}

    async def update(self, versions: Iterable[ServedVersion], seen: Observations, gone: Mapping[Slot, int]) -> None:
        """Tells HAProxy what has changed; `gone`: how many in a slot's queue have left."""
        versions = tuple(versions)
        for gone_one in self._rates.keys() - {version.key for version in versions}:
            del self._rates[gone_one]
        wanted: dict[tuple[int, str], dict[str, str]] = {key: {} for key in self._told}
        for slot, count in gone.items():
            wanted.setdefault((slot.process, "gone"), {})[slot.backend] = str(count)
        for version in versions:
            retry = str(self._retry_s(version, seen))
            for slot in version.slots:
                if version.sums.ready_replicas:
                    wanted.setdefault((slot.process, "ready"), {})[slot.backend] = "1"
                if retry != "1":
                    wanted.setdefault((slot.process, "retry"), {})[slot.backend] = retry
        for (process, kind), entries in wanted.items():
            before = self._told.get((process, kind))
            if entries != before:
                self._told[process, kind] = None
                try:
                    await self._tell(process, kind, before, entries)
                except RuntimeUnavailable:
                    continue
                self._told[process, kind] = entries

    async def look_at_refused(self, versions: Iterable[ServedVersion], admins: Mapping[str, AdminSocket]) -> None:
        """Adds the answers to large bodies where the queue was full: HAProxy does not count them as denied. Ends who
        sends the rest of a refused body too slowly. `admins`: of every process, by name; those without slots are looked
        at less often.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next_count:
            return
        self._next_count = now + REFUSED_SECONDS
        by_slot = {slot: version for version in versions for slot in version.slots}
        of_slots = {f"p{slot.process}" for slot in by_slot}
        others = now >= self._next_others
        if others:
            self._next_others = now + OTHERS_SECONDS
        for name, admin in admins.items():
            if name not in of_slots and not others:
                continue
            try:
                lines = (await admin.run("show refused")).splitlines()
                await late.end(admin, lines)
            except RuntimeUnavailable:
                continue
            found = dict(line.split(" ") for line in lines if line.count(" ") == 1)
            for slot, version in by_slot.items():
                if f"p{slot.process}" == name:
                    version.refused(slot, int(found.get(slot.backend, 0)))

    def forget(self, process: int) -> None:
        """The process has ended; another one may get its number."""
        self._told = {key: entries for key, entries in self._told.items() if key[0] != process}

    def write(self, process: int, versions: Iterable[ServedVersion]) -> None:
        """The files that a process starts with."""
        ready = {s.backend: "1" for v in versions if v.sums.ready_replicas for s in v.slots if s.process == process}
        for kind, entries in (("ready", ready), ("retry", dict[str, str]()), ("gone", dict[str, str]())):
            text = "".join(f"{key} {value}\n" for key, value in entries.items())
            write_private(self._paths.directory / f"p{process}.{kind}", text)
            self._told[process, kind] = entries

    async def _tell(
        self, process: int, kind: str, before: Mapping[str, str] | None, entries: Mapping[str, str]
    ) -> None:
        path = self._paths.directory / f"p{process}.{kind}"
        if before is None:
            await self._admin_of(process).replace_map(path, entries)
            return
        name = word(path)
        commands = [f"del map {name} {key}" for key in before if key not in entries]
        commands += [f"add map {name} {key} {value}" for key, value in entries.items() if key not in before]
        commands += [
            f"set map {name} {key} {value}" for key, value in entries.items() if before.get(key, value) != value
        ]
        await self._admin_of(process).must(commands)

    def _retry_s(self, version: ServedVersion, seen: Observations) -> int:
        """When the queue of now will have been served, at the rate of the last second."""
        at = max((seen[slot.process].at for slot in version.slots if slot.process in seen), default=0.0)
        began, served, rate = self._rates.get(version.key, (at, version.sums.served_total, 0.0))
        if at - began >= RATE_SECONDS:
            rate = max(0, version.sums.served_total - served) / (at - began)
            began, served = at, version.sums.served_total
        self._rates[version.key] = (began, served, rate)
        queued = version.queued(seen)
        if not queued or not rate:
            return 1
        return max(1, min(LONGEST_RETRY_S, math.ceil(queued / rate)))
