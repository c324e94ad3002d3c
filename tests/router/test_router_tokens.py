"""Tokens through the real router: asked about once, remembered until they end."""

import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_clients import CODE, NAMED, Client, refused

from aks_inference_runtime.api.endpoint import AuthMode
from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.model import RouterState, TokenRules
from aks_inference_runtime.router.ownership import Epoch, Phase, Tenure
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.tokens import keys
from testbed.processes import free_ports

KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = "https://issuer.example"


def token(seconds: float, audience: str = "scoring") -> str:
    claims = {"iss": ISSUER, "aud": audience, "exp": time.time() + seconds}
    return jwt.encode(claims, KEY, algorithm="ES256", headers={"kid": "k"})


@pytest.fixture
def away() -> set[str]:
    """What the issuer does not answer to now."""
    return set()


@asynccontextmanager
async def asking(state: RouterState, away: set[str], **changes: Any) -> AsyncIterator[int]:
    """The port of a router whose endpoint asks for tokens; their clocks may differ by nothing."""

    async def fetch(url: str) -> dict[str, Any]:
        assert url == f"{ISSUER}/keys"
        if url in away:
            raise RuntimeUnavailable(f"{url}: away")
        return {"keys": [{**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key())), "kid": "k"}]}

    front, owner = free_ports(2)
    directory = Path(tempfile.mkdtemp(prefix="akst-"))
    cluster = Cluster(owner_host="127.0.0.1", owner_port=owner)
    router = HaproxyRouter(directory, port=front, cluster=cluster, fetch=fetch)
    try:
        await router.start()
        (endpoint,) = state.endpoints.values()
        rules = TokenRules(ISSUER, ("scoring",), f"{ISSUER}/keys", skew_s=0)
        tenure = Tenure(Phase.HOLDING, Epoch(1, "a"))
        endpoint = replace(endpoint, auth=AuthMode.TOKEN, token=rules, tenure=tenure, **changes)
        await router.apply(RouterState({"svc": endpoint}))
        yield front
    finally:
        await router.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture
async def port(bed: Any, make_state: Callable[..., RouterState], away: set[str]) -> AsyncIterator[int]:
    async with asking(make_state({"A": (10_000, [await bed.replica()])}), away) as front:
        yield front


async def test_good_and_bad_tokens(bed: Any, port: int) -> None:
    good = token(60)
    for _ in range(3):
        assert (await bed.ask(port=port, key=good)).status == 200
    for bad in ("nonsense", token(60, audience="else"), token(-5), good[:-4] + "AAAA", None):
        answer = await bed.ask(port=port, key=bad)
        assert (answer.status, answer.reason) == (401, "auth")
    assert (await bed.ask(port=port, method="GET", path="/api/v1/service/svc/swagger.json", key=good)).status != 401
    (replica,) = bed.replicas
    assert "authorization" not in (await replica.stats())["last_headers"]


async def test_a_token_ends_also_on_a_lasting_connection(bed: Any, port: int) -> None:
    short = token(2)
    assert (await bed.ask(port=port, key=short)).status == 200

    async def refused() -> bool:
        return (await bed.ask(port=port, key=short)).status == 401

    await bed.until(refused, timeout_s=8)


async def test_an_issuer_that_is_away_is_no_wrong_token(
    bed: Any, port: int, away: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "UNKNOWN_S", 0.0)
    away.add(f"{ISSUER}/keys")
    for body in (b"{}", b"x" * 1_000_000):
        answer = await bed.ask(port=port, key=token(60), data=body)
        assert (answer.status, answer.reason) == (503, "issuer-unavailable")
        assert answer.headers["retry-after"] == "10"
        assert b"cannot be verified now" in answer.body
    # What needs no key to be refused is.
    for bad in ("nonsense", None, "a b"):
        answer = await bed.ask(port=port, key=bad)
        assert (answer.status, answer.reason) == (401, "auth")
    away.clear()
    assert (await bed.ask(port=port, key=token(60))).status == 200
    assert (await bed.replicas[0].stats())["served"] == 1


@pytest.mark.long
async def test_tokens_of_calls(bed: Any, make_state: Callable[..., RouterState], away: set[str]) -> None:
    stub = Path(__file__).with_name("grpc_replica.py")
    replica = await bed.replica(stub=stub, protocol="grpc", healthProtocol="grpc")
    async with (
        asking(make_state({"A": (10_000, [replica])}), away, grpc=True) as front,
        grpc.aio.insecure_channel(f"127.0.0.1:{front}") as channel,
    ):
        client = Client(channel, NAMED)
        good = (*NAMED, ("authorization", f"Bearer {token(60)}"))
        assert json.loads(await client.score(metadata=good)) == {"length": 2}
        bad = (*NAMED, ("authorization", f"Bearer {token(-5)}"))
        assert (await refused(client.score(metadata=bad)))[:2] == (CODE.UNAUTHENTICATED, "auth")
        assert (await refused(client.score()))[:2] == (CODE.UNAUTHENTICATED, "auth")
