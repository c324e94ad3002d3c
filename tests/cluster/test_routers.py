"""Router pods as processes of this machine, a real API server: discovery, one owner, its loss, its departure."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from aks_inference_runtime.api.kubernetes import ROUTER_NAME
from aks_inference_runtime.kubernetes.agent import NOTICE_S
from aks_inference_runtime.router.defaults import SILENT_SECONDS
from aks_inference_runtime.router.ownership import owner_of
from testbed.accounts import DENIED, take_back, with_rights_of
from testbed.routers import KEY, Bed, Load, ask, most, served

TABLE = Path("/proc/net/tcp")
OPEN, KEEPALIVE = "01", "02"
TICKS = 100
"""Of its timers, in a second."""


async def test_every_router_serves_and_one_owns(bed: Bed, session: aiohttp.ClientSession) -> None:
    names = [f"svc-{bed.namespace[-4:]}-{letter}" for letter in "ab"]
    for name in names:
        bed.endpoint(name)
        bed.replica(name, 0)
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    for router in bed.routers:
        for name in names:
            await served(session, bed.url(router, name))
            assert await ask(session, bed.url(router, name), key="wrong") == 401
    owners = set()
    for router, address in bed.addresses.items():
        async with session.get(f"http://{address}:{bed.agent_port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        owners |= {(name, router) for name in names for line in lines if f'_busy{{endpoint="{name}"' in line}
    assert owners == {(name, owner_of(name, bed.routers)) for name in names}


async def test_the_owner_is_lost(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    await served(session, bed.url("router-0", name))
    load = Load(session, bed.url("router-0", name), 4)
    await load.serves()
    for pid in (bed.routers["router-1"].process.pid, *bed.haproxy_pids("router-1")):
        os.kill(pid, signal.SIGKILL)
    await load.serves()
    await load.end()
    lost = sum(count for status, count in load.answers.items() if status != 200)
    # Those that were under way at the moment: sent again where nothing of an answer was there.
    assert lost <= 2, load.answers
    assert load.slowest < 15, "held for ever"
    for port in bed.stubs:
        assert await most(session, port) == 1


async def test_the_owner_leaves_and_comes_back(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    await served(session, bed.url("router-0", name))
    load = Load(session, bed.url("router-0", name), 4)
    await load.serves()
    bed.routers["router-1"].process.terminate()
    assert await asyncio.to_thread(bed.routers["router-1"].process.wait, 20) == 0
    bed.remove_pod("router-1")
    await load.serves()
    bed.router("router-1", "127.0.0.4")
    await bed.ready(session, "router-1")
    await load.serves()
    await served(session, bed.url("router-1", name))
    await load.serves()
    await load.end()
    assert set(load.answers) == {200}, load.answers
    assert load.slowest < 15, "held for ever"
    for port in bed.stubs:
        assert await most(session, port) == 1


@pytest.mark.parametrize("routers", [1, 2], ids=["alone", "among others"])
async def test_who_still_comes_to_one_that_leaves_is_served(
    bed: Bed, session: aiohttp.ClientSession, name: str, routers: int
) -> None:
    """I4: clients hear of its end later than it does. A new connection each."""
    for number in range(2 - routers, 2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    url = bed.url("router-1", name)
    await served(session, url)
    bed.routers["router-1"].process.terminate()
    over = asyncio.get_running_loop().time() + NOTICE_S - 1
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as late:
        while asyncio.get_running_loop().time() < over:
            assert await ask(late, url) == 200
            await asyncio.sleep(0.02)
    assert await asyncio.to_thread(bed.routers["router-1"].process.wait, 30) == 0
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(session, url)


async def test_its_own_rights_are_enough(bed: Bed, session: aiohttp.ClientSession, name: str, tmp_path: Path) -> None:
    bed.cluster = with_rights_of(ROUTER_NAME, bed.cluster, bed.namespace, tmp_path)
    try:
        bed.router("router-0", "127.0.0.2")
        await bed.ready(session)
        await served(session, bed.url("router-0", name))
        assert await ask(session, bed.url("router-0", name), key="wrong") == 401
        assert DENIED not in bed.routers["router-0"].log.read_text(), bed.routers["router-0"].tail()
    finally:
        take_back(bed.cluster, bed.namespace)


@pytest.mark.skipif(not TABLE.exists(), reason="the system does not tell its timers")
async def test_a_silent_connection_is_kept(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    """While a score runs no byte goes by: what is between would forget the connections. As the system tells."""
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    url = bed.url("router-0", name)
    await served(session, url)
    slices = bed.cluster.api.get(f"/apis/discovery.k8s.io/v1/namespaces/{bed.namespace}/endpointslices").body["items"]
    gates = {port["port"] for one in slices for port in one["ports"] if port["name"] == "gate"}
    headers = {"authorization": f"Bearer {KEY}", "x-sleep-ms": "3000"}
    score = asyncio.create_task(session.post(url, data=b"{}", headers=headers))
    async with asyncio.timeout(10):
        while not {"client", "hop", "owner", "gate"} <= kept(bed, gates):
            await asyncio.sleep(0.05)
    async with await score as answer:
        assert answer.status == 200


def kept(bed: Bed, gates: set[int]) -> set[str]:
    """The kinds of connections all of which HAProxy's side asks for a sign in time."""
    found: dict[str, list[bool]] = {}
    for row in TABLE.read_text().splitlines()[1:]:
        _, local, remote, state, _, timer, *_ = row.split()
        own, other = (int(end.partition(":")[2], 16) for end in (local, remote))
        by_end = {("own", bed.http_port): "client", ("own", bed.owner_port): "owner", ("other", bed.owner_port): "hop"}
        by_end |= {("other", port): "gate" for port in gates}
        kind = by_end.get(("own", own)) or by_end.get(("other", other))
        if kind is not None and state == OPEN:
            which, _, due = timer.partition(":")
            found.setdefault(kind, []).append(which == KEEPALIVE and int(due, 16) <= SILENT_SECONDS * TICKS)
    return {kind for kind, all_of in found.items() if all(all_of)}
