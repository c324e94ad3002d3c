"""How a HAProxy process shares out its connections."""

import pytest

from aks_inference_runtime.api.endpoint import MOST_QUEUED
from aks_inference_runtime.router import rooms
from aks_inference_runtime.router.peers import OWNER_LAYOUT
from aks_inference_runtime.router.slots import DEFAULT_LAYOUT, Layout


@pytest.mark.parametrize("files", [None, 2**20, 65_536, 20_000, 4_096, 1_024])
def test_whoever_waits_leaves_room(files: int | None) -> None:
    there = rooms.connections(files)
    for layout in (OWNER_LAYOUT, DEFAULT_LAYOUT):
        waiting = rooms.waiting(there, layout)
        clients = rooms.clients(there, layout)
        # Beside the places of the slots.
        assert 200 < waiting < clients < there - 2 * len(layout.timeouts_ms)
    # Of another router that passes all of them on.
    assert rooms.waiting(there, OWNER_LAYOUT) < rooms.clients(there, Layout(()))


def test_what_may_be_declared_finds_room() -> None:
    assert rooms.waiting(rooms.connections(65_536), OWNER_LAYOUT) > MOST_QUEUED
    assert rooms.connections(65_536) == rooms.connections(None)
