"""Resources in a run: a cell holds the current version of one resource, and a step is what is to be done with cells."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from embedded_engine import events
from embedded_engine.events import PropertyDiff, StepMetadata
from embedded_engine.model import Resource, urn_type

PROVIDER_PREFIX = "pulumi:providers:"


class Cell:
    """One resource of the state, old or new. Its versions are immutable; the cell is what they have in common."""

    __slots__ = ("state",)

    def __init__(self, state: Resource) -> None:
        self.state = state

    def set(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of Resource
        self.state = dataclasses.replace(self.state, **changes)

    @property
    def urn(self) -> str:
        return self.state.urn

    def __repr__(self) -> str:
        return f"Cell({self.state.urn})"


@dataclasses.dataclass(eq=False, kw_only=True)
class Step:
    """One thing to do. `old` is what is there, `new` what is to be.

    `pending_delete`: a create that leaves the old one marked for deletion. `pending_replacement`: a delete whose
    resource stays in the state until its replacement is there. `skipped_create`: a resource outside of the targets
    that is not made. `untargeted`: an old resource that is carried over as it is. `internal`: not told. `result_op`
    is what a refresh turned out to be, `deleted` that the resource is gone.
    """

    op: str
    old: Cell | None = None
    new: Cell | None = None
    keys: Sequence[str] = ()
    diffs: Sequence[str] = ()
    detailed: Mapping[str, PropertyDiff] | None = None
    logical: bool = True
    pending_delete: bool = False
    pending_replacement: bool = False
    ignore_changes: Sequence[str] = ()
    skipped_create: bool = False
    untargeted: bool = False
    internal: bool = False
    result_op: str = ""
    deleted: bool = False
    registered: bool = False

    @property
    def cell(self) -> Cell:
        cell = self.new or self.old
        assert cell is not None  # noqa: S101 - a step has at least one of the two
        return cell

    @property
    def urn(self) -> str:
        return self.cell.urn

    @property
    def told(self) -> bool:
        return not self.internal and not events.is_default_provider(self.cell.state)

    def metadata(self, op: str = "") -> StepMetadata:
        state = self.cell.state
        return StepMetadata(
            op=op or self.op,
            urn=state.urn,
            type=state.type,
            old=self.old.state if self.old else None,
            new=self.new.state if self.new and not self.deleted else None,
            provider=state.provider,
            keys=self.keys,
            diffs=self.diffs,
            detailed_diff=self.detailed,
            logical=self.logical,
        )


def is_provider(kind: str) -> bool:
    return kind.startswith(PROVIDER_PREFIX)


def split_reference(reference: str) -> tuple[str, str]:
    """(urn, id) of `<urn>::<id>`."""
    urn, _, identity = reference.rpartition("::")
    return urn, identity


def qualified_type(urn: str) -> str:
    """The type with those of its parents, joined by `$`."""
    parts = urn.split("::", 3)
    return parts[2] if len(parts) == 4 else ""


def make_urn(stack: str, project: str, parent: str, kind: str, name: str) -> str:
    """A parent's types stand before the resource's own; the stack's do not count."""
    above = qualified_type(parent) if parent else ""
    qualified = kind if not above or above == events.STACK_TYPE else f"{above}${kind}"
    return f"urn:pulumi:{stack}::{project}::{qualified}::{name}"


def needs(state: Resource, parent: bool = True) -> set[str]:
    """The URNs that a resource needs: its provider, dependencies, what it is deleted or replaced with, its parent."""
    found = set(state.dependencies)
    for urns in state.property_dependencies.values():
        found.update(urns)
    found.update(state.replace_with)
    if state.provider:
        found.add(split_reference(state.provider)[0])
    if state.deleted_with:
        found.add(state.deleted_with)
    if parent and state.parent:
        found.add(state.parent)
    return found


def package_of(kind: str) -> str:
    """`rec` of `rec:index:Item`; of a provider's type, the package that it provides."""
    return kind.removeprefix(PROVIDER_PREFIX) if is_provider(kind) else kind.partition(":")[0]


def package_of_urn(urn: str) -> str:
    return package_of(urn_type(urn))
