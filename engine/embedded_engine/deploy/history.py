"""What a run knows: the resources as they were, and what has become of each URN so far."""

from collections.abc import Callable, Iterable, Sequence

from embedded_engine.deploy.cells import Cell, is_provider
from embedded_engine.deploy.goals import Goal
from embedded_engine.model import Resource


class History:
    """`cells` are all old resources in their order; `olds` those that are live, by URN; `references` the providers."""

    def __init__(self, resources: Iterable[Resource], renamed: Callable[[str, str], None]) -> None:
        self._renamed = renamed
        self.use([Cell(r) for r in resources])
        self.goals: dict[str, Goal] = {}
        # Provider resources of this run, by URN.
        self.providers: dict[str, Cell] = {}
        # URN of this run -> the old URN that it matched by an alias, and the other way round.
        self.aliases: dict[str, str] = {}
        self.aliased: dict[str, str] = {}
        self.urns: set[str] = set()
        self.sames: set[str] = set()
        self.creates: set[str] = set()
        self.updates: set[str] = set()
        self.replaces: set[str] = set()
        self.deletes: set[str] = set()
        self.reads: set[str] = set()
        self.skipped_creates: set[str] = set()
        self.targets_actual: set[str] = set()
        # Why a dependent of a replaced resource is replaced, by URN.
        self.dependent_keys: dict[str, Sequence[str]] = {}
        # Old resources of which the deletion has been decided.
        self.pending_deletes: set[Cell] = set()

    def use(self, cells: list[Cell]) -> None:
        """These are the old resources now: at the start, and after a refresh."""
        self.cells = cells
        self.olds = {c.urn: c for c in cells if not c.state.delete}
        self.all_urns = {c.urn for c in cells}
        self.references = {f"{c.urn}::{c.state.id}": c.state for c in cells if is_provider(c.state.type)}

    def rename(self, old_urn: str, new_urn: str) -> None:
        self.aliases[new_urn] = old_urn
        self.aliased[old_urn] = new_urn
        self._renamed(old_urn, new_urn)

    def has_step(self, urn: str) -> bool:
        return urn in self.urns or self.operated_on(urn)

    def operated_on(self, urn: str) -> bool:
        """Whether the run has something for this resource, under its old or its new URN."""
        return any(
            urn in found
            for urn in {urn, self.aliased.get(urn, urn)}
            for found in (self.sames, self.updates, self.replaces, self.reads)
        )

    def settled(self) -> set[str]:
        """URNs that a replacement can no longer take with it."""
        return self.reads | self.creates | self.sames | self.updates | self.deletes | self.replaces
