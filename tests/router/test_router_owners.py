"""Several routers that share the work: one owner per endpoint, the others pass requests on; hand-over; loss."""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from router_pair import Pair

from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.model import Peer, RouterState
from aks_inference_runtime.router.ownership import AWAY, Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from testbed.processes import free_ports

Make = Callable[..., RouterState]
BUFFER = 15_360
"""Bytes of a request, head and body, that are kept for a second try."""


async def test_requests_reach_the_owner_from_either_router(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica(cap=1)
    state = make_state({"A": (10_000, [replica])}, keys=("a-good-key",))
    await pair.give_to("b", state)
    for port in pair.ports.values():
        assert (await bed.ask(port=port, key="a-good-key")).status == 200
        assert (await bed.ask(port=port, key="wrong")).status == 401
        assert (await bed.ask("other", port=port, key="a-good-key")).status == 404
    status = await replica.status()
    assert (status.owner, status.orphans) == ("b", 0)


async def test_strangers_cannot_use_the_way_between_routers(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica()
    await pair.give_to("a", make_state({"A": (10_000, [replica])}, keys=("a-good-key",)))
    answer = await bed.ask(port=pair.owner_ports["a"], x_aks_inference_version="A")
    assert (answer.status, answer.reason) == (401, "auth")


async def more(answers: Counter[int], count: int = 30) -> None:
    """Waits until so many more requests are answered."""
    before = answers.total()
    async with asyncio.timeout(60):
        while answers.total() < before + count:
            await asyncio.sleep(0.01)


async def test_the_limit_holds_over_both_routers_and_a_hand_over(bed: Any, pair: Pair, make_state: Make) -> None:
    replicas = [await bed.replica(cap=1, sleep_ms=20) for _ in range(2)]
    state = make_state({"A": (10_000, replicas)}, max_request_wait_time=5_000)
    await pair.give_to("a", state)
    answers: Counter[int] = Counter()
    stop = asyncio.Event()

    async def client(port: int) -> None:
        while not stop.is_set():
            answers[(await bed.ask(port=port)).status] += 1

    clients = [asyncio.create_task(client(port)) for port in pair.ports.values() for _ in range(4)]
    for name in ("b", "a", "b"):
        await more(answers)
        await hand_over(pair, state, to=name)
    await more(answers)
    stop.set()
    await asyncio.gather(*clients)
    assert set(answers) == {200}, answers
    for replica in replicas:
        assert (await replica.stats())["most"] == 1


async def hand_over(pair: Pair, state: RouterState, *, to: str) -> None:
    """As the agents do it: the former owner yields, and lets go once nothing waits there."""
    former = "b" if to == "a" else "a"
    held = pair.epoch
    await pair.tell(to, state, owner=None, tenure=AWAY)
    yielding = pair.tenure(Phase.YIELDING, name=former, epoch=held)
    await pair.tell(former, state, owner=to, tenure=yielding)
    while pair.routers[former].waiting("svc"):
        await asyncio.sleep(0.005)
    await pair.tell(former, state, owner=to, tenure=AWAY)
    await pair.tell(to, state, owner=None, tenure=pair.tenure(name=to))


async def test_requests_survive_the_loss_of_the_owners_process(bed: Any, pair: Pair, make_state: Make) -> None:
    replicas = [await bed.replica(cap=2, sleep_ms=20) for _ in range(2)]
    state = make_state({"A": (10_000, replicas)}, max_request_wait_time=5_000)
    await pair.give_to("a", state)
    answers: Counter[int] = Counter()
    slowest = 0.0
    stop = asyncio.Event()

    async def client(port: int) -> None:
        nonlocal slowest
        while not stop.is_set():
            try:
                answer = await bed.ask(port=port)
            except aiohttp.ClientError:
                answers[0] += 1
                continue
            answers[answer.status] += 1
            slowest = max(slowest, answer.seconds)

    clients = [asyncio.create_task(client(port)) for port in pair.ports.values() for _ in range(2)]
    for _ in range(4):
        # What was lost is answered before the next death: nothing is sent a third time.
        await more(answers)
        killed = pair.pid("a", "p1")
        os.kill(killed, signal.SIGKILL)
        await new_owner_process(pair, "a", killed)
    await more(answers)
    stop.set()
    await asyncio.gather(*clients)
    assert set(answers) == {200}, answers
    assert slowest < 15, "held for ever"
    for replica in replicas:
        assert (await replica.stats())["most"] <= 2


async def test_what_waits_for_a_lost_router_goes_to_the_next_owner(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica(cap=1)
    state = make_state({"A": (10_000, [replica])})
    await pair.give_to("b", state)
    for process in ("p0", "p1"):
        os.kill(pair.pid("b", process), signal.SIGSTOP)
    await pair.routers["b"].detach()
    for process in ("p0", "p1"):
        os.kill(pair.pid("b", process), signal.SIGKILL)
    asked = asyncio.create_task(bed.ask(port=pair.ports["a"]))
    # Nothing to wait for: for so long, nothing happens.
    await asyncio.sleep(0.3)
    assert not asked.done()
    await pair.tell("a", state, owner=None, tenure=pair.tenure(name="a"), alive=False)
    answer = await asked
    assert (answer.status, answer.seconds < 5) == (200, True)


async def test_a_router_that_does_not_own_it_any_more_passes_on(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica(cap=1)
    state = make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000)
    await pair.tell("a", state, owner=None, tenure=AWAY)
    waiting = asyncio.create_task(bed.ask(port=pair.ports["a"]))
    while pair.routers["a"].waiting("svc") != 1:
        await asyncio.sleep(0.01)
    await pair.tell("b", state, owner=None, tenure=pair.tenure(name="b"))
    await pair.tell("a", state, owner="b", tenure=AWAY)
    assert (await waiting).status == 200
    async with aiohttp.ClientSession() as session:
        # What another router sends here by an older view goes on too.
        headers = {"x-aks-inference-version": "A", "x-aks-inference-router": "secret-of-routers"}
        url = f"http://127.0.0.1:{pair.owner_ports['a']}/api/v1/service/svc/score"
        async with session.post(url, data=b"{}", headers=headers) as answer:
            assert answer.status == 200


async def test_the_former_owner_loses_its_slots_before_the_next_has_them(
    bed: Any, pair: Pair, make_state: Make
) -> None:
    replica = await bed.replica(cap=1, sleep_ms=300)
    state = make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000)
    await pair.give_to("a", state)
    first = asyncio.create_task(bed.ask(port=pair.ports["a"]))
    while (await replica.status()).running != 1:
        await asyncio.sleep(0.01)
    # `a` is not told: it is taken for dead, and goes on as if nothing had happened.
    await pair.tell("b", state, owner=None, tenure=pair.tenure(name="b"))
    others = [asyncio.create_task(bed.ask(port=port)) for port in (pair.ports["b"], pair.ports["b"])]
    while (above := pair.routers["a"].claims("svc")[1]) is None:
        await asyncio.sleep(0.01)
    assert above.router == "b"
    assert [(await answer).status for answer in (first, *others)] == [200, 200, 200]
    assert (await replica.stats())["most"] == 1


async def running(replica: Any, count: int) -> None:
    """Waits until so many requests have begun at a replica."""
    async with asyncio.timeout(15):
        while len((await replica.stats())["began"]) < count:
            await asyncio.sleep(0.01)


async def new_owner_process(pair: Pair, name: str, before: int) -> None:
    """Waits until the process with slots was started again."""
    async with asyncio.timeout(15):
        while pair.pid(name, "p1") == before:
            await asyncio.sleep(0.01)


async def test_a_request_that_died_with_its_owner_is_sent_again_once(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica(cap=3, sleep_ms=1_500)
    await pair.give_to("b", make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000))
    asked = asyncio.create_task(bed.ask(port=pair.ports["a"]))
    await running(replica, 1)
    os.kill(pair.pid("b", "p1"), signal.SIGKILL)
    assert (await asked).status == 200
    assert len((await replica.stats())["began"]) == 2
    # The second death is the last: no third try.
    asked = asyncio.create_task(bed.ask(port=pair.ports["a"]))
    for count in (3, 4):
        await running(replica, count)
        killed = pair.pid("b", "p1")
        os.kill(killed, signal.SIGKILL)
        await new_owner_process(pair, "b", killed)
    answer = await asked
    assert (answer.status, answer.reason) == (502, "router-lost")
    assert len((await replica.stats())["began"]) == 4


@pytest.mark.parametrize(("size", "tries"), [(BUFFER - 512, 2), (BUFFER, 1)], ids=["fits", "does not"])
async def test_what_fits_the_buffer_is_sent_again(
    bed: Any, pair: Pair, make_state: Make, size: int, tries: int
) -> None:
    """A body beside some hundred bytes of head. What is larger is never given to a replica twice."""
    replica = await bed.replica(cap=3, sleep_ms=1_500)
    await pair.give_to("b", make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000))
    asked = asyncio.create_task(bed.ask(port=pair.ports["a"], data=b"x" * size))
    await running(replica, 1)
    killed = pair.pid("b", "p1")
    os.kill(killed, signal.SIGKILL)
    answer = await asked
    assert (answer.status, answer.reason) == ((200, None) if tries == 2 else (502, "router-lost"))
    await new_owner_process(pair, "b", killed)
    assert len((await replica.stats())["began"]) == tries


async def test_what_died_with_a_further_process_is_sent_again_too(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica(cap=3, sleep_ms=1_000)
    # No process is prepared for such a time: the version gets one of its own.
    state = make_state({"A": (10_000, [replica])}, max_request_wait_time=4_321)
    for owner in ("b", "a"):
        await pair.give_to(owner, state)
        before = len((await replica.stats())["began"])
        asked = [asyncio.create_task(bed.ask(port=port)) for port in pair.ports.values()]
        await running(replica, before + 2)
        os.kill(pair.pid(owner, "p2"), signal.SIGKILL)
        assert [(await answer).status for answer in asked] == [200, 200]
        assert len((await replica.stats())["began"]) == before + 4


async def test_there_is_no_third_try_on_a_kept_connection_either(bed: Any, pair: Pair, make_state: Make) -> None:
    slow, fast = await bed.replica(cap=3, sleep_ms=1_000), await bed.replica(cap=10)
    state = make_state({"A": (10_000, [slow]), "B": (0, [fast])}, max_request_wait_time=5_000)
    await pair.give_to("b", state)
    stop = asyncio.Event()

    async def others() -> None:
        while not stop.is_set():
            await bed.ask(port=pair.ports["a"], x_aks_inference_version="B")

    clients = [asyncio.create_task(others()) for _ in range(40)]
    for number in range(1, 7):
        asked = asyncio.create_task(bed.ask(port=pair.ports["a"]))
        for began in (2 * number - 1, 2 * number):
            await running(slow, began)
            killed = pair.pid("b", "p1")
            os.kill(killed, signal.SIGKILL)
            await new_owner_process(pair, "b", killed)
        answer = await asked
        assert (answer.status, answer.reason) == (502, "router-lost")
        assert len((await slow.stats())["began"]) == 2 * number
    stop.set()
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


class Dying:
    """An owner's process that dies slowly: its kept connections end one by one, each when it is used."""

    def __init__(self) -> None:
        self.kept = 0
        self.used = 0
        """Of the kept ones."""
        self._together = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the first request of a connection, together with those of the others."""
        await reader.readuntil(b"\r\n\r\n{}")
        self.kept += 1
        await self._together.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        if await reader.read(65_536):
            self.used += 1
        writer.close()

    def answer(self) -> None:
        """Now."""
        self._together.set()


async def test_kept_connections_of_a_dead_owner_are_no_tries(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica()
    state = make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000)
    dying = Dying()
    server = await asyncio.start_server(dying.serve, "127.0.0.1", 0)
    passed_on = replace(state.endpoints["svc"], owner="c", tenure=AWAY)
    peers = {"c": Peer("127.0.0.1", server.sockets[0].getsockname()[1], alive=True)}
    await pair.routers["a"].apply(RouterState({"svc": passed_on}, peers))
    asked = [asyncio.create_task(bed.ask(port=pair.ports["a"])) for _ in range(50)]
    async with asyncio.timeout(15):
        while dying.kept < len(asked):
            await asyncio.sleep(0.01)
    dying.answer()
    assert {(await answer).status for answer in asked} == {200}
    server.close()
    last = asyncio.create_task(bed.ask(port=pair.ports["a"]))
    async with asyncio.timeout(15):
        while dying.used < len(asked):
            await asyncio.sleep(0.01)
    # It has the lost router's place, and what was on its way there comes to it.
    await pair.tell("b", state, owner="a", tenure=AWAY)
    await pair.tell("a", state, owner=None, tenure=pair.tenure(name="a"))
    assert (await last).status == 200


async def test_who_leaves_the_queue_of_an_owner_is_not_served(bed: Any, pair: Pair, make_state: Make) -> None:
    """By whichever router it came. The system is asked for the owner's port alone."""
    replica = await bed.replica()
    owner = pair.routers["a"]
    await pair.give_to("a", make_state({"A": (10_000, [replica])}, max_request_wait_time=10_000))
    first = asyncio.create_task(bed.ask(port=pair.ports["a"], x_id="first", x_sleep_ms="4000"))
    await bed.counts(owner, busy=1)
    leaving = []
    for number, name in enumerate("ab", 1):
        client = socket.create_connection(("127.0.0.1", pair.ports[name]))
        client.sendall(b"GET /api/v1/service/svc/score HTTP/1.1\r\nhost: x\r\nx-id: left\r\n\r\n")
        leaving.append(client)
        await bed.counts(owner, busy=1, queued=number)
    last = asyncio.create_task(bed.ask(port=pair.ports["b"], x_id="last"))
    await bed.counts(owner, busy=1, queued=3)
    for client in leaving:
        client.close()
    await bed.counts(owner, busy=1, queued=1)
    assert {(await asked).status for asked in (first, last)} == {200}
    assert [name for name, _ in (await replica.stats())["began"]] == ["first", "last"]


async def test_an_endpoint_may_forbid_a_second_try(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica(cap=3, sleep_ms=1_500)
    state = make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000)
    once = replace(state.endpoints["svc"], retry_lost_requests=False)
    for owner in ("b", "a"):
        # By way of another router, and by the owner's own first process.
        await pair.give_to(owner, RouterState({"svc": once}))
        before = len((await replica.stats())["began"])
        asked = asyncio.create_task(bed.ask(port=pair.ports["a"]))
        await running(replica, before + 1)
        killed = pair.pid(owner, "p1")
        os.kill(killed, signal.SIGKILL)
        answer = await asked
        assert (answer.status, answer.reason) == (502, "router-lost")
        assert len((await replica.stats())["began"]) == before + 1
        await new_owner_process(pair, owner, killed)


@pytest.mark.parametrize("process", ["p0", "p1"])
async def test_a_process_that_is_stopped_is_replaced(bed: Any, pair: Pair, make_state: Make, process: str) -> None:
    replica = await bed.replica(cap=2)
    await pair.give_to("a", make_state({"A": (10_000, [replica])}, max_request_wait_time=5_000))
    assert (await bed.ask(port=pair.ports["a"])).status == 200
    stopped = pair.pid("a", process)
    os.kill(stopped, signal.SIGSTOP)
    async with asyncio.timeout(20):
        while pair.pid("a", process) == stopped:
            await asyncio.sleep(0.01)
    assert (await bed.ask(port=pair.ports["a"])).status == 200
    assert not psutil.pid_exists(stopped)


async def test_hundreds_that_wait_for_a_new_process_are_served(bed: Any, pair: Pair, make_state: Make) -> None:
    replica = await bed.replica(cap=8)
    state = make_state({"A": (10_000, [replica])}, max_request_wait_time=10_000)
    await pair.give_to("a", state)
    killed = pair.pid("a", "p1")
    os.kill(killed, signal.SIGKILL)
    asked = [asyncio.create_task(bed.ask(port=port)) for port in pair.ports.values() for _ in range(150)]
    answers = Counter(answer.status for answer in await asyncio.gather(*asked))
    assert set(answers) == {200}, answers
    await new_owner_process(pair, "a", killed)


async def test_a_new_router_takes_no_connection_before_it_knows_its_endpoints(bed: Any, make_state: Make) -> None:
    ports = free_ports(2)
    directory = Path(tempfile.mkdtemp(prefix="aksp-"))
    cluster = Cluster(owner_host="127.0.0.1", owner_port=ports[1], token="secret-of-routers")
    router = HaproxyRouter(directory, port=ports[0], cluster=cluster)
    await router.start()
    try:
        with pytest.raises(aiohttp.ClientConnectorError):
            await bed.ask(port=ports[0])
        replica = await bed.replica()
        endpoint = make_state({"A": (10_000, [replica])}).endpoints["svc"]
        mine = replace(endpoint, owner=None, tenure=Tenure(Phase.HOLDING, Epoch(1, "a")))
        await router.apply(RouterState({"svc": mine}))
        assert (await bed.ask(port=ports[0])).status == 200
    finally:
        await router.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def test_who_comes_before_a_new_router_is_told_waits_for_that(bed: Any, pair: Pair, make_state: Make) -> None:
    # As those that were accepted in the moment between listening and closing.
    await pair.routers["a"]._fleet.first().run("enable frontend public")
    asked = [asyncio.create_task(bed.ask(name, port=pair.ports["a"])) for name in ("svc", "other")]
    replica = await bed.replica()
    assert not any(one.done() for one in asked)
    await pair.give_to("a", make_state({"A": (10_000, [replica])}))
    assert [(await one).status for one in asked] == [200, 404]
