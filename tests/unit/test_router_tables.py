"""The first process's table is made anew for what has changed, and is what it would be as a whole."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.router import routes
from aks_inference_runtime.router.model import EndpointRoute, ReplicaTarget, RouterState, VersionKey, VersionRoute
from aks_inference_runtime.router.slots import Slot

NAMES = ("a", "b", "c")
BLUE, GREEN = VersionRoute("blue", 9_000, Requests()), VersionRoute("green", 1_000, Requests())


def endpoint(name: str, *, kind: int) -> EndpointRoute:
    """One of some that a name may stand for."""
    made = EndpointRoute(name, AuthMode.KEY, frozenset({"ab" * 32}), (BLUE, GREEN))
    others: list[dict[str, Any]] = [
        {},
        {"versions": (replace(BLUE, traffic=10_000),)},
        {"versions": (replace(BLUE, replicas=(ReplicaTarget("r", "", 1, None),)), GREEN)},
        {"key_digests": frozenset({"cd" * 32})},
        {"owner": "other"},
        {"cors_origins": ("https://page",), "grpc": True},
    ]
    return replace(made, **others[kind])


POOL = {(name, kind): endpoint(name, kind=kind) for name in NAMES for kind in range(6)}
states = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5)).map(
    lambda chosen: RouterState({name: POOL[name, kind] for name, kind in chosen.items()})
)


@given(st.lists(st.tuples(states, st.integers(0, 1), st.integers(1, 2)), max_size=8))
def test_a_table_with_a_memory_is_as_one_without(steps: list[tuple[RouterState, int, int]]) -> None:
    made: routes.Made = {}
    for state, process, number in steps:
        slots = {VersionKey(name, v): Slot(process, n) for n, name in enumerate(NAMES) for v in ("blue", "green")}
        routes.check(state, made)
        found = routes.table(state, slots, {"other": number}, made)
        assert found == routes.table(state, slots, {"other": number})
        assert made.keys() == state.endpoints.keys()


def test_what_was_served_under_a_name_is_no_word_for_another_one() -> None:
    made: routes.Made = {}
    slots = {VersionKey("a", "blue"): Slot(0, 0), VersionKey("a", "green"): Slot(0, 1)}
    routes.table(RouterState({"a": POOL["a", 0]}), slots, {}, made)
    with pytest.raises(InvalidInput):
        routes.check(RouterState({"a": replace(POOL["a", 0], versions=(BLUE,))}), made)
