"""Tokens at routers of a cluster: a real issuer, a real API server, two routers as processes."""

import asyncio
import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

from aks_inference_runtime.api.endpoint import API_VERSION
from testbed.routers import Bed, ask

ISSUER = Path(__file__).parents[1] / "local" / "oidc_issuer.py"
AUDIENCE = "api://scoring"


async def token_of(session: aiohttp.ClientSession, issuer: str) -> str:
    who = base64.b64encode(b"client-1:s3cr3t%2Fwith%2Bsigns").decode()
    headers = {"authorization": f"Basic {who}"}
    async with session.post(f"{issuer}/token", data={"audience": AUDIENCE}, headers=headers) as answer:
        return str((await answer.json())["access_token"])


async def test_every_router_verifies_tokens(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    process = subprocess.Popen([sys.executable, ISSUER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        issuer = (await asyncio.to_thread(process.stdout.readline)).strip()
        token: dict[str, Any] = {"issuer": issuer, "audiences": [AUDIENCE]}
        path = f"/apis/{API_VERSION}/namespaces/{bed.namespace}/scoringendpoints/{name}"
        patched = await asyncio.to_thread(bed.cluster.api.merge, path, {"spec": {"auth": "token", "token": token}})
        assert patched.status == 200, patched.message
        for number in range(2):
            bed.router(f"router-{number}", f"127.0.0.{number + 2}")
        await bed.ready(session)
        good = await token_of(session, issuer)
        for router in bed.routers:
            url = bed.url(router, name)
            async with asyncio.timeout(60):
                while await ask(session, url, key=good) != 200:
                    await asyncio.sleep(0.05)
            assert await ask(session, url, key="wrong") == 401
            assert await ask(session, url) == 401, "a key that was good is none any more"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()
