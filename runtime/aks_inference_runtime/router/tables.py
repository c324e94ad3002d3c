"""The routes that HAProxy's processes have: what is new of them goes there, and as a whole where that is much.

With a thousand endpoints the map has thousands of entries, and one more endpoint adds eight.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router import routes
from aks_inference_runtime.router.admin import word
from aks_inference_runtime.router.fleet import Fleet
from aks_inference_runtime.router.model import EndpointRoute, RouterState, VersionKey
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.peers import KNOWN
from aks_inference_runtime.router.process import write_private
from aks_inference_runtime.router.slots import Slot

MOST_CHANGES = 100
"""Entries that are changed or taken out one by one: HAProxy goes through its whole map for each."""
MOST_ADDED = 1_000


class Difference(NamedTuple):
    """From one table to another, in the order in which each request meets what belongs together.

    What a path's own entry leads to is there before it, and goes after it.
    """

    added: Mapping[str, str]
    changed: Mapping[str, str]
    heads: Mapping[str, str]
    """Of these the new ones are added, the others changed."""
    heads_gone: Sequence[str]
    gone: Sequence[str]

    @property
    def much(self) -> bool:
        """Whether the whole table is less work."""
        changes = len(self.changed) + len(self.heads) + len(self.heads_gone) + len(self.gone)
        return changes > MOST_CHANGES or len(self.added) > MOST_ADDED


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> Difference:
    """What leads from one to the other."""
    added: dict[str, str] = {}
    changed: dict[str, str] = {}
    heads: dict[str, str] = {}
    for key, value in now.items():
        old = before.get(key)
        if old == value:
            continue
        if routes.is_head(key):
            heads[key] = value
        else:
            (added if old is None else changed)[key] = value
    left = [key for key in before if key not in now]
    gone = [key for key in left if not routes.is_head(key)]
    return Difference(added, changed, heads, [key for key in left if routes.is_head(key)], gone)


class Tables:
    """Of the first process, and of the one that other routers reach."""

    def __init__(self, paths: Paths, fleet: Fleet) -> None:
        self._paths = paths
        self._fleet = fleet
        self._told: dict[int, Mapping[str, str]] = {0: {}, 1: {}}
        """What processes have; none: not known."""
        self._made: dict[str, tuple[EndpointRoute, Sequence[str], Mapping[str, str]]] = {}
        """An endpoint's entries, and what they were made of."""

    async def adopt(self, processes: Iterable[int]) -> None:
        """Learns what running processes have. Raises RuntimeUnavailable."""
        for number in self._told.keys() & set(processes):
            self._told[number] = await self._fleet.admin(number).show_map(self._paths.routes(f"p{number}"))

    async def commit(
        self, state: RouterState, slots: Mapping[VersionKey, Slot], numbers: Mapping[str, int], *, owners: bool
    ) -> None:
        """Tells all of it. `numbers`: of the other routers; `owners`: these have a table of their own.

        Raises OperationFailed for what HAProxy refuses, RuntimeUnavailable when it does not answer.
        """
        if owners:
            await self._tell(1, routes.owner_table(state, slots, 1))
        table = {KNOWN: "1"}
        for name, endpoint in state.endpoints.items():
            found = routes.routes_of(endpoint, slots, numbers)
            made = self._made.get(name)
            if made is None or made[0] is not endpoint or made[1] != found:
                made = self._made[name] = (endpoint, found, routes.entries(endpoint, found))
            table.update(made[2])
        for name in self._made.keys() - state.endpoints.keys():
            del self._made[name]
        await self._tell(0, table)

    async def _tell(self, number: int, table: Mapping[str, str]) -> None:
        before = self._told.pop(number, None)
        if table == before:
            self._told[number] = table
            return
        path = self._paths.routes(f"p{number}")
        # For a restart; the running process is told by its socket.
        write_private(path, "".join(f"{key} {value}\n" for key, value in table.items()))
        admin = self._fleet.admin(number)
        try:
            # At first as a whole: that all is told is an entry of its own (`KNOWN`).
            if not before or (steps := difference(before, table)).much:
                await admin.replace_map(path, table)
            else:
                name = word(path)
                await admin.add_to_map(path, steps.added)
                await admin.must([f"set map {name} {key} {value}" for key, value in steps.changed.items()])
                await admin.add_to_map(path, {k: v for k, v in steps.heads.items() if k not in before})
                await admin.must([f"set map {name} {k} {v}" for k, v in steps.heads.items() if k in before])
                await admin.must([f"del map {name} {key}" for key in (*steps.heads_gone, *steps.gone)])
        except RuntimeUnavailable:
            if f"p{number}" not in self._fleet.dead():
                raise
        self._told[number] = table
