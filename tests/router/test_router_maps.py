"""HAProxy's own map is what is declared, whatever changes, who changes it and what dies meanwhile."""

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from aks_inference_runtime.api.endpoint import AuthMode
from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router import HaproxyRouter, routes, served
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.maps import RouteMap
from aks_inference_runtime.router.model import EndpointRoute, RouterState, VersionKey

NAMES = [f"e{number}" for number in range(8)]
KEYS = [sha256(key.encode()).hexdigest() for key in "kl"]


async def is_as_declared(bed: Any, state: RouterState) -> None:
    file = bed.directory / "router" / "p0.routes"
    slots = {
        key: found[-1]
        for key, found in routes.slots_from_json((bed.directory / "router" / "slots.json").read_text()).items()
    }
    wanted = dict(routes.OF_ALL)
    for endpoint in state.endpoints.values():
        wanted |= routes.entries(endpoint, slots)
    assert await AdminSocket(bed.directory / "router" / "p0.admin").show_map(file) == wanted


@pytest.mark.parametrize("seed", range(4))
async def test_the_map_is_what_is_declared(bed, make_state, seed):
    draw = random.Random(seed)

    def endpoint(name: str) -> EndpointRoute:
        parts = draw.choice([{"A": 10_000}, {"A": 5_000, "B": 5_000}, {"A": 9_000, "B": 1_000}, {"A": 10_000, "B": 0}])
        waits = draw.choice([500, 1_000])
        state = make_state({v: (share, []) for v, share in parts.items()}, max_request_wait_time=waits)
        digests = frozenset(draw.sample(KEYS, draw.randint(1, 2)))
        origins = tuple(draw.sample(["https://page", "https://other:8443"], draw.randint(0, 2)))
        other = {"name": name, "auth": AuthMode.KEY, "key_digests": digests, "cors_origins": origins}
        return replace(state.endpoints["svc"], **other)

    router = await bed.router()
    served: dict[str, EndpointRoute] = {}
    for step in range(30):
        for name in draw.sample(NAMES, draw.choice([1, 1, 1, 2, len(NAMES)])):
            served.pop(name, None)
            if draw.random() < 0.7:
                served[name] = endpoint(name)
        state = RouterState(dict(served))
        if step % 10 == 4:
            await router.detach()
            router = await bed.router()
        if step % 10 == 7:
            os.kill(bed.haproxy_pid(), signal.SIGKILL)

        async def applied(router: HaproxyRouter = router, state: RouterState = state) -> bool:
            with contextlib.suppress(RuntimeUnavailable):
                await router.apply(state)
                await is_as_declared(bed, state)
                return True
            return False

        # As whoever declares does it: what failed because the process was just ending is told again.
        await bed.until(applied)


async def test_what_others_do_disturbs_nobody(bed, make_state, monkeypatch):
    """Endpoints come, change and go while one is asked; its keys rotate meanwhile. Each change is told by entries."""
    replica = await bed.replica(cap=8)
    router = await bed.router()
    mine = make_state({"A": (10_000, [replica])}, keys=("k",)).endpoints["svc"]
    await router.apply(RouterState({"svc": mine}))
    told_entries = []
    tell = RouteMap._tell

    async def told(self: RouteMap, steps: Any) -> None:
        told_entries.append(steps)
        await tell(self, steps)

    monkeypatch.setattr(RouteMap, "_tell", told)
    over = asyncio.Event()
    answers: list[int] = []

    async def client() -> None:
        while not over.is_set():
            answers.append((await bed.ask(key="k")).status)

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for number in range(20):
        other = replace(mine, name="other", versions=(replace(mine.versions[0], replicas=()),))
        both = frozenset(KEYS) if number % 2 else frozenset(KEYS[:1])
        state = RouterState({"svc": replace(mine, key_digests=both), "other": other})
        await router.apply(state)
        assert (await bed.ask("other")).reason == "auth"
        assert (await bed.ask(key="l")).status == (200 if number % 2 else 401)
        await is_as_declared(bed, state)
        await router.apply(RouterState({"svc": state.endpoints["svc"]}))
        assert (await bed.ask("other", key="k")).reason == "not-found"
    over.set()
    await asyncio.gather(*clients)
    assert set(answers) == {200}
    assert len(told_entries) == 40
    assert len(answers) > 40


async def test_what_failed_half_way_has_its_servers_once_it_is_told_again(bed, make_state, monkeypatch):
    """Also among many, of which only those that have changed are looked at."""
    monkeypatch.setattr(served, "MANY", 0)
    replica = await bed.replica(cap=1)
    router = await bed.router()
    reconcile = router._reconcile
    asked = []

    async def fails(only: Any = None) -> None:
        asked.append(only)
        if only is not None and len(asked) == 1:
            raise OperationFailed("not now")
        await reconcile(only)

    state = make_state({"A": (10_000, [replica])})
    # Nobody else's rounds mend it meanwhile.
    async with router._lock:
        monkeypatch.setattr(router, "_reconcile", fails)
        with pytest.raises(OperationFailed):
            await router._declare(state)
        await router._declare(state)
    assert asked[1] == [VersionKey("svc", "A")]
    await router.apply(state)
    assert (await bed.ask()).status == 200
