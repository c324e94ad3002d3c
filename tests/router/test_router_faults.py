"""The invariants under load and faults: I1 caps, I2 order, I3 one answer, I4 changes fail nothing, I6 shares."""

import asyncio
import os
import signal
import socket
import struct
from collections import Counter
from pathlib import Path

import pytest

from aks_inference_runtime.router.model import RouterState, VersionKey


class Load:
    """Clients that ask one request after the other until stopped."""

    def __init__(self, bed, clients: int, **ask) -> None:
        self.answers: list = []
        self.errors: list[BaseException] = []
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._client(bed, ask)) for _ in range(clients)]

    async def _client(self, bed, ask) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(await bed.ask(**ask))
            except Exception as error:  # noqa: BLE001 - counted; the test says what is allowed
                self.errors.append(error)
                await asyncio.sleep(0.01)

    async def goes_on(self, count: int = 20) -> None:
        """Waits until so many more were answered."""
        answered = len(self.answers)
        async with asyncio.timeout(15):
            while len(self.answers) < answered + count:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    @property
    def statuses(self) -> Counter:
        return Counter((a.status, a.reason) for a in self.answers)


async def most(replicas) -> list[int]:
    return [(await replica.stats())["most"] for replica in replicas]


async def test_caps_and_order_under_load(bed, make_state):
    replicas = [await bed.replica("A", sleep_ms=150) for _ in range(3)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}, max_request_wait_time=30_000))
    tasks = []
    for number in range(40):
        tasks.append(asyncio.create_task(bed.ask(x_id=str(number))))
        await asyncio.sleep(0.03)
    answers = await asyncio.gather(*tasks)
    assert {a.status for a in answers} == {200}
    assert await most(replicas) == [1, 1, 1]
    began = sorted([(at, int(number)) for r in replicas for number, at in (await r.stats())["began"]])
    order = [number for _, number in began]
    # Sent 30 ms apart, two in three wait: only those on the way at the same moment may change places.
    assert all(abs(place - number) <= 3 for place, number in enumerate(order)), order


async def test_scoring_timeouts_do_not_free_the_slot(bed, make_state):
    """The answer is 504 after 200 ms, the replica works on for 600 ms: nothing else runs there meanwhile."""
    replicas = [await bed.replica("A", scoringTimeoutMs=200) for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}, scoring_timeout_ms=200, max_request_wait_time=10_000))
    tasks = [asyncio.create_task(bed.ask(x_sleep_ms="600" if n % 3 == 0 else "20")) for n in range(24)]
    statuses = Counter((a.status, a.reason) for a in await asyncio.gather(*tasks))
    assert statuses == {(200, None): 16, (504, "scoring-timeout"): 8}
    assert await most(replicas) == [1, 1]
    await bed.counts(router)
    assert router.load()[VersionKey("svc", "A")].ready_replicas == 2


async def test_a_free_replica_is_used_while_another_is_still_busy_with_an_orphan(bed, make_state):
    replicas = [await bed.replica("A", scoringTimeoutMs=200) for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}, scoring_timeout_ms=200))
    assert (await bed.ask(x_sleep_ms="5000")).status == 504
    answers = [await bed.ask() for _ in range(10)]
    assert {a.status for a in answers} == {200}
    # Waiting for the busy one would take nearly five seconds.
    assert max(a.seconds for a in answers) < 3


async def test_leaving_clients_under_load(bed, make_state):
    replicas = [await bed.replica("A", sleep_ms=20, cap=2) for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}, replica_max_concurrent_requests=2))
    load = Load(bed, 8)
    for number in range(60):
        leaving = socket.create_connection(("127.0.0.1", bed.port))
        streamed = b"x-stream: 20,5\r\n" if number % 3 == 0 else b""
        leaving.sendall(b"GET /api/v1/service/svc/score HTTP/1.1\r\nhost: x\r\n" + streamed + b"\r\n")
        await asyncio.sleep(0.015)
        if number % 2:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.close()
    await load.stop()
    assert set(load.statuses) == {(200, None)}
    assert not load.errors
    assert max(await most(replicas)) <= 2
    await bed.counts(router)


async def test_haproxy_killed_under_load(bed, make_state):
    replicas = [await bed.replica("A", sleep_ms=20) for _ in range(3)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}, keys=("one",), max_request_wait_time=5_000))
    load = Load(bed, 6, key="one")
    loop = asyncio.get_running_loop()
    for _ in range(3):
        await load.goes_on()
        before = bed.haproxy_pid()
        os.kill(before, signal.SIGKILL)
        began = loop.time()

        async def back(before: int = before) -> bool:
            return bed.haproxy_pid() != before

        await bed.until(back)
        # Within about a second, on a machine that has nothing else to do.
        assert loop.time() - began < 10
    await load.goes_on()
    await load.stop()
    # Only what was on its way through the killed process fails: at most one request of each client, each time
    # (and the attempts of the moment in which nobody listens).
    assert set(load.statuses) == {(200, None)}
    assert max(await most(replicas)) == 1
    assert (await bed.ask(key="two")).status == 401


