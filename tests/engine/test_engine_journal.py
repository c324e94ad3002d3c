"""The state during a run: what is pending when, what a snapshot holds, in which order things are deleted."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_engine.deploy import graph, removal
from embedded_engine.deploy.cells import Cell, Step, needs
from embedded_engine.deploy.journal import Journal
from embedded_engine.model import Operation, OperationKind, Resource, Snapshot


def resource(name: str, **fields: Any) -> Resource:
    return Resource(
        **{"urn": f"urn:pulumi:dev::p::t:t:T::{name}", "type": "t:t:T", "custom": True, "id": name, **fields}
    )


def urn(name: str) -> str:
    return resource(name).urn


class Written:
    """What was written, as names: `a b | creating c`."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def __call__(self, snapshot: Snapshot) -> None:
        names = [r.name + ("!" if r.delete else "?" if r.pending_replacement else "") for r in snapshot.resources]
        pending = [f"{o.kind.value} {o.resource.name}" for o in snapshot.operations]
        self.all.append(" ".join(names) + (" | " + ", ".join(sorted(pending)) if pending else ""))


async def test_an_operation_is_pending_until_its_end_is_known() -> None:
    written = Written()
    old = Cell(resource("a"))
    journal = Journal(Snapshot((old.state,)), [old], written)
    create = Step(op="create", new=Cell(resource("b")))
    await journal.begin(create)
    await journal.end(create, kept=True)
    update = Step(op="update", old=old, new=Cell(resource("a", inputs={"x": 1})))
    await journal.begin(update)
    await journal.end(update, kept=False)
    delete = Step(op="delete", old=old)
    await journal.begin(delete)
    await journal.end(delete, kept=True)
    lost = Step(op="create", new=Cell(resource("c")))
    await journal.begin(lost)
    await journal.end(lost, kept=False, lost=True)
    await journal.close(well=True)
    assert written.all == [
        "a | creating b",
        "b a",
        "b a | updating a",
        "b a",
        "b a | deleting a",
        "b",
        "b | creating c",
        "b | creating c",
    ]


async def test_the_old_one_of_a_replacement_stays_until_it_is_gone() -> None:
    written = Written()
    old, new = Cell(resource("a", id="1")), Cell(resource("a", id="2"))
    journal = Journal(Snapshot((old.state,)), [old], written)
    create = Step(op="create-replacement", old=old, new=new, pending_delete=True, logical=False)
    await journal.begin(create)
    old.set(delete=True)
    await journal.end(create, kept=True)
    delete = Step(op="delete-replaced", old=old, logical=False)
    await journal.begin(delete)
    await journal.end(delete, kept=True)
    assert written.all == ["a | creating a", "a a!", "a a! | deleting a", "a"]


async def test_one_that_was_deleted_first_stays_until_the_new_one_is_there() -> None:
    written = Written()
    old, new = Cell(resource("a", id="1")), Cell(resource("a", id="2"))
    journal = Journal(Snapshot((old.state,)), [old], written)
    delete = Step(op="delete-replaced", old=old, pending_replacement=True, logical=False)
    await journal.begin(delete)
    old.set(pending_replacement=True)
    await journal.end(delete, kept=True)
    create = Step(op="create-replacement", old=old, new=new, logical=False)
    await journal.begin(create)
    await journal.end(create, kept=True)
    assert written.all == ["a | deleting a", "a?", "a? | creating a", "a"]


async def test_what_is_unchanged_is_not_written() -> None:
    written = Written()
    old = Cell(resource("a", inputs={"x": 1}))
    journal = Journal(Snapshot((old.state,)), [old], written)
    same = Step(op="same", old=old, new=Cell(resource("a", inputs={"x": 1})))
    await journal.begin(same)
    await journal.end(same, kept=True)
    assert written.all == []
    changed = Step(op="same", old=Cell(resource("b")), new=Cell(resource("b", protect=True)))
    await journal.end(changed, kept=True)
    assert written.all == ["a b"]


async def test_writes_that_wait_together_are_one() -> None:
    written = Written()
    journal = Journal(Snapshot(), [], written)
    await asyncio.gather(*(journal.begin(Step(op="create", new=Cell(resource(f"r{i}")))) for i in range(50)))
    assert len(written.all) <= 3
    assert written.all[-1].count("creating") == 50


async def test_a_frozen_journal_writes_no_more() -> None:
    written = Written()
    journal = Journal(Snapshot(), [], written)
    step = Step(op="create", new=Cell(resource("a")))
    await journal.begin(step)
    journal.freeze()
    await journal.end(step, kept=False)
    await journal.close(well=True)
    assert written.all == [" | creating a"]


