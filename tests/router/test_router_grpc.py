"""gRPC through router and gate: real servers and clients of grpcio, each promise that HTTP has."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_clients import ANY_SIZE, CODE, KEYED, NAMED, Client, numbers, read, refused, release, stats

from aks_inference_runtime.api.certificates import usable
from aks_inference_runtime.router.model import RouterState
from aks_inference_runtime.router.ownership import Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.tls import Tls
from testbed.certificates import make_certificate
from testbed.processes import free_ports

REPLICA = Path(__file__).with_name("grpc_replica.py")


@pytest.fixture
def speaks(bed: Any) -> Callable[..., Any]:
    """A replica with its gate."""

    async def make(version: str = "A", **options: Any) -> Any:
        told = {"protocol": "grpc", "healthProtocol": "grpc", "endpoint": "svc", **options}
        return await bed.replica(version, stub=REPLICA, **told)

    return make


@pytest.fixture
def calls(make_state: Any) -> Callable[..., RouterState]:
    """`make_state`, of an endpoint that takes calls."""

    def build(versions: Any, **options: Any) -> RouterState:
        state = make_state(versions, **options)
        return RouterState({"svc": replace(state.endpoints["svc"], grpc=True)})

    return build


@pytest.fixture
async def client(bed: Any) -> AsyncIterator[Callable[..., Client]]:
    opened: list[grpc.aio.Channel] = []

    def make(metadata: tuple[tuple[str, str], ...] = NAMED, **options: Any) -> Client:
        more = [(f"grpc.{name}", value) for name, value in options.items()]
        opened.append(grpc.aio.insecure_channel(f"127.0.0.1:{bed.port}", options=[*ANY_SIZE, *more]))
        return Client(opened[-1], metadata)

    yield make
    for channel in opened:
        await channel.close()


async def test_calls_of_every_kind(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    replica = await speaks(cap=2)
    router = await bed.router()
    await router.apply(calls({"A": (10_000, [replica])}, keys=("k",)))
    good = client(KEYED)

    call = good.score(metadata=(*KEYED, ("x-mine", "1"), ("x-mine-bin", b"\0\xff"), ("x-request-id", "of-mine")))
    assert json.loads(await call) == {"length": 2}
    begun, ended = read(await call.initial_metadata()), read(await call.trailing_metadata())
    assert (begun["x-begun"], begun["x-request-id"], begun["x-aks-inference-version"]) == ("1", "of-mine", "A")
    assert ended == {"x-trailer": "of score", "x-bytes-bin": b"\0\xff"}
    seen = await stats(replica)
    assert (seen["metadata"]["x-mine"], seen["metadata"]["x-mine-bin"]) == ("1", "00ff")
    assert 15 < seen["time_left"] <= 20, "the deadline reaches the model"
    assert not {"authorization", "x-aks-inference-endpoint"} & seen["metadata"].keys()

    assert [part async for part in good.stream(count=3)] == [b"0", b"1", b"2"]
    assert await good.sum(numbers(4)) == b"6"
    chat = good.chat()
    for number in range(3):
        # One after the other: nothing of it waits for the end of the request.
        await chat.write(b'{"n": %d}' % number)
        assert await chat.read() == b'{"n": %d}' % number
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    assert await chat.code() is CODE.OK

    assert len(await good.score(bytes=4_000_000)) == 4_000_000
    assert json.loads(await good.score(pad="x" * 4_000_000))["length"] > 4_000_000
    failing = good.score(code="FAILED_PRECONDITION", details="wörks 100 %")
    assert (await refused(failing))[::2] == (CODE.FAILED_PRECONDITION, {"x-ended": "as asked"})
    assert await failing.details() == "wörks 100 %"
    late = [part async for part in good.stream(count=1, gap_ms=1)]
    assert late == [b"0"]

    # What the router refuses itself.
    assert (await refused(good.score(metadata=NAMED)))[:2] == (CODE.UNAUTHENTICATED, "auth")
    wrong = (*NAMED, ("authorization", "Bearer wrong"))
    assert (await refused(good.score(metadata=wrong)))[:2] == (CODE.UNAUTHENTICATED, "auth")
    for metadata in ((("x-aks-inference-endpoint", "other"),), (("x-none", "1"),)):
        assert (await refused(good.score(metadata=metadata)))[:2] == (CODE.UNIMPLEMENTED, "not-found")
    asked = (*KEYED, ("x-aks-inference-version", "B"))
    assert (await refused(good.score(metadata=asked)))[:2] == (CODE.UNIMPLEMENTED, "not-found")
    # The other way to name it, and a method that the model has not.
    by_authority = client((("authorization", "Bearer k"),), default_authority="svc.models.example:443")
    assert json.loads(await by_authority.score()) == {"length": 2}
    missing = good.channel.unary_unary("/stub.Model/Missing")(b"", metadata=KEYED, timeout=20)
    assert (await refused(missing))[:2] == (CODE.UNIMPLEMENTED, None)
    # What is no call, and health checks.
    plain = await bed.ask(key="k")
    assert (plain.status, plain.reason) == (400, "bad-request")
    assert (await bed.ask(method="GET", data=None, path="/")).body == b"Healthy"
    assert (await stats(replica))["running"] == 0


async def test_fifty_calls_at_once_keep_the_limit(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    replicas = [await speaks(cap=2, sleep_ms=10) for _ in range(2)]
    router = await bed.router()
    state = calls({"A": (10_000, replicas)}, replica_max_concurrent_requests=2, max_request_wait_time=10_000)
    await router.apply(state)
    good = client()
    answers = await asyncio.gather(*[good.score() for _ in range(50)])
    assert len(answers) == 50
    seen = [await stats(replica) for replica in replicas]
    assert [one["most"] for one in seen] == [2, 2]
    assert sum(one["served"] for one in seen) == 50

    one = replicas[0]
    await router.apply(calls({"A": (10_000, [one])}, max_queued_requests=2, max_request_wait_time=60_000))
    running = [good.score(hold=True) for _ in range(2)]
    await bed.counts(router, busy=2)
    waiting = [good.score() for _ in range(2)]
    await bed.counts(router, busy=2, queued=2)
    code, reason, told = await refused(good.score())
    assert (code, reason, told["retry-after"]) == (CODE.UNAVAILABLE, "queue-full", "1")
    await release(one)
    await asyncio.gather(*running, *waiting)

    await router.apply(calls({"A": (10_000, [one])}))
    running = [good.score(hold=True) for _ in range(2)]
    await bed.counts(router, busy=2)
    assert (await refused(good.score()))[:2] == (CODE.UNAVAILABLE, "queue-timeout")
    await release(one)
    await asyncio.gather(*running)


@pytest.mark.long
async def test_shares_and_versions(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    a, b = await speaks("A", cap=4), await speaks("B", cap=4)
    router = await bed.router()
    await router.apply(calls({"A": (7_000, [a]), "B": (3_000, [b])}, max_request_wait_time=10_000))
    good = client()
    counted: Counter[str] = Counter()
    for _ in range(20):
        batch = [good.score() for _ in range(20)]
        await asyncio.gather(*batch)
        counted.update([read(await call.initial_metadata())["x-aks-inference-version"] for call in batch])
    # Six standard deviations.
    assert 225 < counted["A"] < 335, counted
    asked = good.score(metadata=(*NAMED, ("x-aks-inference-version", "B")))
    await asked
    assert read(await asked.initial_metadata())["x-aks-inference-version"] == "B"


@pytest.mark.long
async def test_a_replica_that_dies(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    dying, other = await speaks("A", cap=4), await speaks("B", cap=4)
    router = await bed.router()
    await router.apply(calls({"A": (5_000, [dying]), "B": (5_000, [other])}))
    good = client((*NAMED, ("x-aks-inference-version", "A")))
    waits = asyncio.ensure_future(refused(good.score(hold=True)))
    streams = good.stream(count=1_000, gap_ms=20)
    assert await streams.read() == b"0"
    await bed.until(lambda: _running(dying, 2))
    dying.stub.send_signal(signal.SIGKILL)
    assert (await waits)[:2] == (CODE.UNAVAILABLE, "replica-lost")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _to_its_end(streams)
    assert caught.value.code() is CODE.UNAVAILABLE
    assert read(caught.value.trailing_metadata())["x-aks-inference-reason"] == "replica-lost"
    # Nobody else noticed, and what finds no replica is told so.
    assert json.loads(await client((*NAMED, ("x-aks-inference-version", "B"))).score()) == {"length": 2}
    code, reason, _ = await refused(good.score())
    assert code is CODE.UNAVAILABLE
    assert reason in ("no-replica", "queue-timeout", "replica-lost")


async def _to_its_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def _running(replica: Any, count: int) -> bool:
    return (await replica.status()).running == count


@pytest.mark.long
async def test_the_end_of_a_call_and_who_leaves(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    replica = await speaks(cap=1)
    router = await bed.router()
    state = calls({"A": (10_000, [replica])}, max_request_wait_time=10_000)
    await router.apply(state)
    good = client()

    # Who leaves a model that works on the whole of a request frees nothing: its slot is the model's.
    leaving = good.score(hold=True)
    await bed.counts(router, busy=1)
    leaving.cancel()
    await bed.until(lambda: _orphans(replica, 1))
    waiting = good.score()
    await bed.counts(router, busy=1, queued=1)
    await release(replica)
    await waiting
    assert (await stats(replica))["most"] == 1

    # A stream is cancelled at the model.
    endless = good.stream(count=1_000_000, gap_ms=10)
    await endless.read()
    endless.cancel()
    await bed.until(lambda: _cancelled(replica))
    await good.score()
    # So is one that the client had more to say to.
    chat = good.chat()
    await chat.write(b"{}")
    await chat.read()
    chat.cancel()
    await bed.until(lambda: _idle(replica))
    await good.score()

    # Who leaves the queue is not served, nor is who is past its deadline there.
    running = good.score(hold=True)
    await bed.counts(router, busy=1)
    served = (await stats(replica))["served"]
    leaver = good.score()
    await bed.counts(router, busy=1, queued=1)
    leaver.cancel()
    await bed.counts(router, busy=1)
    assert (await refused(good.score(timeout=0.3)))[0] is CODE.DEADLINE_EXCEEDED
    await bed.counts(router, busy=1)
    await release(replica)
    await running
    await good.score()
    assert (await stats(replica))["served"] == served + 2


@pytest.mark.long
@pytest.mark.parametrize("gap_ms", [10, 600_000], ids=["goes on", "pauses after the first message"])
async def test_who_leaves_a_stream_before_its_first_message(
    bed: Any, speaks: Any, calls: Any, client: Any, gap_ms: int
) -> None:
    replica = await speaks(cap=1)
    router = await bed.router()
    await router.apply(calls({"A": (10_000, [replica])}, max_request_wait_time=10_000))
    good = client()
    leaving = good.stream(count=1_000_000, gap_ms=gap_ms, first_ms=1_000)
    await bed.counts(router, busy=1)
    leaving.cancel()
    await bed.until(lambda: _orphans(replica, 1))
    await bed.until(lambda: _cancelled(replica))
    await bed.until(lambda: _orphans(replica, 0))
    # One answer is none: the model is through with it when it comes, and it has come when its end has.
    leaving = good.score(sleep_ms=500, bytes=4_000_000)
    await bed.counts(router, busy=1)
    leaving.cancel()
    await bed.until(lambda: _orphans(replica, 1))
    await good.score()
    assert (await stats(replica))["cancelled"] == 1
    assert (await stats(replica))["most"] == 1


async def _orphans(replica: Any, count: int) -> bool:
    return (await replica.status()).orphans == count


async def _idle(replica: Any) -> bool:
    return (await stats(replica))["running"] == 0


async def _cancelled(replica: Any) -> bool:
    return (await stats(replica))["cancelled"] == 1


@pytest.mark.long
async def test_a_gate_that_ends_finishes_its_calls(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    ending, other = await speaks(cap=1), await speaks(cap=1)
    router = await bed.router()
    await router.apply(calls({"A": (10_000, [ending])}, max_request_wait_time=10_000))
    good = client()
    score = good.score(hold=True)
    await bed.counts(router, busy=1)
    await router.apply(calls({"A": (10_000, [ending.target(ready=False), other])}, max_request_wait_time=10_000))
    stream = good.stream(count=10, gap_ms=100)
    assert ending.gate is not None
    ending.gate.send_signal(signal.SIGTERM)
    assert len([part async for part in stream]) == 10
    assert ending.gate.poll() is None
    await release(ending)
    assert json.loads(await score)["length"] > 0
    assert await router.drained(ending.id, 10)
    assert await asyncio.to_thread(ending.gate.wait, 15) == 0


@pytest.mark.long
async def test_over_tls(bed: Any, speaks: Any, calls: Any, unused_port: int) -> None:
    replica = await speaks(cap=2)
    router = await bed.router(tls=Tls(unused_port))
    certificate = usable(*make_certificate("127.0.0.1"))
    served = calls({"A": (10_000, [replica])}, keys=("k",))
    await router.apply(RouterState(served.endpoints, {}, certificate))
    # The last of the chain is the authority's.
    root = "-----BEGIN CERTIFICATE-----" + certificate.chain.rpartition("-----BEGIN CERTIFICATE-----")[2]
    credentials = grpc.ssl_channel_credentials(root.encode())
    async with grpc.aio.secure_channel(f"127.0.0.1:{unused_port}", credentials, options=ANY_SIZE) as channel:
        good = Client(channel, KEYED)
        assert json.loads(await good.score()) == {"length": 2}
        assert [part async for part in good.stream(count=2)] == [b"0", b"1"]
        assert await good.sum(numbers(3, 0.05)) == b"3"
        assert (await refused(good.score(metadata=NAMED)))[:2] == (CODE.UNAUTHENTICATED, "auth")


@pytest.mark.long
async def test_by_way_of_further_processes(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    """One hop away: of slots that are not prepared, and of an owner among several routers."""
    replica = await speaks(cap=1)
    router = await bed.router()
    # No slot has this deadline.
    await router.apply(calls({"A": (10_000, [replica])}, max_request_wait_time=777, max_queued_requests=1))
    good = client()
    assert json.loads(await good.score()) == {"length": 2}
    running = good.score(hold=True)
    await bed.counts(router, busy=1)
    # One of them waits, the other finds the place taken.
    both = await asyncio.gather(*[refused(good.score()) for _ in range(2)])
    assert sorted(answer[:2] for answer in both) == [
        (CODE.UNAVAILABLE, "queue-full"),
        (CODE.UNAVAILABLE, "queue-timeout"),
    ]
    await release(replica)
    await running
    await router.stop()

    (owner_port,) = free_ports(1)
    cluster = Cluster(owner_host="127.0.0.1", owner_port=owner_port, token="secret-of-routers")
    owner = await bed.router(cluster=cluster)
    state = calls({"A": (10_000, [replica])}, keys=("k",))
    held = replace(state.endpoints["svc"], tenure=Tenure(Phase.HOLDING, Epoch(1, "a")))
    await owner.apply(RouterState({"svc": held}))
    keyed = client(KEYED)
    assert json.loads(await keyed.score()) == {"length": 2}
    assert await keyed.sum(numbers(3, 0.05)) == b"3"
    chat = keyed.chat()
    await chat.write(b"{}")
    assert await chat.read() == b"{}"
    # The owner's process dies: what is under way there is lost, and told so.
    os.kill(bed.haproxy_pid("p1"), signal.SIGKILL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chat.read()
    assert caught.value.code() in (CODE.UNAVAILABLE, CODE.INTERNAL, CODE.CANCELLED)


@pytest.mark.long
async def test_the_limits_of_time_and_size(bed: Any, speaks: Any, calls: Any, client: Any) -> None:
    limits = {"scoringTimeoutMs": 700, "clientTimeoutMs": 300, "maxBodyBytes": 1_000}
    replica = await speaks(cap=2, **limits)
    router = await bed.router()
    await router.apply(calls({"A": (10_000, [replica])}, scoring_timeout_ms=700))
    good = client()
    assert (await refused(good.score(sleep_ms=1_500)))[:2] == (CODE.DEADLINE_EXCEEDED, "scoring-timeout")
    assert (await refused(good.score(pad="x" * 2_000)))[:2] == (CODE.RESOURCE_EXHAUSTED, "too-large")
    # Many messages may have more, and pauses between them are no slowness of a client's.
    assert await good.sum(numbers(4, 0.4)) == b"6"
    chat = good.chat()
    await chat.write(b"{}")
    assert await chat.read() == b"{}"
    # But not for ever.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chat.read()
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
    await bed.until(lambda: _running(replica, 0))