async def test_a_killed_haproxy_starts_with_reduced_caps(bed, make_state):
    replica = await bed.replica("A")
    other = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica, other])}, max_request_wait_time=5_000))
    long = [asyncio.create_task(bed.ask(x_sleep_ms="1500")) for _ in range(2)]
    await bed.counts(router, busy=2)
    before = bed.haproxy_pid()
    os.kill(before, signal.SIGKILL)

    async def back() -> bool:
        return bed.haproxy_pid() != before

    await bed.until(back)
    await asyncio.gather(*long, return_exceptions=True)
    answers = await asyncio.gather(*(bed.ask(x_sleep_ms="50") for _ in range(6)))
    assert {a.status for a in answers} == {200}
    assert await most([replica, other]) == [1, 1]


async def test_the_agent_restarts_without_a_failed_request(bed, make_state):
    replicas = [await bed.replica("A", sleep_ms=10) for _ in range(2)]
    state = make_state({"A": (10_000, replicas)}, keys=("one",), max_request_wait_time=5_000)
    first = await bed.router()
    await first.apply(state)
    load = Load(bed, 4, key="one")
    pid = bed.haproxy_pid()
    long = asyncio.create_task(bed.ask(key="one", x_sleep_ms="1500"))
    for _ in range(3):
        await load.goes_on()
        await bed.routers.pop().detach()
        await load.goes_on()
        router = await bed.router()
        await router.apply(state)
    assert (await long).status == 200
    await load.stop()
    assert set(load.statuses) == {(200, None)}
    assert not load.errors
    assert bed.haproxy_pid() == pid
    assert max(await most(replicas)) == 1
    # The new agent's word counts: another key, another replica.
    third = await bed.replica("A")
    await router.apply(make_state({"A": (10_000, [third])}, keys=("two",)))
    assert (await bed.ask(key="one")).status == 401
    assert (await bed.ask(key="two")).status == 200
    assert (await third.stats())["served"] == 1


async def test_waiting_requests_survive_the_agent(bed, make_state):
    """A version without a replica: its requests wait in HAProxy while no agent is there."""
    state = make_state({"A": (10_000, [])}, scaled_to_zero=True, cold_start_timeout_ms=20_000)
    first = await bed.router()
    await first.apply(state)
    waiting = [asyncio.create_task(bed.ask()) for _ in range(5)]
    await bed.counts(first, queued=5)
    await bed.routers.pop().detach()
    replica = await bed.replica("A")
    waiting += [asyncio.create_task(bed.ask()) for _ in range(5)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    assert {a.status for a in await asyncio.gather(*waiting)} == {200}


async def test_a_paused_gate(bed, make_state):
    """SIGSTOP: the router turns to the others, and back when it goes on."""
    paused, other = [await bed.replica("A", sleep_ms=5, scoringTimeoutMs=1500) for _ in range(2)]
    router = await bed.router()
    # As long as a busy machine may let the other one wait.
    state = make_state({"A": (10_000, [paused, other])}, scoring_timeout_ms=1500, max_request_wait_time=3_000)
    await router.apply(state)
    load = Load(bed, 4)
    await load.goes_on()
    os.kill(paused.gate.pid, signal.SIGSTOP)

    async def known() -> bool:
        return VersionKey("svc", "A") in router.load()

    async def unknown() -> bool:
        return not await known()

    await bed.until(unknown)
    await load.goes_on()
    assert await unknown()
    os.kill(paused.gate.pid, signal.SIGCONT)
    await bed.until(known)
    await load.stop()
    assert not load.errors
    assert set(load.statuses) <= {(200, None), (504, "scoring-timeout")}
    assert load.statuses[504, "scoring-timeout"] <= 1
    assert max(await most([paused, other])) == 1
    # Scoring timeout, queue timeout, the backstop's two seconds, and five for a busy machine.
    assert max(a.seconds for a in load.answers) < 1.5 + 3 + 2 + 5


@pytest.mark.parametrize("victim", ["stub", "gate"])
async def test_a_killed_replica_under_load(bed, make_state, victim):
    lost, other = [await bed.replica("A", sleep_ms=10) for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [lost, other])}, max_request_wait_time=5_000))
    load = Load(bed, 4)
    await load.goes_on()
    getattr(lost, victim).kill()
    await load.goes_on()
    await router.apply(make_state({"A": (10_000, [other])}, max_request_wait_time=5_000))
    await load.goes_on()
    await load.stop()
    assert set(load.statuses) <= {(200, None), (502, "replica-lost")}
    assert load.statuses[200, None] > 30
    assert (await other.stats())["most"] == 1
    # What ran there, and nothing else: what was not given to it yet goes elsewhere, or waits.
    assert not load.errors
    assert load.statuses[502, "replica-lost"] <= 1


