"""Clients that leave while their request waits in the router's queue: the model does not see it."""

import asyncio
import random
import socket
import struct

import pytest

from aks_inference_runtime.router.connections import Connection
from aks_inference_runtime.router.leavers import left, particulars, remote_end, remote_ends, waiting
from aks_inference_runtime.router.model import VersionKey

SVC = VersionKey("svc", "A")


def ask_and_leave(port: int, name: str, *, method: str = "POST", path: str = "/api/v1/service/svc/score"):
    client = socket.create_connection(("127.0.0.1", port))
    body = "\r\n" if method == "GET" else "content-length: 3\r\n\r\nabc"
    client.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nx-id: {name}\r\n{body}".encode())
    return client


def leave(client: socket.socket, how: str) -> None:
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def served(replica) -> list[str]:
    return [name for name, _ in (await replica.stats())["began"]]


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("POST", "close"),
        ("GET", "reset"),
        pytest.param("POST", "reset", marks=pytest.mark.long),
        pytest.param("GET", "close", marks=pytest.mark.long),
    ],
)
async def test_who_leaves_the_queue_is_not_served(bed, make_state, method, how):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=10_000, max_queued_requests=4))
    running = asyncio.create_task(bed.ask(x_id="first", x_sleep_ms="5000"))
    await bed.counts(router, busy=1)
    leaving = []
    for number in range(3):
        leaving.append(ask_and_leave(bed.port, f"left-{number}", method=method))
        await bed.counts(router, busy=1, queued=number + 1)
    stays = asyncio.create_task(bed.ask(x_id="stays"))
    await bed.counts(router, busy=1, queued=4)
    assert (await bed.ask()).reason == "queue-full"
    for client in leaving:
        leave(client, how)
    # The autoscaler need not count them, nor does the bound of the queue.
    await bed.counts(router, busy=1, queued=1)
    more = []
    for number in range(3):
        more.append(asyncio.create_task(bed.ask(x_id=f"more-{number}")))
        await bed.counts(router, busy=1, queued=2 + number)
    assert (await bed.ask()).reason == "queue-full"
    assert {a.status for a in await asyncio.gather(running, stays, *more)} == {200}
    assert await served(replica) == ["first", "stays", "more-0", "more-1", "more-2"]
    await bed.counts(router)
    stats = await replica.stats()
    assert (stats["most"], "x-aks-inference-turn" in stats["last_headers"]) == (1, False)


async def test_also_at_an_endpoints_own_port(bed, make_state, unused_port):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, port=unused_port, max_request_wait_time=10_000))
    running = asyncio.create_task(bed.ask(x_id="first", x_sleep_ms="5000"))
    await bed.counts(router, busy=1)
    leaving = ask_and_leave(unused_port, "left", path="/score")
    await bed.counts(router, busy=1, queued=1)
    leaving.close()
    await bed.counts(router, busy=1)
    assert (await bed.ask(x_id="stays")).status == 200
    assert (await running).status == 200
    assert await served(replica) == ["first", "stays"]


async def test_who_only_ends_its_side(bed, make_state):
    """HAProxy sees the same as of a client that left: answered when it runs already, not run when it waits."""
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=10_000))
    running = socket.create_connection(("127.0.0.1", bed.port))
    running.sendall(b"GET /api/v1/service/svc/score HTTP/1.1\r\nhost: x\r\nx-sleep-ms: 5000\r\n\r\n")
    await bed.counts(router, busy=1)
    waiting = ask_and_leave(bed.port, "waiting")
    await bed.counts(router, busy=1, queued=1)
    for client in (running, waiting):
        client.shutdown(socket.SHUT_WR)
    await bed.counts(router, busy=1)
    answers = []
    for client in (running, waiting):
        client.settimeout(10)
        answers.append(await asyncio.to_thread(client.recv, 65_536))
        client.close()
    assert answers[0].startswith(b"HTTP/1.1 200 ")
    assert answers[1].startswith(b"HTTP/1.1 400 ")
    assert b"x-aks-inference-reason: bad-request" in answers[1]


