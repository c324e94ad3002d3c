"""How many requests each slot may have at each replica now. Pure.

A replica's own limit, less what runs there and is no more known to HAProxy (orphans), less what another slot still has
there. Zero means drain: HAProxy takes `maxconn 0` for unlimited.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aks_inference_runtime.router.slots import Slot


@dataclass(frozen=True)
class ReplicaView:
    """A replica as it can be used now."""

    usable: bool
    """Ready as declared, and its gate is heard."""
    limit: int
    orphans: int


@dataclass(frozen=True)
class SlotView:
    """A slot as HAProxy shows it."""

    slot: Slot
    queued: int
    current: Mapping[str, int]
    """Requests of this slot at each replica that is a server of it."""


def serving(slots: Sequence[SlotView]) -> Slot:
    """Which of a version's slots its replicas serve: the oldest in which requests wait, else the newest (the last)."""
    return next((view.slot for view in slots if view.queued), slots[-1].slot)


def caps(replica_id: str, replica: ReplicaView, slots: Sequence[SlotView]) -> dict[Slot, int]:
    """Slot → cap of this replica; 0 is drain. Slots of one version, oldest first."""
    now = serving(slots)
    result: dict[Slot, int] = {}
    for view in slots:
        elsewhere = sum(other.current.get(replica_id, 0) for other in slots if other.slot != view.slot)
        free = replica.limit - replica.orphans - elsewhere
        result[view.slot] = max(0, free) if replica.usable and view.slot == now else 0
    return result
