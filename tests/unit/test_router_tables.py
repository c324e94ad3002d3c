"""The maps that HAProxy decides by change entry by entry where that is safe, and become what a whole one would be."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.api.errors import InvalidInput, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router import deltas, routes
from aks_inference_runtime.router.deltas import Changes, delta
from aks_inference_runtime.router.maps import RouteMap
from aks_inference_runtime.router.model import EndpointRoute, ReplicaTarget, VersionKey, VersionRoute
from aks_inference_runtime.router.slots import Slot

NAMES = ("a", "b", "c")
BLUE, GREEN = VersionRoute("blue", 9_000, Requests()), VersionRoute("green", 1_000, Requests())
KEYS = frozenset({"ab" * 32})


def endpoint(name: str, **other: Any) -> EndpointRoute:
    return replace(EndpointRoute(name, AuthMode.KEY, KEYS, (BLUE, GREEN)), **other)


KINDS: list[dict[str, Any]] = [
    {},
    {"versions": (replace(BLUE, traffic=10_000),)},
    {"versions": (replace(BLUE, traffic=8_000), replace(GREEN, traffic=2_000))},
    {"versions": (replace(BLUE, traffic=1_000), replace(GREEN, traffic=9_000))},
    {"versions": (replace(BLUE, traffic=10_000), replace(GREEN, traffic=0))},
    {"versions": (replace(BLUE, replicas=(ReplicaTarget("r", "", 1, None),)), GREEN)},
    {"key_digests": frozenset({"cd" * 32})},
    {"key_digests": frozenset({"ab" * 32, "cd" * 32})},
    {"auth": AuthMode.NONE, "key_digests": frozenset()},
    {"owner": "other"},
    {"cors_origins": ("https://page",), "grpc": True},
    {"cors_origins": ("https://page", "https://other")},
    {"version_header_enabled": False},
]
POOL = {(name, kind): endpoint(name, **KINDS[kind]) for name in NAMES for kind in range(len(KINDS))}
states = st.dictionaries(st.sampled_from(NAMES), st.integers(0, len(KINDS) - 1)).map(
    lambda chosen: {name: POOL[name, kind] for name, kind in chosen.items()}
)
TABLES = [routes.entries(POOL["a", kind], {VersionKey("a", v): Slot(1, n) for n, v in enumerate(("blue", "green"))},
                         {"other": 1}) for kind in range(len(KINDS))]  # fmt: skip


class Haproxy:
    """A map, and who looks into it between any two commands."""

    def __init__(self) -> None:
        self.map: dict[str, str] = {}
        self.next: dict[str, str] = {}
        self.shown: list[dict[str, str]] = []
        self.replaced = 0
        self.fails: type[Exception] | None = None
        self.left = 0
        """Commands until it fails."""

    def _show(self) -> None:
        if self.fails is not None and self.left == 0:
            raise self.fails("not now")
        self.left -= 1
        self.shown.append(dict(self.map))

    async def show_map(self, _: Path) -> dict[str, str]:
        return dict(self.map)

    async def replace_map(self, _: Path, entries: Mapping[str, str]) -> None:
        self._show()
        self.map, self.replaced = dict(entries), self.replaced + 1
        self.shown.append(dict(self.map))

    async def add_to_map(self, _: Path, entries: Mapping[str, str]) -> None:
        for key, value in entries.items():
            self._show()
            assert key not in self.map
            self.map[key] = value
        self.shown.append(dict(self.map))

    async def must(self, commands: Iterable[str]) -> None:
        for command in commands:
            self._show()
            what, _, name, key, *value = command.split(" ")
            assert key in self.map
            assert name.endswith("routes")
            if what == "del":
                del self.map[key]
            else:
                (self.map[key],) = value
        self.shown.append(dict(self.map))


def made(haproxy: Haproxy, *, dead: bool = False) -> RouteMap:
    admin: Any = haproxy
    return RouteMap(Path("routes"), lambda: admin, lambda: dead)


def whole(state: Mapping[str, EndpointRoute], slots: Mapping[VersionKey, Slot], number: int) -> dict[str, str]:
    parts = [routes.entries(one, slots, {"other": number}) for one in state.values()]
    return {key: value for part in parts for key, value in part.items()}


steps = st.lists(
    st.tuples(states, st.integers(0, 1), st.integers(1, 2), st.one_of(st.none(), st.integers(0, 12))), max_size=8
)


@given(steps)
def test_any_changes_come_to_the_same_map_as_a_whole_one(
    told: list[tuple[dict[str, EndpointRoute], int, int, int | None]],
) -> None:
    async def run() -> None:
        haproxy, changes = Haproxy(), Changes[EndpointRoute]()
        one, before = made(haproxy), (-1, -1)
        for state, process, number, fails in told:
            slots = {VersionKey(name, v): Slot(process, n) for n, name in enumerate(NAMES) for v in ("blue", "green")}
            again = set(NAMES) if (process, number) != before else set[str]()
            before = process, number
            for left in (fails, None):
                names = changes.take(state) | again
                haproxy.fails, haproxy.left = (None if left is None else OperationFailed), left or 0
                parts = {n: routes.entries(state[n], slots, {"other": number}) if n in state else {} for n in names}
                try:
                    await one.declare(parts)
                except OperationFailed:
                    continue
                changes.done()
                break
            assert haproxy.map == whole(state, slots, number)

    asyncio.run(run())


def admitted(table: Mapping[str, str], path: str, digest: str) -> bool | None:
    """Whether a key is good; None: there is no such path."""
    meta = table.get(path)
    return None if meta is None else not meta.endswith("|key") or f"{digest}#{meta}" in table


def drawn(table: Mapping[str, str], path: str) -> list[list[str]]:
    """Backend and version of whoever draws, for each number that may be drawn."""
    count = int(table.get(path, "0").split("|")[0])
    routes = [table[f"{path}?{number * count // 100}"].split("|") for number in range(100)] if count else []
    assert all(f"{path}?@{route[4]}" in table for route in routes)
    return [[route[0], route[4]] for route in routes]


@pytest.mark.parametrize("after", range(-1, len(KINDS)))
@pytest.mark.parametrize("before", range(-1, len(KINDS)))
async def test_who_asks_meanwhile_gets_what_was_or_what_will_be(before: int, after: int) -> None:
    old, new = ({} if kind < 0 else TABLES[kind] for kind in (before, after))
    haproxy = Haproxy()
    one = made(haproxy)
    await one.declare({"a": old})
    haproxy.shown.clear()
    await one.declare({"a": new})
    for path in ("/api/v1/service/a/score", "/api/v1/service/a/swagger.json"):
        for seen in haproxy.shown:
            tables = old, seen, new
            for digest in ("ab" * 32, "cd" * 32, "ef" * 32):
                was, now, will = (admitted(table, path, digest) for table in tables)
                assert now in (was, will)
            was_drawn, now_drawn, will_be_drawn = (drawn(table, path) for table in tables)
            versions = [[version for _, version in rows] for rows in (was_drawn, now_drawn, will_be_drawn)]
            assert versions[1] in (versions[0], versions[2])
            # The way to an owner may change at one bucket after the other.
            if was_drawn and will_be_drawn:
                ways = zip(was_drawn, now_drawn, will_be_drawn, strict=True)
                assert all(now in (was, will) for was, now, will in ways)


SPLITS = [kind for kind, other in enumerate(KINDS) if "versions" in other and kind != 5]


@pytest.mark.parametrize(
    ("before", "after", "by_entries"),
    [
        (0, 5, True),
        (0, 6, True),
        (0, 9, True),
        (1, 4, True),
        (0, 10, True),
        (-1, 0, True),
        (0, -1, True),
        *[(one, two, {one, two} == {1, 4}) for one in SPLITS for two in SPLITS if one != two],
    ],
)
def test_shares_of_what_is_served_change_all_at_once(before: int, after: int, by_entries: bool) -> None:
    found = delta([({} if kind < 0 else TABLES[kind] for kind in (before, after))])  # type: ignore[list-item]
    assert (found is not None) == by_entries


async def test_much_is_told_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    haproxy = Haproxy()
    one = made(haproxy)
    await one.declare({"": {"known": "1"}})
    await one.declare({"": {"known": "1"}, "a": TABLES[0]})
    assert haproxy.replaced == 1
    monkeypatch.setattr(deltas, "MOST_COMMANDS", len(TABLES[0]) - 1)
    await one.declare({"a": {}})
    assert (haproxy.replaced, haproxy.map) == (2, {"known": "1"})


async def test_what_is_as_declared_already_is_not_told(tmp_path: Path) -> None:
    haproxy: Any = Haproxy()
    haproxy.map = dict(TABLES[0])
    one = RouteMap(tmp_path / "routes", lambda: haproxy, lambda: False)
    await one.adopt()
    # A process that ends before anything was declared begins with what it had.
    one.write()
    assert (tmp_path / "routes").read_text().split("\n")[0] == " ".join(next(iter(TABLES[0].items())))
    one.started()
    assert (tmp_path / "routes").read_text() == ""
    await one.declare({"a": TABLES[0]})
    await one.declare({"a": dict(TABLES[0]), "b": {}})
    assert (haproxy.replaced, haproxy.shown) == (0, [])


@pytest.mark.parametrize("dead", [False, True])
async def test_a_process_that_is_dead_begins_with_what_is_declared(tmp_path: Path, dead: bool) -> None:
    haproxy: Any = Haproxy()
    one = RouteMap(tmp_path / "routes", lambda: haproxy, lambda: dead)
    await one.declare({"a": TABLES[0]})
    haproxy.fails, haproxy.left = RuntimeUnavailable, 0
    if dead:
        await one.declare({"a": TABLES[6]})
    else:
        with pytest.raises(RuntimeUnavailable):
            await one.declare({"a": TABLES[6]})
    one.write()
    lines = (tmp_path / "routes").read_text().splitlines()
    haproxy.map, haproxy.fails = dict(line.split(" ") for line in lines), None
    assert haproxy.map == TABLES[6]
    one.started()
    haproxy.replaced = 0
    await one.declare({"b": {"/b": "1|0||none"}})
    assert (haproxy.replaced, haproxy.map) == (0, {**TABLES[6], "/b": "1|0||none"})


def test_what_cannot_be_served_is_refused() -> None:
    for name, wrong in (("a", endpoint("a", versions=(BLUE,))), ("b", endpoint("a")), ("a b", endpoint("a b"))):
        with pytest.raises(InvalidInput):
            routes.check({name: wrong})


def test_changes_are_told_until_they_are_done() -> None:
    changes = Changes[Sequence[int]]()
    one, two = [1], [2]
    assert changes.take({"a": one, "b": two}) == {"a", "b"}
    changes.done()
    assert changes.names({"a": one, "b": two}) == set()
    assert changes.take({"a": two, "b": two}) == {"a"}
    assert changes.fresh({"a": one, "c": two}) == {"b", "c"}
    # It failed, and is as it was by then: what was half told is told again.
    assert changes.take({"a": one, "c": two}) == {"a", "b", "c"}
    changes.done()
    assert changes.names({"a": one, "c": [2]}) == {"c"}