async def test_leaving_at_any_moment(bed, make_state):
    """Just before, while, and just after a request gets its replica: nobody else notices."""
    replicas = [await bed.replica("A", sleep_ms=15) for _ in range(2)]
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, replicas)}, max_request_wait_time=10_000))
    rng = random.Random(7)
    stop = asyncio.Event()

    async def stays() -> list[int]:
        statuses = []
        while not stop.is_set():
            statuses.append((await bed.ask(x_id="stays")).status)
        return statuses

    staying = [asyncio.create_task(stays()) for _ in range(4)]

    async def leaves(number: int) -> None:
        await asyncio.sleep(rng.random() * 3)
        client = ask_and_leave(bed.port, f"left-{number}")
        await asyncio.sleep(rng.random() * 0.3)
        leave(client, rng.choice(["close", "reset"]))

    await asyncio.gather(*(leaves(number) for number in range(300)))
    stop.set()
    statuses = [status for part in await asyncio.gather(*staying) for status in part]
    assert set(statuses) == {200}
    assert [(await replica.stats())["most"] for replica in replicas] == [1, 1]
    await bed.counts(router)
    assert router.load()[SVC].ready_replicas == 2


LINES = """\
0x1: proto=unix_stream src=unix:1 fe=park be=s1 srv=park ts=00 scf=[8,1482h,fd=3,rex=,wex=] scb=[8,1411h,fd=4,rex=,wex=]
0x2: proto=tcpv4 src=1.2.3.4:5 fe=public be=s1 srv=r0 ts=00 scf=[8,41002h,fd=3,rex=,wex=] scb=[8,1411h,fd=4,rex=,wex=]
0x3: proto=tcpv4 src=1.2.3.4:6 fe=public be=s1 srv=<none> ts=00 scf=[8,1402h,fd=3,rex=,wex=] scb=[2,1811h,fd=-1,rex=]
0x4: proto=tcpv4 src=1.2.3.4:7 fe=public be=s1 srv=<none> ts=00 scf=[8,41002h,fd=3,rex=,wex=] scb=[2,1811h,fd=-1,rex=]
0x5: proto=tcpv4 src=1.2.3.4:8 fe=public be=<NONE> srv=<none> ts=00 scf=[8,41002h,fd=3,rex=] scb=[0,1811h,fd=-1,rex=]
"""


def test_who_waits_and_has_left():
    streams = waiting(LINES)
    assert [(one.stream, one.closed) for one in streams] == [("0x3", False), ("0x4", True)]
    ends = {"0.0.0.0:9": "0A", remote_end("1.2.3.4:6"): "01"}
    assert left(streams, {"tcpv4": ends}) == ([streams[1]], [])
    assert left(streams, {"tcpv4": {**ends, remote_end("1.2.3.4:6"): "08"}}) == (streams, [])
    # Not found at all, and a system that does not tell.
    assert left(streams, {"tcpv4": {}}) == ([streams[1]], [streams[0]])
    assert left(streams, {}) == ([streams[1]], [])
    assert waiting("") == []


def test_a_whole_connection_hides_an_older_one_of_the_same_end():
    end = remote_end("127.0.0.1:8080")
    assert end == "0100007F:1F90"
    rows = [Connection(80, end, "08"), Connection(81, end, "01"), Connection(82, end, "08")]
    assert remote_ends(rows) == {end: "01"}
    assert remote_end("::1:80") == "00000000000000000000000001000000:0050"


@pytest.mark.parametrize(("state", "found"), [("QUE", ("1.2.3.4:7", 7, 312)), ("EST", None)])
def test_particulars(state, found):
    text = (
        "0x4: [21/Nov/2026:15:00:21.026216] id=312 proto=tcpv4 source=1.2.3.4:7\n  flags=0x808\n"
        "  frontend=public (id=2 mode=http), listener=? (id=1) addr=127.0.0.1:1\n  backend=s7 (id=98 mode=http)\n"
        "  scf=0x9 flags=0x00001402 state=EST endp=CONN,0x3\n      h1s=0x1 .subs=(nil)\n"
        f"  scb=0x8 flags=0x00001811 state={state} endp=NONE\n"
    )
    assert particulars(text) == found
    assert particulars("") is None