@pytest.mark.parametrize("victim", ["stub", "gate"])
async def test_a_killed_replica_without_the_agent(bed, make_state, victim):
    """Killed while idle, and nobody tells HAProxy: whoever finds it out goes elsewhere, or waits for a free place."""
    replicas = [await bed.replica("A", sleep_ms=20) for _ in range(3)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}, max_request_wait_time=5_000))
    await bed.routers.pop().detach()
    for lost in replicas[:2]:
        getattr(lost, victim).kill()
        getattr(lost, victim).wait()
    answers = await asyncio.gather(*(bed.ask() for _ in range(20)))
    assert {a.status for a in answers} == {200}
    assert (await replicas[2].stats())["most"] == 1
    getattr(replicas[2], victim).kill()
    bed.routers.append(router)


async def test_all_replicas_gone_is_a_wait_in_the_queue(bed, make_state):
    replicas = [await bed.replica("A") for _ in range(2)]
    router = await bed.router()
    state = make_state({"A": (10_000, replicas)}, max_request_wait_time=600)
    await router.apply(state)
    for lost in replicas:
        lost.gate.kill()
        lost.gate.wait()
    answers = await asyncio.gather(*(bed.ask() for _ in range(4)))
    assert {a.status for a in answers} == {503}
    assert {a.reason for a in answers} <= {"queue-timeout", "no-replica"}
    assert min(a.seconds for a in answers) > 0.5


async def test_who_runs_at_a_killed_replica_gets_an_answer(bed, make_state):
    """Also on a connection that was used before, where HAProxy could leave the client without one; sent once only."""
    lost, other = [await bed.replica("A") for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [lost, other])}, max_request_wait_time=5_000))
    assert {(await bed.ask()).status for _ in range(4)} == {200}
    running = [asyncio.create_task(bed.ask(x_sleep_ms="700", x_id=f"long-{n}")) for n in range(2)]
    await bed.counts(router, busy=2)
    lost.stub.kill()
    answers = await asyncio.gather(*running)
    assert sorted((a.status, a.reason) for a in answers) == [(200, None), (502, "replica-lost")]
    assert len([i for i, _ in (await other.stats())["began"] if i.startswith("long")]) == 1


async def test_a_models_own_425_is_passed_on_and_not_repeated(bed, make_state):
    replicas = [await bed.replica("A") for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}))
    answer = await bed.ask(x_status="425")
    assert (answer.status, answer.reason, answer.version) == (425, None, "A")
    assert "x-aks-inference-replica-status" not in answer.headers
    assert (await bed.ask(x_status="520")).status == 520
    assert sum([(await replica.stats())["served"] for replica in replicas]) == 2


async def test_a_replica_that_comes_back_is_used_again(bed, make_state):
    """Its gate closes while the replica is doubted; what comes meanwhile waits and is then served."""
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000))
    for _ in range(3):
        lost = await bed.ask(x_end="early")
        assert (lost.status, lost.reason) == (502, "replica-lost")
        answer = await bed.ask()
        assert answer.status == 200
        assert answer.seconds < 4


async def test_changes_fail_nothing(bed, make_state):
    """Weights, keys, replicas, deadlines, versions and endpoints change under load."""
    replicas = {name: [await bed.replica(name, sleep_ms=5) for _ in range(2)] for name in ("A", "B")}
    router = await bed.router()
    common = {"max_request_wait_time": 5_000}
    a, b = replicas["A"], replicas["B"]
    await router.apply(make_state({"A": (10_000, a)}, keys=("one",), **common))
    load = Load(bed, 5, key="one")
    served_by = Load(bed, 1, key="one", x_sleep_ms="300")
    states = [
        make_state({"A": (9_000, a), "B": (1_000, b)}, keys=("one", "two"), **common),
        make_state({"A": (3_333, a), "B": (6_667, b)}, keys=("one",), **common),
        make_state({"A": (3_333, a[:1]), "B": (6_667, b)}, keys=("one", "three"), **common),
        make_state({"A": (3_333, a), "B": (6_667, b[1:])}, keys=("one",), max_request_wait_time=2_000),
        make_state({"B": (10_000, b)}, keys=("one",), max_request_wait_time=7_777),
        make_state({"A": (10_000, a), "B": (0, b)}, keys=("one",), **common),
    ]
    for _ in range(2):
        for state in states:
            await router.apply(state)
            await load.goes_on()
    await load.stop()
    await served_by.stop()
    assert not load.errors
    assert not served_by.errors
    assert set(load.statuses) == {(200, None)}
    assert set(served_by.statuses) == {(200, None)}
    assert max(await most([*a, *b])) == 1
    await router.apply(RouterState())
    assert (await bed.ask(key="one")).status == 404


async def test_ten_thousand_wrong_keys(bed, make_state):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("one",)))

    def memory() -> int:
        return int(Path(f"/proc/{bed.haproxy_pid()}/statm").read_text().split()[1]) * 4096

    async def guess(first: int) -> None:
        for number in range(first, 10_000, 20):
            assert (await bed.ask(key=f"guess-{number}")).status == 401

    await asyncio.gather(*(guess(first) for first in range(20)))
    settled = memory()
    await asyncio.gather(*(guess(first) for first in range(0, 20, 10)))
    assert memory() - settled < 2_000_000
    log = bed.directory / "router" / "p0.log"
    assert log.stat().st_size < 10_000
    assert (await bed.ask(key="one")).status == 200