async def test_an_old_pending_create_is_told_until_the_resource_is_made() -> None:
    written = Written()
    pending = Operation(resource("a"), OperationKind.CREATING)
    gone = Operation(resource("b"), OperationKind.UPDATING)
    journal = Journal(Snapshot(operations=(pending, gone)), [], written)
    await journal.close(well=True)
    step = Step(op="create", new=Cell(resource("a")))
    await journal.begin(step)
    await journal.end(step, kept=True)
    assert written.all == [" | creating a", " | creating a, creating a", "a"]


@pytest.mark.parametrize("well", [True, False])
async def test_an_old_pending_create_is_forgotten_when_the_run_that_is_to_forget_it_has_ended_well(well: bool) -> None:
    written = Written()
    journal = Journal(Snapshot(operations=(Operation(resource("a"), OperationKind.CREATING),)), [], written)
    journal.forget_creates()
    step = Step(op="create", new=Cell(resource("b")))
    await journal.begin(step)
    await journal.end(step, kept=True)
    await journal.close(well)
    assert written.all == [" | creating a, creating b", "b | creating a", "b" if well else "b | creating a"]


async def test_what_is_left_over_follows_a_renamed_resource() -> None:
    kept: list[Snapshot] = []
    old, user = Cell(resource("old")), Cell(resource("user", dependencies=(urn("old"),), parent=urn("old")))
    journal = Journal(Snapshot(), [old, user], kept.append)
    journal.rename(urn("old"), urn("new"))
    step = Step(op="same", old=old, new=Cell(resource("new", aliases=(urn("old"),))))
    await journal.end(step, kept=True)
    new, left = kept[-1].resources
    assert (new.aliases, left.dependencies, left.parent) == ((), (urn("new"),), urn("new"))


# -- order

EDGES = st.integers(1, 7).flatmap(
    lambda n: st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=12).map(lambda e: (n, e))
)


def state(n: int, edges: Sequence[tuple[int, int]]) -> list[Cell]:
    """`n` resources of which the later ones need earlier ones."""
    found = []
    for i in range(n):
        wanted = tuple(sorted({urn(str(min(a, b))) for a, b in edges if a != b and max(a, b) == i}))
        found.append(Cell(resource(str(i), dependencies=wanted)))
    return found


@given(EDGES, st.sets(st.integers(0, 6)))
def test_each_is_deleted_after_those_that_need_it(given_edges: Any, failing: set[int]) -> None:
    cells = state(*given_edges)
    gone: list[str] = []

    async def do(steps: Sequence[Step]) -> bool:
        await asyncio.sleep(0)
        if int(steps[0].cell.state.name) in failing:
            return False
        gone.append(steps[0].urn)
        return True

    asyncio.run(removal.carry_out([Step(op="delete", old=c) for c in cells], cells, do))
    for cell in cells:
        needing = [c for c in cells if cell.urn in needs(c.state)]
        if cell.urn in gone:
            assert all(c.urn in gone and gone.index(c.urn) < gone.index(cell.urn) for c in needing)
        else:
            assert int(cell.state.name) in failing or any(c.urn not in gone for c in needing)


@given(EDGES, st.sets(st.integers(0, 6)))
def test_a_refresh_leaves_nothing_that_refers_to_what_is_gone(given_edges: Any, gone: set[int]) -> None:
    cells = state(*given_edges)
    found = {cell: None if int(cell.state.name) in gone else Cell(cell.state) for cell in cells}
    kept = removal.rebuilt(cells, found)
    present: set[str] = set()
    for cell in kept:
        assert needs(cell.state) <= present
        present.add(cell.urn)
    assert len(kept) == len(cells) - len([c for c in cells if int(c.state.name) in gone])


def test_children_of_a_parent_that_is_gone_go_to_its_parent() -> None:
    cells = [Cell(resource("a")), Cell(resource("b", parent=urn("a"))), Cell(resource("c", parent=urn("b")))]
    kept = removal.rebuilt(cells, {cells[1]: None})
    assert [c.state.parent for c in kept] == ["", urn("a")]


def test_needing_a_component_means_its_children() -> None:
    box = Cell(resource("box", custom=False))
    child = Cell(resource("child", parent=urn("box")))
    sibling = Cell(resource("sibling", parent=urn("box")))
    user = Cell(resource("user", dependencies=(urn("box"),)))
    found = graph.dependencies([box, child, sibling, user])
    assert found[user] == {box, child, sibling}
    assert found[sibling] == {box}


@pytest.mark.parametrize("children", [True, False])
def test_dependents_reach_through_others(children: bool) -> None:
    a, b = Cell(resource("a")), Cell(resource("b", provider=f"{urn('a')}::id"))
    c, d = Cell(resource("c", property_dependencies={"x": (urn("b"),)})), Cell(resource("d", parent=urn("a")))
    expected = [b, c, d] if children else [b, c]
    assert graph.dependents(a, [a, b, c, d], children=children) == expected
    assert graph.dependents(a, [a, b, c, d], ignored=[urn("b")]) == []
