"""What the router shares out and still has: I6, its load, requests of a replica or a version that leaves."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from aks_inference_runtime.router.model import RouterState, VersionKey


async def test_drained(bed, make_state):
    replica, other = [await bed.replica("A") for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    running = asyncio.create_task(bed.ask(x_sleep_ms="2000"))
    await bed.counts(router, busy=1)
    await router.apply(make_state({"A": (10_000, [replica.target(ready=False), other])}))
    assert not await router.drained(replica.id, 0.1)
    assert (await bed.ask()).status == 200
    assert (await other.stats())["served"] == 1
    assert await router.drained(replica.id, 5)
    assert running.done() or (await running).status == 200
    assert (await replica.status()).running == 0


async def test_a_withdrawn_version_serves_who_waits(bed, make_state):
    replica = await bed.replica("A", sleep_ms=300)
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000))
    waiting = [asyncio.create_task(bed.ask()) for _ in range(5)]
    await bed.counts(router, busy=1, queued=4)
    await router.apply(RouterState())
    assert (await bed.ask()).status == 404
    assert await router.drained(replica.id, 5)
    assert {a.status for a in await asyncio.gather(*waiting)} == {200}


@pytest.mark.parametrize("shares", [pytest.param((9_000, 1_000), marks=pytest.mark.long), (3_333, 6_667), (10_000, 0)])
async def test_shares(bed, make_state, shares):
    """Which bucket each version has is exact (`test_buckets`); that HAProxy draws them evenly is seen here.

    Five standard deviations: outside by chance less than once in 10^6 runs.
    """
    a, b = await bed.replica("A", cap=64), await bed.replica("B", cap=64)
    router = await bed.router()
    await router.apply(make_state({"A": (shares[0], [a]), "B": (shares[1], [b])}, replica_max_concurrent_requests=64))
    count = 3_000 if shares[1] else 600

    async def client() -> list[str]:
        return [(await bed.ask(method="GET", data=None)).version for _ in range(count // 20)]

    versions = Counter(v for part in await asyncio.gather(*(client() for _ in range(20))) for v in part)
    share = shares[0] / 10_000
    bound = 5 * math.sqrt(count * share * (1 - share)) + 0.5
    assert abs(versions["A"] - count * share) <= bound, versions
    assert sum(versions.values()) == count


@pytest.mark.parametrize(("later", "answers"), [((5_000, 5_000), {(200, None)}), (None, {(404, "not-found")})])
async def test_shares_change_while_bodies_come(bed, make_state, later, answers):
    """A request that came under a hundred buckets is shared out by the two that there are when it is whole."""
    a, b = await bed.replica("A", cap=64), await bed.replica("B", cap=64)
    router = await bed.router()

    def state(shares: tuple[int, int]) -> RouterState:
        return make_state({"A": (shares[0], [a]), "B": (shares[1], [b])}, replica_max_concurrent_requests=64)

    await router.apply(state((9_900, 100)))
    begun, whole = asyncio.Semaphore(0), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        begun.release()
        await whole.wait()
        yield b"}"

    asked = [asyncio.create_task(bed.ask(data=body())) for _ in range(40)]
    for _ in asked:
        await begun.acquire()
    assert (await bed.ask()).status == 200  # all that came before it has been looked at
    await router.apply(state(later) if later else RouterState())
    whole.set()
    assert {(one.status, one.reason) for one in await asyncio.gather(*asked)} == answers


async def test_rejections_and_requests_are_counted(bed, make_state):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, max_queued_requests=1, max_request_wait_time=2_000))
    key = VersionKey("svc", "A")
    running = asyncio.create_task(bed.ask(x_sleep_ms="4000"))
    await bed.counts(router, busy=1)
    waits = asyncio.create_task(bed.ask())
    await bed.counts(router, busy=1, queued=1)
    assert (await bed.ask()).reason == "queue-full"
    assert (await waits).reason == "queue-timeout"
    assert (await running).status == 200

    async def counted() -> bool:
        load = router.load()[key]
        return (load.busy, load.queued, load.requests_total, load.rejected_total) == (0, 0, 3, 2)

    await bed.until(counted)
