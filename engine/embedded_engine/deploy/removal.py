"""What is left over at the end of a run is deleted; and what a refresh leaves of the old state."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence

from embedded_engine.deploy import graph
from embedded_engine.deploy.cells import Cell, Step, needs
from embedded_engine.deploy.generator import Generator
from embedded_engine.deploy.history import History
from embedded_engine.deploy.options import Options
from embedded_engine.deploy.registration import BailError
from embedded_engine.deploy.registry import Registry
from embedded_engine.deploy.replacing import delete_step
from embedded_engine.model import Resource


async def plan(
    history: History, generator: Generator, options: Options, registry: Registry
) -> tuple[list[Step], list[Step]]:
    """(resources outside of the targets, which stay; resources to delete). Raises `BailError`."""
    allowed = await _allowed(history, generator, options) if options.targets else None
    sames: list[Step] = []
    deletes: list[Step] = []
    for cell in history.cells:
        state = cell.state
        if allowed is not None and state.urn not in allowed:
            if not history.operated_on(state.urn) and not state.delete:
                new = Cell(dataclasses.replace(state, id=""))
                sames.append(Step(op="same", old=cell, new=new, untargeted=True))
            continue
        if state.delete:
            if cell in history.pending_deletes:
                continue
            history.deletes.add(state.urn)
            deletes.append(delete_step(cell, replacing=True))
        elif not history.operated_on(state.urn):
            history.deletes.add(state.urn)
            if state.pending_replacement:
                # Also one that this run deleted before its replacement, which then did not come.
                deletes.append(Step(op="remove-pending-replace", old=cell))
            else:
                deletes.append(delete_step(cell))
        else:
            continue
        await registry.ensure(state.provider)
    _refuse_untargeted(deletes, generator, options)
    return sames, deletes


async def _allowed(history: History, generator: Generator, options: Options) -> set[str]:
    """The targets, what would be replaced with them, and what goes with them."""
    allowed: set[str] = set()
    for cell in history.cells:
        if cell.urn not in options.targets:
            continue
        allowed.add(cell.urn)
        for found in graph.dependents(cell, history.cells, children=True):
            allowed.add(found.urn)
        for found, _ in await generator.replacements.dependent_replacements(cell):
            allowed.add(found.urn)
        allowed.update(c.urn for c in generator.replacements.going_with(cell.urn))
    return allowed


def _refuse_untargeted(deletes: Sequence[Step], generator: Generator, options: Options) -> None:
    refused = [s for s in deletes if s.urn not in options.targets and not options.target_dependents]
    for step in refused:
        text = (
            f"Resource '{step.urn}' will be destroyed but was not specified in --target list.\n"
            "Either include resource in --target list or pass --target-dependents to proceed."
        )
        generator.refuse(step.urn, text)
    if refused and not options.dry_run:
        # Told as a failed run, like a failed step.
        raise UntargetedError


class UntargetedError(BailError):
    """A resource outside of the targets would have to go."""

    def __init__(self) -> None:
        super().__init__("delete untargeted resource")


async def carry_out(
    steps: Sequence[Step], cells: Sequence[Cell], do: Callable[[Sequence[Step]], Awaitable[bool]]
) -> None:
    """Each resource goes after those that need it; what a resource that did not go needs stays."""
    condemned = {step.old: step for step in steps if step.old is not None}
    needed = graph.dependencies(cells)
    waiting: dict[Cell, asyncio.Future[bool]] = {}
    needing: dict[Cell, list[Cell]] = {cell: [] for cell in condemned}
    for cell in condemned:
        for other in needed.get(cell, ()):
            if other in needing:
                needing[other].append(cell)

    async def remove(cell: Cell) -> bool:
        before = [await waiting[other] for other in needing[cell]]
        return all(before) and await do([condemned[cell]])

    # Those that are needed by others come first in the state, so the futures of the others must exist before.
    for cell in reversed(cells):
        if cell in condemned:
            waiting[cell] = asyncio.ensure_future(remove(cell))
    if waiting:
        await asyncio.gather(*waiting.values())


def refreshed(cell: Cell, options: Options, dependents: set[str]) -> bool:
    if not options.targets:
        return True
    if cell.urn in options.targets:
        if options.target_dependents:
            dependents.add(cell.urn)
        return True
    if options.target_dependents and not dependents.isdisjoint(needs(cell.state)):
        dependents.add(cell.urn)
        return True
    return False


def rebuilt(cells: Sequence[Cell], refreshed_cells: Mapping[Cell, Cell | None]) -> list[Cell]:
    """The state after a refresh: what is gone is left out, and nobody refers to it any more."""
    kept: list[Cell] = []
    present: set[str] = set()
    parents: dict[str, str] = {}
    for cell in cells:
        new = refreshed_cells.get(cell, cell)
        if new is None:
            parents.setdefault(cell.urn, parents.get(cell.state.parent, cell.state.parent))
            continue
        state = _without(new.state, present)
        if state.parent and state.parent not in present:
            state = dataclasses.replace(state, parent=parents.get(state.parent, ""))
        new.state = state
        kept.append(new)
        present.add(state.urn)
    return kept


def _without(state: Resource, present: set[str]) -> Resource:
    """The resource with those of its dependencies that are still there."""
    dependencies = tuple(u for u in state.dependencies if u in present)
    by_property = {key: tuple(u for u in urns if u in present) for key, urns in state.property_dependencies.items()}
    return dataclasses.replace(
        state,
        dependencies=dependencies,
        property_dependencies={key: urns for key, urns in by_property.items() if urns},
        deleted_with=state.deleted_with if state.deleted_with in present else "",
        replace_with=tuple(u for u in state.replace_with if u in present),
    )
