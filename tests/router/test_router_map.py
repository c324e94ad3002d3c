"""HAProxy's map of routes after each change: what is declared and nothing else, without being told as a whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.router import admin, routes
from aks_inference_runtime.router.model import EndpointRoute, RouterState, VersionKey, VersionRoute
from aks_inference_runtime.router.peers import KNOWN


def endpoint(name: str, *shares: int, digests: tuple[str, ...] = ("ab",)) -> EndpointRoute:
    versions = tuple(VersionRoute(f"v{number}", share, Requests()) for number, share in enumerate(shares))
    return EndpointRoute(name, AuthMode.KEY, frozenset(digest * 32 for digest in digests), versions)


async def test_the_map_follows_what_is_declared(bed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[Path] = []
    replace_map = admin.AdminSocket.replace_map

    async def replaced(self: admin.AdminSocket, name: Path, entries: Any) -> None:
        whole.append(name)
        await replace_map(self, name, entries)

    monkeypatch.setattr(admin.AdminSocket, "replace_map", replaced)
    router = await bed.router()
    one, two = endpoint("one", 10_000), endpoint("two", 9_000, 1_000)
    rotated = replace(two, key_digests=frozenset({"ab" * 32, "cd" * 32}))
    shared = endpoint("two", 2_500, 2_500, 5_000, digests=("cd",))
    for state in ([one], [one, two], [one, rotated], [one, shared], [two], [two, one], []):
        await router.apply(RouterState({e.name: e for e in state}))
        slots = {key: version.slots[-1] for key, version in router._versions.items()}
        expected = {KNOWN: "1"}
        for declared in state:
            assert all(VersionKey(declared.name, v.name) in slots for v in declared.versions)
            expected |= routes.entries(declared, routes.routes_of(declared, slots))
        path = router._paths.routes("p0")
        assert await router._fleet.first().show_map(path) == expected
        assert path.read_text() == "".join(f"{key} {value}\n" for key, value in expected.items())
    assert len(whole) == 1, "the first time only"


async def test_many_changes_go_as_a_whole(bed: Any) -> None:
    router = await bed.router()
    many = [endpoint(f"e{number}", 10_000) for number in range(30)]
    for state in (many, many[:2]):
        await router.apply(RouterState({e.name: e for e in state}))
        found = await router._fleet.first().show_map(router._paths.routes("p0"))
        assert {key for key in found if routes.is_head(key)} == {
            f"/api/v1/service/{e.name}/{file}" for e in state for file in ("score", "swagger.json")
        }
