"""The state while a run changes it: what was done, what is under way, and when it is written.

Every change is written before what follows from it begins, but changes that wait together are written together: a
write takes all that has happened until it starts.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable

from embedded_engine.deploy.cells import Cell, Step, split_reference
from embedded_engine.model import Operation, OperationKind, Resource, Snapshot

Persist = Callable[[Snapshot], None]

_PENDING = {
    "create": OperationKind.CREATING,
    "create-replacement": OperationKind.CREATING,
    "update": OperationKind.UPDATING,
    "delete": OperationKind.DELETING,
    "delete-replaced": OperationKind.DELETING,
    "discard": OperationKind.DELETING,
    "discard-replaced": OperationKind.DELETING,
    "read": OperationKind.READING,
    "read-replacement": OperationKind.READING,
    "import": OperationKind.IMPORTING,
    "import-replacement": OperationKind.IMPORTING,
}

_CREATES = ("create", "create-replacement")
_DELETES = ("delete", "delete-replaced", "discard", "discard-replaced", "remove-pending-replace")
_MAKES_NEW = (*_CREATES, "same", "update", "read", "read-replacement", "import", "import-replacement")


class Journal:
    """`persist` writes a snapshot and returns when it is safe; None in a preview, where nothing is written."""

    def __init__(self, base: Snapshot, cells: Iterable[Cell], persist: Persist | None) -> None:
        self._base = base
        self._old = list(cells)
        self._persist = persist
        self._done: set[Cell] = set()
        self._new: list[Cell] = []
        self._pending: dict[Cell, OperationKind] = {}
        self._created: set[str] = set()
        self._to_forget = False
        self._forgetting = False
        self._renamed: dict[str, str] = {}
        self._wanted = 0
        self._written = 0
        self._writing = asyncio.Lock()

    async def begin(self, step: Step) -> None:
        """The step is about to be done: kept as a pending operation until `end`."""
        kind = _PENDING.get(step.op)
        if kind is not None and self._persist is not None:
            self._pending[step.cell] = kind
            await self._write()

    async def end(self, step: Step, kept: bool, lost: bool = False) -> None:
        """The step is done. `kept`: it worked, or half of it is there. `lost`: nobody knows, so it stays pending."""
        if lost:
            return
        self._pending.pop(step.cell, None)
        changed = self._apply(step) if kept else step.op in _PENDING
        if changed and self._persist is not None:
            await self._write()

    async def outputs(self) -> None:
        """A component's outputs have changed."""
        if self._persist is not None:
            await self._write()

    async def close(self, well: bool) -> None:
        """Writes what was not worth a write of its own; `well`: the run did all that it was to do."""
        self._forgetting = self._to_forget and well
        if self._persist is not None:
            await self._write()

    def freeze(self) -> None:
        """From now on the state stays as it was last written: what is under way is not learnt any more."""
        self._persist = None

    def forget_creates(self) -> None:
        """What was being created when an earlier run was cut is not kept when this one has ended well."""
        self._to_forget = True

    def rename(self, old_urn: str, new_urn: str) -> None:
        """A resource was found under a former URN: what is left over refers to it by the new one."""
        self._renamed[old_urn] = new_urn

    def rebase(self, cells: Iterable[Cell]) -> None:
        """After a refresh these are the old resources."""
        self._old = list(cells)
        self._done.clear()
        self._new.clear()

    def _apply(self, step: Step) -> bool:
        """Notes what the step did; whether that must be written at once."""
        old, new = step.old, step.new
        if old is not None and _settles_old(step, old):
            self._done.add(old)
        if new is not None and step.op in _MAKES_NEW and not step.skipped_create:
            self._new.append(new)
            if step.op in _CREATES:
                self._created.add(new.urn)
        if step.op == "same":
            return old is not None and new is not None and _worth_writing(old.state, new.state)
        return step.op in _MAKES_NEW or step.op in _DELETES

    def snapshot(self) -> Snapshot:
        """The state as it is now: new resources in the order in which they were made, then what is left of the old."""
        resources = [cell.state for cell in self._new if cell not in self._done]
        resources += [self._renamed_state(cell.state) for cell in self._old if cell not in self._done]
        resources = [dataclasses.replace(r, aliases=()) if r.aliases else r for r in resources]
        operations = [Operation(cell.state, kind) for cell, kind in self._pending.items()]
        # A create of which the end is not known stays told until the same resource has been made.
        operations += [] if self._forgetting else [o for o in self._base.operations if self._unsettled(o)]
        return dataclasses.replace(self._base, resources=tuple(resources), operations=tuple(operations))

    def _unsettled(self, operation: Operation) -> bool:
        return operation.kind is OperationKind.CREATING and operation.resource.urn not in self._created

    def _renamed_state(self, state: Resource) -> Resource:
        if not self._renamed:
            return state
        names = self._renamed

        def renamed(urns: Iterable[str]) -> tuple[str, ...]:
            return tuple(names.get(urn, urn) for urn in urns)

        provider_urn, identity = split_reference(state.provider)
        changes = {
            "parent": names.get(state.parent, state.parent),
            "dependencies": renamed(state.dependencies),
            "property_dependencies": {key: renamed(urns) for key, urns in state.property_dependencies.items()},
            "deleted_with": names.get(state.deleted_with, state.deleted_with),
            "replace_with": renamed(state.replace_with),
            "provider": f"{names[provider_urn]}::{identity}" if provider_urn in names else state.provider,
        }
        same = all(_plain(getattr(state, field)) == _plain(value) for field, value in changes.items())
        return state if same else dataclasses.replace(state, **changes)  # type: ignore[arg-type]

    async def _write(self) -> None:
        self._wanted += 1
        mine = self._wanted
        async with self._writing:
            if self._written >= mine:
                return
            until, persist = self._wanted, self._persist
            if persist is None:
                return
            await asyncio.to_thread(persist, self.snapshot())
            self._written = until


def _settles_old(step: Step, old: Cell) -> bool:
    """Whether the old resource is no longer part of the state: it was taken over, or it is gone."""
    if step.op in ("same", "update", "read", "remove-pending-replace"):
        return True
    # One that waits for its replacement stays until that is there.
    pending = old.state.pending_replacement
    return pending if step.op in _CREATES else step.op in _DELETES and not pending


def _plain(value: object) -> object:
    return {k: tuple(v) for k, v in value.items()} if isinstance(value, dict) else value


def _worth_writing(old: Resource, new: Resource) -> bool:
    """Whether a resource to which nothing was done differs in what matters later."""
    fields = (
        "urn",
        "type",
        "custom",
        "custom_timeouts",
        "retain_on_delete",
        "provider",
        "parent",
        "deleted_with",
        "replace_with",
        "protect",
        "inputs",
        "outputs",
    )
    return any(getattr(old, f) != getattr(new, f) for f in fields) or set(old.dependencies) != set(new.dependencies)
