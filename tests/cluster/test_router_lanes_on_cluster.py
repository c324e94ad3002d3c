"""Router pods with several lanes, as processes here, with a real API server: cores up and down under load, kills."""

import asyncio
import json
import os
import signal
from collections import Counter

import aiohttp
import psutil
import pytest

from aks_inference_runtime.router.ownership import owner_of
from testbed.routers import KEY, Bed, Load, most, served

pytestmark = pytest.mark.long
PODS = {"router-0": "127.0.0.2", "router-1": "127.0.0.3"}
LANES = ("router-0", "router-0/1", "router-1")


@pytest.fixture(name="owned")
def owned_endpoints(bed: Bed) -> dict[str, str]:
    """By router: an endpoint that it owns while there are these lanes; two replicas of one request at once each."""
    bed.tell(routerMaxCores=8)
    found: dict[str, str] = {}
    for number in range(500):
        name = f"svc-{bed.namespace[-4:]}-{number}"
        # Each lane's comes from the pod's first one and goes back there.
        if (owner := str(owner_of(name, LANES))) not in found and owner_of(name, PODS) == owner.partition("/")[0]:
            found[owner] = name
    assert set(found) == set(LANES)
    for name in found.values():
        bed.endpoint(name, requests={"maxRequestWaitTime": 5_000})
        for number in range(2):
            bed.replica(name, number, sleep_ms=10)
    return found


async def metric(session: aiohttp.ClientSession, bed: Bed, pod: str, name: str) -> int:
    async with session.get(f"http://{bed.addresses[pod]}:{bed.agent_port}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(int(line.split()[-1]) for line in lines if line.startswith(f"aks_inference_{name} "))


async def has(session: aiohttp.ClientSession, bed: Bed, lanes: int, **owned: int) -> None:
    """Waits until router-0 has so many lanes, and pods own so many endpoints."""
    async with asyncio.timeout(40):
        while True:
            now = [await metric(session, bed, pod, "owned_endpoints") for pod in PODS]
            if (await metric(session, bed, "router-0", "router_lanes"), now) == (lanes, list(owned.values())):
                return
            await asyncio.sleep(0.05)


async def of_a_service(bed: Bed, endpoint: str, answers: Counter[int]) -> None:
    """A client with a new connection for each request."""
    timeout, headers = aiohttp.ClientTimeout(20), {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=timeout) as session:
        while True:
            try:
                async with session.post(bed.url("router-0", endpoint), data=b"{}", headers=headers) as answer:
                    await answer.read()
                    answers[answer.status] += 1
            except aiohttp.ClientError:
                answers[0] += 1
            await asyncio.sleep(0.01)


async def test_cores_up_and_down_under_load_fail_no_request(
    bed: Bed, session: aiohttp.ClientSession, owned: dict[str, str]
) -> None:
    for name, address in PODS.items():
        bed.router(name, address, "250m")
    await bed.ready(session)
    for endpoint in owned.values():
        await served(session, bed.url("router-1", endpoint))
    # Clients that keep their connections, to the other pod and to this one, and some that come again and again.
    loads = [Load(session, bed.url(pod, endpoint), 3) for endpoint in owned.values() for pod in PODS]
    answers: Counter[int] = Counter()
    clients = [asyncio.create_task(of_a_service(bed, endpoint, answers)) for endpoint in owned.values()]
    try:
        await has(session, bed, 1, zero=2, one=1)
        for cores, lanes in (("4", 2), ("8", 4), ("250m", 1), ("4", 2), ("2", 1)):
            bed.resized("router-0", cores)
            async with asyncio.timeout(60):
                while await metric(session, bed, "router-0", "router_lanes") != lanes:
                    await asyncio.sleep(0.05)
            if lanes < 4:
                await has(session, bed, lanes, zero=2, one=1)
            for load in loads:
                await load.serves(20)
        for load in loads:
            await load.end()
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    for load in loads:
        assert set(load.answers) == {200}, (load.answers, load.failures)
        assert load.slowest < 15, "held for ever"
    assert set(answers) == {200}, answers
    for port in bed.stubs:
        assert await most(session, port) == 1
    # A lane that has left is gone with its processes.
    assert len(bed.haproxy_pids("router-0")) == 2


async def test_a_lane_stays_while_a_router_that_hangs_may_send_to_it(
    bed: Bed, session: aiohttp.ClientSession, owned: dict[str, str]
) -> None:
    for name, address in PODS.items():
        bed.router(name, address, "4" if name == "router-0" else "2")
    await bed.ready(session)
    await has(session, bed, 2, zero=2, one=1)
    url = bed.url("router-1", owned["router-0/1"])
    await served(session, url)
    load = Load(session, url, 3)
    await load.serves(20)
    hung = bed.routers["router-1"].process
    hung.send_signal(signal.SIGSTOP)
    try:
        bed.resized("router-0", "250m")
        async with asyncio.timeout(20):
            while await metric(session, bed, "router-0", "owned_endpoints") != len(LANES):
                await asyncio.sleep(0.05)
        # Longer than what is late by chance.
        for _ in range(4):
            await load.serves(200)
        assert await metric(session, bed, "router-0", "router_lanes") == 2
    finally:
        hung.send_signal(signal.SIGCONT)
    await has(session, bed, 1, zero=2, one=1)
    await load.serves(20)
    await load.end()
    assert set(load.answers) == {200}, (load.answers, load.failures)
    for port in bed.stubs:
        assert await most(session, port) <= 1


async def test_a_lane_that_dies_takes_no_other_one_with_it(
    bed: Bed, session: aiohttp.ClientSession, owned: dict[str, str]
) -> None:
    for name, address in PODS.items():
        bed.router(name, address, "4" if name == "router-0" else "2")
    await bed.ready(session)
    await has(session, bed, 2, zero=2, one=1)
    for endpoint in owned.values():
        await served(session, bed.url("router-1", endpoint))
    loads = {lane: Load(session, bed.url("router-1", endpoint), 3) for lane, endpoint in owned.items()}
    first = {name: pid(bed, "router", name) for name in ("p0", "p1")}
    for process in ("p1", "p0", "p1"):
        for load in loads.values():
            await load.serves(20)
        killed = pid(bed, "router-1", process)
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(20):
            while pid(bed, "router-1", process) == killed:
                await asyncio.sleep(0.01)
    for load in loads.values():
        await load.serves(20)
        await load.end()
        # What was under way when its process died is sent again.
        assert set(load.answers) == {200}, (load.answers, load.failures)
        assert load.slowest < 15, "held for ever"
    assert {name: pid(bed, "router", name) for name in first} == first
    await has(session, bed, 2, zero=2, one=1)
    for port in bed.stubs:
        assert await most(session, port) == 1
    # The pod that ends ends all of them.
    pids = bed.haproxy_pids("router-0")
    assert len(pids) == 4
    bed.routers["router-0"].process.terminate()
    assert await asyncio.to_thread(bed.routers["router-0"].process.wait, 30) == 0
    assert not any(psutil.pid_exists(one) for one in pids)
    async with asyncio.timeout(40):
        while await metric(session, bed, "router-1", "owned_endpoints") != len(LANES):
            await asyncio.sleep(0.05)
    for endpoint in owned.values():
        await served(session, bed.url("router-1", endpoint))


def pid(bed: Bed, folder: str, process: str) -> int:
    return int(json.loads((bed.folder / "router-0" / folder / f"{process}.json").read_bytes())["pid"])
