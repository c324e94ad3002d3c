"""Replacements: in which order the old one goes and the new one comes, and whom that takes along."""

import dataclasses
from collections.abc import Sequence

from embedded_engine import values
from embedded_engine.deploy import graph
from embedded_engine.deploy.apply import diff_resource
from embedded_engine.deploy.cells import Cell, Step, is_provider, split_reference
from embedded_engine.deploy.decisions import replace_on_changes
from embedded_engine.deploy.history import History
from embedded_engine.deploy.options import Options
from embedded_engine.deploy.registration import BailError, Registration
from embedded_engine.deploy.registry import Registry
from embedded_engine.errors import EngineError
from embedded_engine.events import Diagnostic, Sink
from embedded_engine.model import Resource
from embedded_engine.plugins.answers import Diff


class Replacements:
    """`errored` is set where a preview shows a replacement that an update would refuse."""

    def __init__(self, history: History, options: Options, registry: Registry, emit: Sink) -> None:
        self.history = history
        self.options = options
        self.registry = registry
        self.errored = False
        self._emit = emit

    def refuse_protected(self, old: Resource, new: Resource) -> None:
        if not (old.protect and new.protect):
            return
        self.errored = True
        self._error(
            new.urn,
            f'unable to replace resource "{new.urn}"\nas it is currently marked for protection. To unprotect the '
            "resource, remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`",
        )
        if not self.options.dry_run:
            raise BailError(new.urn)

    def refuse_imported(self, registration: Registration, old: Resource, diff: Diff) -> None:
        changed = "\n".join(
            f"{key}: {values.describe(values.redact(old.inputs.get(key)))} => "
            f"{values.describe(values.redact(registration.inputs.get(key)))}"
            for key in diff.replaces
        )
        text = (
            "previously-imported resources that still specify an ID may not be replaced; please remove the `import` "
            f"declaration from your program;\n{changed}"
        )
        if not self.options.dry_run:
            raise EngineError(text)
        self._emit(Diagnostic("warning", text, registration.urn))

    def create_first(self, registration: Registration, old: Cell, diff: Diff, keys: Sequence[str]) -> list[Step]:
        new = registration.new
        replace = Step(op="replace", old=old, new=new, keys=keys, diffs=diff.diffs, detailed=diff.detailed)
        return [_creating(replace, pending_delete=True), replace]

    def recreate(self, registration: Registration, old: Cell) -> list[Step]:
        """It was deleted because what it depends on is replaced."""
        history, urn, new = self.history, registration.urn, registration.new
        history.deletes.discard(urn)
        history.replaces.add(urn)
        keys = history.dependent_keys.get(urn, ())
        return [
            Step(op="replace", old=old, new=new),
            Step(op="create-replacement", old=old, new=new, keys=keys, logical=False, registered=True),
        ]

    async def delete_first(self, registration: Registration, old: Cell, diff: Diff) -> list[Step]:
        history, new = self.history, registration.new
        steps: list[Step] = []
        condemned = await self.dependent_replacements(old)
        condemned += [(cell, ()) for cell in self.going_with(registration.urn)]
        for cell, keys in reversed(condemned):
            if cell in history.pending_deletes:
                continue
            if cell.state.protect and not cell.state.delete:
                self.errored = True
                self._error(
                    registration.urn,
                    f'unable to replace resource "{cell.urn}" as part of replacing "{registration.urn}" as it is '
                    "currently marked for protection. To unprotect the resource, remove the `protect` flag from the "
                    "resource in your Pulumi program and run `pulumi up`, or use the command:\n"
                    f"`pulumi state unprotect '{cell.urn}'`",
                )
                raise BailError(cell.urn)
            history.dependent_keys[cell.urn] = keys
            steps.append(delete_step(cell, replacing=True, pending=not cell.state.delete))
            history.deletes.add(cell.urn)
            history.pending_deletes.add(cell)
        await self.registry.ensure(old.state.provider)
        if not old.state.pending_replacement:
            history.deletes.add(old.urn)
            history.pending_deletes.add(old)
            steps.append(delete_step(old, replacing=True, pending=True))
        replace = Step(op="replace", old=old, new=new, keys=diff.replaces, diffs=diff.diffs, detailed=diff.detailed)
        return [*steps, replace, _creating(replace, pending_delete=False)]

    def going_with(self, urn: str) -> list[Cell]:
        """Old resources that are replaced with, or deleted with, this one."""
        olds = self.history.olds.values()
        return [c for c in olds if urn in c.state.replace_with or c.state.deleted_with == urn]

    async def dependent_replacements(self, root: Cell) -> list[tuple[Cell, tuple[str, ...]]]:
        """The old resources that would have to be replaced if `root` were, with the keys that force it."""
        history = self.history
        found: list[tuple[Cell, tuple[str, ...]]] = []
        replaced = {root.urn}
        settled = history.settled()
        for cell in graph.dependents(root, history.cells, settled):
            keys = await self._replaced_by(cell.state, replaced)
            if keys is not None:
                found.append((cell, keys))
                replaced.add(cell.urn)
        return found

    async def _replaced_by(self, state: Resource, replaced: set[str]) -> tuple[str, ...] | None:
        """The keys that force a replacement if those URNs are replaced; None where nothing does."""
        if not state.custom or state.external:
            return None
        if state.provider and split_reference(state.provider)[0] in replaced:
            await self.registry.ensure(state.provider)
            return ()
        if state.deleted_with in replaced:
            return ()
        touched = {key for key, urns in state.property_dependencies.items() if not replaced.isdisjoint(urns)}
        if not touched & state.inputs.keys():
            return None
        inputs = {key: values.UNKNOWN if key in touched else value for key, value in state.inputs.items()}
        if is_provider(state.type):
            await self.registry.same(state)
            provider = self.registry.require(f"{state.urn}::{state.id}", state.urn)
            diff = await provider.diff_config(state.urn, state.inputs, state.outputs, inputs)
        else:
            await self.registry.ensure(state.provider)
            provider = self.registry.require(state.provider, state.urn)
            diff = await diff_resource(
                provider, state, state.inputs, state.outputs, inputs, state.ignore_changes, unknowns=True
            )
        diff = replace_on_changes(diff, state.replace_on_changes, init_errors=False)
        return diff.replaces if diff.replace else None

    def _error(self, urn: str, message: str) -> None:
        self._emit(Diagnostic("error", message, urn))


def _creating(replace: Step, pending_delete: bool) -> Step:
    """The half of a replacement that makes the new resource."""
    return dataclasses.replace(
        replace, op="create-replacement", logical=False, pending_delete=pending_delete, registered=True
    )


def delete_step(cell: Cell, replacing: bool = False, pending: bool = False) -> Step:
    """`pending`: the resource stays in the state until its replacement is there."""
    if cell.state.external:
        op = "discard-replaced" if replacing else "discard"
    else:
        op = "delete-replaced" if replacing else "delete"
    return Step(op=op, old=cell, logical=not replacing, pending_replacement=pending)
