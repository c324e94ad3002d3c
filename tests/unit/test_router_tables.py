"""From one table of routes to another, entry by entry: a request meets what belongs together at every moment."""

from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.router import routes
from aks_inference_runtime.router.model import EndpointRoute, VersionKey, VersionRoute
from aks_inference_runtime.router.slots import Slot
from aks_inference_runtime.router.tables import MOST_ADDED, MOST_CHANGES, Difference, difference

NAMES = ("one", "two", "three")
SHARES = [(10_000,), (9_000, 1_000), (5_000, 5_000), (2_500, 2_500, 5_000)]


@st.composite
def tables(draw: st.DrawFn) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        shares = draw(st.sampled_from(SHARES))
        versions = tuple(VersionRoute(f"v{n}", share, Requests()) for n, share in enumerate(shares))
        slots = {VersionKey(name, v.name): Slot(draw(st.integers(0, 1)), n) for n, v in enumerate(versions)}
        digests = draw(st.frozensets(st.sampled_from(["ab" * 32, "cd" * 32]), min_size=1))
        settings: dict[str, Any] = {
            "grpc": draw(st.booleans()),
            "cors_origins": draw(st.sampled_from([(), ("https://a",)])),
        }
        endpoint = EndpointRoute(name, AuthMode.KEY, digests, versions, **settings)
        found |= routes.entries(endpoint, routes.routes_of(endpoint, slots))
    return found


def steps(before: Mapping[str, str], found: Difference) -> Iterator[dict[str, str]]:
    """The table after each command."""
    table = dict(before)
    for entries in (found.added, found.changed, found.heads):
        for key, value in entries.items():
            table[key] = value
            yield table
    for key in (*found.heads_gone, *found.gone):
        del table[key]
        yield table


@given(tables(), tables())
def test_each_request_finds_its_way_at_every_step(before: dict[str, str], now: dict[str, str]) -> None:
    table = before
    for table in steps(before, difference(before, now)):
        for head, meta in table.items():
            if routes.is_head(head) and head.startswith("/"):
                _, buckets, _, _ = meta.split("|")
                assert all(f"{head}:{number}" in table for number in range(int(buckets))), (head, meta)
                assert any(key.endswith(f"#{meta}") for key in table), "a good key stays one"
    assert table == now


def test_what_stays_is_not_told_again() -> None:
    table = {"known": "1", "/a/score": "none|1|1|f", "/a/score:0": "s1", "/a/score@v": "s1"}
    assert difference(table, dict(table)) == ({}, {}, {}, [], [])
    more = {**table, "/b/score": "none|1|1|f", "/b/score:0": "s2"}
    found = difference(table, more)
    assert (found.added, found.changed, found.heads) == ({"/b/score:0": "s2"}, {}, {"/b/score": "none|1|1|f"})
    assert not found.much
    back = difference(more, table)
    assert (back.heads_gone, back.gone) == (["/b/score"], ["/b/score:0"])


def test_much_goes_as_a_whole() -> None:
    paths = {f"/p{number}/score:0": "s1" for number in range(MOST_ADDED + 1)}
    assert difference({}, paths).much
    few = dict(list(paths.items())[:MOST_CHANGES])
    assert not difference(few, dict.fromkeys(few, "s2")).much
    one_more = {**few, "x": "s1"}
    assert difference(one_more, dict.fromkeys(one_more, "s2")).much
