"""What is done to a cluster while clients come, and how many of their requests fail: none should.

All replicas are replaced one by one; the keys change; the certificate changes, for clients with TLS; a pool's replicas
go to new nodes, as its drain has it; each router in turn is asked to end and started again. A refused connection has
failed, too, unless the router is away: one that was asked to end takes them for its notice time, as clients hear of its
end later than it does.
"""

import asyncio
import base64
import hashlib
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from bench import control_plane as plane
from bench.chaos_bed import NAME, ROUTERS, Chaos, Replica
from bench.harness import progress

from aks_inference_runtime.api.kubernetes import (
    KEYS_FIELD,
    TLS_CHAIN_FIELD,
    TLS_KEY_FIELD,
    TLS_NAME,
    TLS_TYPE,
    keys_secret_name,
)
from aks_inference_runtime.kubernetes.agent import NOTICE_S
from testbed.certificates import make_certificate
from testbed.routers import KEY

RATE = 100
SETTLE_S = 0.5
"""Between two steps: several looks of a router."""
CERTIFICATES = 4
SECRETS = f"/api/v1/namespaces/{plane.NAMESPACE}/secrets"

Away = dict[str, tuple[float, float]]
"""Address of a router → from when until when it need not take connections."""
Certificate = tuple[bytes, bytes]
"""Chain and key."""


async def maintenance(bed: Chaos, replicas: int, *, quick: bool) -> dict[str, Any]:
    """Requests that failed in each kind of it. `replicas`: the first so many of the bed are those that serve.

    `quick`: of the routers only the one that owns the endpoint ends."""
    serving = bed.replicas[:replicas]
    first, *others = [make_certificate(*ROUTERS.values()) for _ in range(CERTIFICATES)]
    await bed.there.api.create(SECRETS, {"metadata": {"name": TLS_NAME}, "type": TLS_TYPE, **_data(first)})
    await _shown(bed, first)
    trusted = b"".join(chain for chain, _ in (first, *others)).decode()
    away: Away = {}
    steps: dict[str, Callable[[Chaos], Awaitable[None]]] = {
        "rolling update": partial(roll, serving=serving),
        "key rotation": rotate,
        "certificate change": partial(renew, certificates=others),
        "node pool swap": partial(swap, serving=serving),
        "router upgrade": partial(upgrade, names=[bed.owner] if quick else list(ROUTERS), away=away),
    }
    failed = {}
    for name, work in steps.items():
        progress(f"cluster: {name}")
        load = await bed.load(RATE, trusted if name == "certificate change" else None)
        await asyncio.sleep(SETTLE_S)
        await work(bed)
        await asyncio.sleep(SETTLE_S)
        found = Counter(f"{status} {reason}".strip() for _, _, status, reason in await load.end() if status != 200)
        found.update(
            f"refused by {address}"
            for at, address in load.refused
            if not (address in away and away[address][0] <= at <= away[address][1])
        )
        failed[name] = dict(found)
    return {"failed_in_maintenance": sum(sum(found.values()) for found in failed.values()), "failed": failed}


async def roll(bed: Chaos, serving: list[Replica]) -> None:
    """Every replica is replaced: the new one is there before the old one goes."""
    for number, old in enumerate(serving):
        serving[number] = new = bed.replica()
        await gate_ready(bed, new)
        await bed.announce(new)
        await first_request(bed, new)
        await bed.withdraw(old)
        await asyncio.sleep(SETTLE_S)
        await asyncio.to_thread(old.end)


async def rotate(bed: Chaos) -> None:
    """Another key beside the one in use, then another one in its place, twice."""
    for other in ("second-key", "third-key"):
        digests = "\n".join(hashlib.sha256(key.encode()).hexdigest() for key in (KEY, other))
        data = {KEYS_FIELD: base64.b64encode(digests.encode()).decode()}
        await bed.there.api.patch(f"{SECRETS}/{keys_secret_name(NAME)}", {"data": data})
        await asyncio.sleep(SETTLE_S)


async def renew(bed: Chaos, certificates: Sequence[Certificate]) -> None:
    """One certificate after the other, each as soon as all routers show the one before."""
    for certificate in certificates:
        await bed.there.api.patch(f"{SECRETS}/{TLS_NAME}", _data(certificate))
        await _shown(bed, certificate)
        await asyncio.sleep(SETTLE_S)


async def swap(bed: Chaos, serving: Sequence[Replica]) -> None:
    """Every replica has a successor on another node that is ready, and all are evicted at once."""
    for new in [bed.replica() for _ in serving]:
        await gate_ready(bed, new)
        await bed.announce(new)
    await asyncio.gather(*(evict(bed, old) for old in serving))


async def evict(bed: Chaos, replica: Replica) -> None:
    """Routers hear of it while its kubelet ends it: `preStop`, then the server is told to end, then the gate."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{plane.NAMESPACE}/endpointslices/{replica.uid}"
    (told,) = replica.slice(NAME)["endpoints"]
    ends = {**told, "conditions": {"ready": False, "serving": True, "terminating": True}}
    drained = f"http://{replica.address}:{replica.ports[2]}/drained"
    _, status = await asyncio.gather(bed.there.api.patch(path, {"endpoints": [ends]}), _status(bed, drained))
    if status != 200:
        raise RuntimeError(f"{replica.uid}: its end is answered {status}")
    for part in (replica.stub, replica.gate):
        assert part is not None
        await asyncio.to_thread(part.end)
    await bed.withdraw(replica)


async def upgrade(bed: Chaos, names: Sequence[str], away: Away) -> None:
    """Each of these routers in turn ends when it is asked to, and is started again."""
    for name in names:
        address = ROUTERS[name]
        process = bed.bed.routers[name].process
        closes = time.time() + NOTICE_S
        away[address] = closes, float("inf")
        process.terminate()
        if await asyncio.to_thread(process.wait, 60):
            raise RuntimeError(f"{name} ended with {process.returncode}")
        bed.bed.start_router(name)
        await bed.bed.ready(bed.session, name)
        away[address] = closes, time.time()
        await asyncio.sleep(SETTLE_S)


async def gate_ready(bed: Chaos, replica: Replica) -> None:
    """Waits until its gate says so to a kubelet."""
    async with asyncio.timeout(30):
        while await _status(bed, f"http://{replica.address}:{replica.ports[2]}/readyz") != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def first_request(bed: Chaos, replica: Replica) -> float:
    """When its model server got one, by the wall clock."""
    async with asyncio.timeout(30):
        while True:
            async with bed.session.get(f"http://127.0.0.1:{replica.ports[3]}/_stats") as answer:
                began = (await answer.json(content_type=None))["began"]
            if began:
                return float(began[0][1])
            await asyncio.sleep(0.02)


def _data(certificate: Certificate) -> dict[str, Any]:
    fields = zip((TLS_CHAIN_FIELD, TLS_KEY_FIELD), certificate, strict=True)
    return {"data": {field: base64.b64encode(text).decode() for field, text in fields}}


async def _shown(bed: Chaos, certificate: Certificate) -> None:
    """Waits until every router has it for new connections."""
    async with asyncio.timeout(30):
        for address in ROUTERS.values():
            while True:
                shown = await asyncio.to_thread(ssl.get_server_certificate, (address, bed.bed.https_port))
                if certificate[0].decode().startswith(shown.strip()):
                    break
                await asyncio.sleep(0.02)


async def _status(bed: Chaos, url: str) -> int:
    try:
        async with bed.session.get(url) as answer:
            return answer.status
    except OSError:
        return 0
