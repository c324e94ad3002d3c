"""What routers take from Secrets: the certificate of the scoring address, and the token that they show each other."""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import sys
import time
from datetime import datetime
from pathlib import Path

import aiohttp
from cryptography import x509

from aks_inference_runtime.api.kubernetes import (
    CERTIFICATE_HOST_VARIABLE,
    ISSUED_TLS_NAME,
    TLS_CHAIN_FIELD,
    TLS_KEY_FIELD,
    TLS_NAME,
    TLS_TYPE,
    VAULT_TLS_NAME,
)
from aks_inference_runtime.kubernetes import reports
from aks_inference_runtime.kubernetes.certificate import PORT_VARIABLE
from testbed.certificates import make_certificate
from testbed.processes import Running
from testbed.routers import KEY, Bed, Load, ask, served


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


def put(bed: Bed, name: str, chain: bytes, key: bytes) -> None:
    """The Secret with a certificate."""
    parts = ((TLS_CHAIN_FIELD, chain), (TLS_KEY_FIELD, key))
    data = {field: base64.b64encode(text).decode() for field, text in parts}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": TLS_TYPE, "data": data}
    path = f"/api/v1/namespaces/{bed.namespace}/secrets/{name}"
    assert bed.cluster.api.apply(path, body).status in (200, 201)


async def test_the_certificate_is_the_secrets(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    """I4: another Secret under load reaches all routers, and no request fails; also one from a vault in its place."""
    told = {**json.loads(bed.settings.read_text()), "httpsPort": bed.https_port}
    bed.settings.write_text(json.dumps({**told, "tlsSecrets": [VAULT_TLS_NAME, TLS_NAME]}))

    def present(name: str) -> tuple[ssl.SSLContext, int, datetime]:
        chain, key = make_certificate(*(f"127.0.0.{number + 2}" for number in range(2)))
        put(bed, name, chain, key)
        context = ssl.create_default_context(cadata=chain.decode())
        (made, *_) = x509.load_pem_x509_certificates(chain)
        return context, made.serial_number, made.not_valid_after_utc

    async def shown(serial: int) -> None:
        deadline = time.monotonic() + 20
        for address in bed.addresses.values():
            while True:
                pem = await asyncio.to_thread(ssl.get_server_certificate, (address, bed.https_port))
                if x509.load_pem_x509_certificate(pem.encode()).serial_number == serial:
                    break
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    trusted, serial, ends = present(TLS_NAME)
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)
    await shown(serial)
    async with session.get(f"http://{bed.addresses['router-0']}:{bed.agent_port}/metrics") as answer:
        # Whoever issued it: the alert is about what is served.
        assert f"aks_inference_certificate_ends_seconds {int(ends.timestamp())}" in await answer.text()
    url = bed.url("router-0", name).replace("http:", "https:").replace(str(bed.http_port), str(bed.https_port))
    async with session.post(url, data=b"{}", headers={"authorization": f"Bearer {KEY}"}, ssl=trusted) as answer:
        assert answer.status == 200
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, ssl=False)) as fresh:
        load = Load(fresh, url, 4)
        for secret in (TLS_NAME, VAULT_TLS_NAME, VAULT_TLS_NAME):
            served_before = load.answers[200]
            _, serial, _ = present(secret)
            await shown(serial)
            deadline = time.monotonic() + 30
            while load.answers[200] < served_before + 8:
                assert time.monotonic() < deadline, load.answers
                await asyncio.sleep(0.05)
        await load.end()
    assert set(load.answers) == {200}, load.answers


async def test_http_is_served_until_there_is_a_certificate(bed: Bed, session: aiohttp.ClientSession, name: str) -> None:
    """I4: TLS that is asked for at routers that served without it takes nothing away before its certificate is there;
    they say what they wait for."""
    issued = [ISSUED_TLS_NAME, TLS_NAME]
    bed.tell(httpsPort=bed.https_port, tlsSecrets=issued, plainUntilCertificate=True)
    for number in range(2):
        bed.router(f"router-{number}", f"127.0.0.{number + 2}")
    await bed.ready(session)

    async def waits(address: str) -> str:
        async with session.get(f"http://{address}:{bed.agent_port}{reports.PATH}") as answer:
            return str(json.loads(await answer.content.readline()).get("waits", ""))

    for router, address in bed.addresses.items():
        await served(session, bed.url(router, name))
        told = await waits(address)
        assert told.startswith(f"https waits for its certificate (Secret {ISSUED_TLS_NAME} in {bed.namespace}); until")
        assert "requests without TLS are served" in told
    chain, key = make_certificate(*bed.addresses.values())
    trusted = ssl.create_default_context(cadata=chain.decode())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as fresh:
        load = Load(fresh, bed.url("router-0", name), 4)
        await load.serves()
        put(bed, ISSUED_TLS_NAME, chain, key)
        deadline = time.monotonic() + 20
        for address in bed.addresses.values():
            while await waits(address):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        for router in bed.addresses:
            while await ask(session, bed.url(router, name)) != 400:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        await load.end()
    assert set(load.answers) <= {200, 400}, load.answers
    for router in bed.addresses:
        secure = bed.url(router, name).replace("http:", "https:").replace(str(bed.http_port), str(bed.https_port))
        async with session.post(secure, data=b"{}", headers={"authorization": f"Bearer {KEY}"}, ssl=trusted) as answer:
            assert answer.status == 200


async def test_the_pod_of_a_vaults_certificate(bed: Bed, session: aiohttp.ClientSession) -> None:
    """It is ready while the Secret that the driver keeps can be served, and says why it is not."""
    environment = {name: value for name, value in os.environ.items() if name != "KUBERNETES_SERVICE_HOST"} | {
        "KUBECONFIG": str(bed.cluster.kubeconfig),
        "POD_NAME": "certificate",
        "POD_NAMESPACE": bed.namespace,
        "POD_IP": "127.0.0.1",
        PORT_VARIABLE: str(bed.agent_port),
        CERTIFICATE_HOST_VARIABLE: "scoring.example.com",
    }
    command = [sys.executable, "-m", "aks_inference_runtime.kubernetes.certificate"]
    pod = Running("certificate", command, bed.folder / "certificate.log", env=environment)
    bed.running.append(pod)

    async def until(status: int, says: str) -> None:
        deadline = time.monotonic() + 40
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{bed.agent_port}/readyz") as answer:
                    if answer.status == status and says in pod.tail(1):
                        return
            assert pod.process.poll() is None, pod.tail()
            assert time.monotonic() < deadline, (status, says, pod.tail())
            await asyncio.sleep(0.05)

    await until(503, "has not made the Secret")
    put(bed, TLS_NAME, *make_certificate("scoring.example.com"))
    put(bed, VAULT_TLS_NAME, *make_certificate("other.example.com"))
    await until(503, "which is for other.example.com")
    chain, key = make_certificate("scoring.example.com")
    put(bed, VAULT_TLS_NAME, chain, key)
    await until(200, "the certificate for scoring.example.com until")
    async with session.get(f"http://127.0.0.1:{bed.agent_port}/metrics") as answer:
        ends = x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc.timestamp()
        assert f"aks_inference_certificate_ends_seconds {int(ends)}" in await answer.text()
    bed.cluster.api.delete(f"/api/v1/namespaces/{bed.namespace}/secrets/{VAULT_TLS_NAME}")
    await until(503, "has not made the Secret")
    pod.process.terminate()
    assert await asyncio.to_thread(pod.process.wait, 10) == 0
    assert key.decode().splitlines()[1] not in pod.log.read_text()
