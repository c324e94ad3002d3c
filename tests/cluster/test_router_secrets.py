"""What routers take from Secrets: the certificate of the scoring address, and the token that they show each other."""

import asyncio
import base64
import json
import ssl
import time
from pathlib import Path

import aiohttp
from cryptography import x509

from aks_inference_runtime.api.kubernetes import TLS_CHAIN_FIELD, TLS_KEY_FIELD, TLS_NAME, TLS_TYPE
from testbed.certificates import make_certificate
from testbed.routers import KEY, Bed, Load, served


async def test_only_routers_use_the_way_between_routers(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    # By way of the one that does not own it: routers show each other the token.
    await served(session, bed.url("router-0", name))
    for shown in ({}, {"x-aks-inference-router": "a-guess"}):
        headers = {**shown, "x-aks-inference-version": "blue"}
        url = f"http://{bed.addresses['router-1']}:{bed.owner_port}/api/v1/service/{name}/score"
        async with session.post(url, data=b"{}", headers=headers) as answer:
            assert (answer.status, answer.headers["x-aks-inference-reason"]) == (401, "auth")
    for router in bed.routers:
        for pid in bed.haproxy_pids(router):
            process = Path("/proc") / str(pid)
            assert b"what-routers-show" not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()


async def test_the_certificate_is_the_secrets(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    """I4: another Secret under load reaches all routers, and no request fails."""
    told = {**json.loads(bed.settings.read_text()), "httpsPort": bed.https_port}
    bed.settings.write_text(json.dumps(told))
    secret = f"/api/v1/namespaces/{bed.namespace}/secrets/{TLS_NAME}"

    def present() -> tuple[ssl.SSLContext, int]:
        chain, key = make_certificate(*(f"127.0.0.{number + 2}" for number in range(2)))
        data = {
            field: base64.b64encode(text).decode() for field, text in ((TLS_CHAIN_FIELD, chain), (TLS_KEY_FIELD, key))
        }
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": TLS_NAME}, "type": TLS_TYPE, "data": data}
        assert bed.cluster.api.apply(secret, body).status in (200, 201)
        context = ssl.create_default_context(cadata=chain.decode())
        return context, x509.load_pem_x509_certificates(chain)[0].serial_number

    async def shown(serial: int) -> None:
        deadline = time.monotonic() + 20
        for address in bed.addresses.values():
            while True:
                pem = await asyncio.to_thread(ssl.get_server_certificate, (address, bed.https_port))
                if x509.load_pem_x509_certificate(pem.encode()).serial_number == serial:
                    break
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    trusted, serial = present()
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    await shown(serial)
    url = bed.url("router-0", name).replace("http:", "https:").replace(str(bed.http_port), str(bed.https_port))
    async with session.post(url, data=b"{}", headers={"authorization": f"Bearer {KEY}"}, ssl=trusted) as answer:
        assert answer.status == 200
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, ssl=False)) as fresh:
        load = Load(fresh, url, 4)
        for _ in range(3):
            served_before = load.answers[200]
            _, serial = present()
            await shown(serial)
            deadline = time.monotonic() + 30
            while load.answers[200] < served_before + 8:
                assert time.monotonic() < deadline, load.answers
                await asyncio.sleep(0.05)
        await load.end()
    assert set(load.answers) == {200}, load.answers
