"""What depends on what among the resources of a state, which stand in an order in which each follows its needs."""

from collections.abc import Iterable, Mapping, Sequence

from embedded_engine.deploy.cells import Cell, needs


def dependents(root: Cell, cells: Sequence[Cell], ignored: Iterable[str] = (), children: bool = False) -> list[Cell]:
    """Everything after `root` that needs it, directly or through others; `children`: being a child is a need."""
    left_out = set(ignored)
    reached = {root.urn}
    found: list[Cell] = []
    start = next((i for i, cell in enumerate(cells) if cell is root), len(cells))
    for cell in cells[start + 1 :]:
        if cell.urn not in left_out and not reached.isdisjoint(needs(cell.state, parent=children)):
            found.append(cell)
            reached.add(cell.urn)
    return found


def dependencies(cells: Sequence[Cell]) -> Mapping[Cell, set[Cell]]:
    """For each resource those before it that it needs; needing a component means its children too."""
    before: dict[str, list[Cell]] = {}
    children: dict[str, list[Cell]] = {}
    found: dict[Cell, set[Cell]] = {}
    for cell in cells:
        mine: set[Cell] = set()
        parent = cell.state.parent
        for urn in needs(cell.state):
            for needed in before.get(urn, ()):
                mine.add(needed)
                # A child does not need its siblings.
                if not needed.state.custom and urn != parent:
                    mine.update(_descendants(urn, children))
        mine.discard(cell)
        found[cell] = mine
        before.setdefault(cell.urn, []).append(cell)
        if parent:
            children.setdefault(parent, []).append(cell)
    return found


def _descendants(urn: str, children: Mapping[str, Sequence[Cell]]) -> set[Cell]:
    found: set[Cell] = set()
    waiting = list(children.get(urn, ()))
    while waiting:
        cell = waiting.pop()
        if cell not in found:
            found.add(cell)
            waiting += children.get(cell.urn, ())
    return found
