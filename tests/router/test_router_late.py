"""Who was answered and then sends the rest of a body drop by drop does not hold a connection for ever."""

import asyncio
import time

import pytest

from aks_inference_runtime.router import hints, late, refusals

PATH = "/api/v1/service/svc/score"
LIMIT_S = 60
HEAD = "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 1000000\r\n\r\n"
BEGUN = b"x" * 40_000
"""More than is waited for before it is decided."""
TAIL = "ts=00 age={age} calls=2 rate=0 rq[f=0h,i=0,an=8000h,ax=] scf=[8,0h,fd=11,rex=,wex=] scb=[{state},801h,fd=-1]"


def stream(
    number: int, source: str, *, front: str = "public", server: str = "<none>", age: str = "31s", state: int = 8
) -> str:
    return f"0x{number}: proto=tcpv4 src={source} fe={front} be=<NONE> srv={server} {TAIL.format(age=age, state=state)}"


@pytest.mark.parametrize(
    ("line", "ended"),
    [
        (stream(1, "10.0.0.1:5000"), True),
        (stream(1, "::1:5000"), True),
        (stream(1, "unix:3", front="hopped", age="1m2s"), True),
        (stream(1, "10.0.0.1:5000", age="2h0m"), True),
        # Another client, one with a server, one that waits for a server, one that came just now on the same connection.
        (stream(1, "10.0.0.1:5001"), False),
        (stream(1, "10.0.0.1:5000", server="r0"), False),
        (stream(1, "10.0.0.1:5000", state=2), False),
        (stream(1, "10.0.0.1:5000", age="2s"), False),
        # What this process and its agent have among themselves.
        (stream(1, "unix:3", front="GLOBAL"), False),
        (stream(1, "unix:3", front="park"), False),
        (stream(1, "unix:3", front="hold"), False),
    ],
)
def test_only_streams_of_those_who_are_late_are_ended(line: str, ended: bool) -> None:
    names = late.named(["s0 3", "late 10.0.0.1:5000", "late ::1:5000", "late unix"])
    assert late.streams(line, names, 30) == (["0x1"] if ended else [])


def test_so_many_at_once() -> None:
    text = "\n".join(stream(number, "10.0.0.1:5000") for number in range(1, 1000))
    assert len(late.streams(text, frozenset({"10.0.0.1:5000"}), 30)) == late.MOST


async def drip(port: int, path: str, key: str) -> tuple[bytes, float]:
    """Sends a byte now and then until the other side has closed: the status, and for how long it was let."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    try:
        writer.write(HEAD.format(path=path, key=key).encode() + BEGUN)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)

        async def until_closed() -> None:
            while await reader.read(65_536):
                pass

        closed = asyncio.ensure_future(until_closed())
        while not closed.done():
            assert time.monotonic() - began < LIMIT_S
            writer.write(b"x")
            await asyncio.wait((closed,), timeout=0.2)
        assert closed.exception() is None or isinstance(closed.exception(), ConnectionError)
        return head.split()[1], time.monotonic() - began
    finally:
        writer.close()


async def test_the_rest_of_a_body_drop_by_drop(bed, make_state, unused_port, monkeypatch):
    monkeypatch.setattr(refusals, "DROP_SECONDS", 1)
    monkeypatch.setattr(hints, "OTHERS_SECONDS", 0.5)
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(
        make_state({"A": (10_000, [replica])}, keys=("key",), port=unused_port, max_request_wait_time=30_000)
    )
    # A request that runs and one that waits for its turn are older than that, and are answered.
    others = [asyncio.create_task(bed.ask(key="key", x_sleep_ms="2000", timeout=LIMIT_S)) for _ in range(2)]
    await bed.counts(router, busy=1, queued=1)
    answers = await asyncio.gather(
        drip(bed.port, PATH, "wrong"), drip(bed.port, "/nowhere", "key"), drip(unused_port, "/score", "wrong")
    )
    assert [status for status, _ in answers] == [b"401", b"404", b"401"]
    assert all(seconds > 1 for _, seconds in answers)
    assert [answer.status for answer in await asyncio.gather(*others)] == [200, 200]


@pytest.mark.parametrize(
    "timeout_ms",
    [pytest.param(30_000, id="first process"), pytest.param(33_210, id="further process", marks=pytest.mark.long)],
)
async def test_the_same_where_the_queue_is_full(bed, make_state, monkeypatch, timeout_ms):
    monkeypatch.setattr(refusals, "DROP_SECONDS", 1)
    replica = await bed.replica("A")
    router = await bed.router()
    limits = {"max_request_wait_time": timeout_ms, "max_queued_requests": 1}
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("key",), **limits))
    others = [asyncio.create_task(bed.ask(key="key", x_sleep_ms="2000", timeout=LIMIT_S)) for _ in range(2)]
    await bed.counts(router, busy=1, queued=1)
    status, seconds = await drip(bed.port, PATH, "key")
    assert status == b"429"
    assert seconds > 1
    assert [answer.status for answer in await asyncio.gather(*others)] == [200, 200]
