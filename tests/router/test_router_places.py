"""An endpoint for which there is no queue holds no other one up."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aks_inference_runtime.router import fleet
from aks_inference_runtime.router.model import RouterState, VersionKey
from aks_inference_runtime.router.peers import OWNER_LAYOUT
from aks_inference_runtime.router.places import Places
from aks_inference_runtime.router.slots import MAX_PROCESSES, Slot, assign, layout_for

Make = Callable[..., RouterState]


def together(**states: RouterState) -> RouterState:
    """Each one's `svc`, under these names."""
    return RouterState({name: replace(state.endpoints["svc"], name=name) for name, state in states.items()})


async def test_an_endpoint_without_a_queue_holds_nobody_up(
    bed: Any, make_state: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "MAX_PROCESSES", 1)
    replicas = [await bed.replica() for _ in range(3)]
    # No process is prepared for such a time, and there can be no further one.
    usual, odd, later = (make_state({"A": (10_000, [replica])}) for replica in replicas)
    odd = make_state({"A": (10_000, [replicas[1]])}, max_request_wait_time=4_321)
    router = await bed.router()
    await router.apply(together(usual=usual, odd=odd))
    assert (await bed.ask("usual")).status == 200
    assert (await bed.ask("odd")).status == 404
    assert set(router.unserved) == set(router.problems()) == {"odd"}
    assert "no queue can be had" in router.problems()["odd"]
    # Others come and go meanwhile.
    await router.apply(together(odd=odd, later=later))
    assert [(await bed.ask(name)).status for name in ("usual", "later")] == [404, 200]
    # One that is served already goes on with the queue that it has.
    await router.apply(together(odd=odd, later=make_state({"A": (10_000, [replicas[2]])}, max_request_wait_time=4_321)))
    assert (await bed.ask("later")).status == 200
    assert set(router.problems()) == {"odd", "later"}
    # As soon as there is room it is served, whether or not anything is declared.
    monkeypatch.setattr(fleet, "MAX_PROCESSES", MAX_PROCESSES)

    async def served() -> bool:
        return not router.problems() and (await bed.ask("odd")).status == 200

    await bed.until(served)
    assert (await bed.ask("later")).status == 200


def test_a_version_without_a_queue_leaves_its_share_to_another_one(make_state: Make) -> None:
    places: Any = Places.__new__(Places)
    places.problems = {"svc": "version B: why"}
    state = make_state({"A": (7_000, []), "B": (2_000, []), "C": (1_000, [])})
    slots = {VersionKey("svc", name): Slot(0, number) for number, name in enumerate("AC")}
    (endpoint,) = places.served(state, slots).endpoints.values()
    assert {version.name: version.traffic for version in endpoint.versions} == {"A": 9_000, "C": 1_000}
    assert places.served(state, {}).endpoints == {}


def test_few_processes_do_for_many_versions_that_are_made_one_by_one() -> None:
    layouts = {1: OWNER_LAYOUT}
    slots: dict[VersionKey, Slot] = {}
    for number in range(1_000):
        wanted = dict.fromkeys((*slots, VersionKey(f"svc-{number}", "A")), 500)
        found = assign(wanted, slots, layouts, ())
        if found.missing:
            layouts[max(layouts) + 1] = layout_for(found.missing, [one for n, one in layouts.items() if n > 1])
            found = assign(wanted, slots, layouts, ())
        slots = dict(found.slots)
        assert not found.missing
    assert max(layouts) < MAX_PROCESSES / 2
