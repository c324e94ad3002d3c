"""Blob Storage by the identity of a pod: tokens of Microsoft Entra ID for a federated one, and what expires.

Azurite takes tokens (`--oauth basic` looks at issuer, audience and times). The hosts are Azure's own: a proxy of the
test leads them to this machine. Who gives tokens is a stand-in of the test's own.
"""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bench.servers import of_tests

from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.azure import CA_FILE, CONNECTION_STRING, CONNECTION_STRING_FILE
from aks_inference_runtime.models.errors import StoreUnavailable
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile
from testbed.authority import Authority

pytestmark = pytest.mark.long
ACCOUNT, LOGIN = "devstoreaccount1.blob.core.windows.net", "login.microsoftonline.com"
TENANT = "11111111-2222-3333-4444-555555555555"


class Entra:
    """Gives tokens that live as long as the test says."""

    def __init__(self) -> None:
        self.lifetime_s = 3600
        self.refused = False
        self.asked: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            host = f"https://{LOGIN}/{TENANT}"
            known = {"issuer": f"{host}/v2.0", "authorization_endpoint": f"{host}/oauth2/v2.0/authorize"}
            return web.json_response({**known, "token_endpoint": f"{host}/oauth2/v2.0/token"})
        self.asked.append({key: str(value) for key, value in (await request.post()).items()})
        if self.refused:
            told = {"error": "invalid_client", "error_description": "AADSTS70021: No matching federated identity"}
            return web.json_response(told, status=401)
        answer = {"token_type": "Bearer", "access_token": token(self.lifetime_s), "expires_in": self.lifetime_s}
        return web.json_response(answer)

    async def metadata(self, request: web.Request) -> web.Response:
        """As the machine's own service answers, for the identities that the machine has."""
        if request.headers.get("Metadata") != "true":
            return web.json_response({"error": "invalid_request"}, status=400)
        self.asked.append(dict(request.query))
        if request.query.get("client_id") not in (None, "of-the-node"):
            told = {"error": "invalid_request", "error_description": "Identity not found"}
            return web.json_response(told, status=400)
        seconds = str(self.lifetime_s)
        answer = {"token_type": "Bearer", "access_token": token(self.lifetime_s), "expires_in": seconds}
        answer |= {"expires_on": str(int(time.time()) + self.lifetime_s), "resource": request.query["resource"]}
        return web.json_response(answer)


def token(lifetime_s: int) -> str:
    expires = int(time.time()) + lifetime_s
    claims = {"iss": f"https://sts.windows.net/{TENANT}/", "aud": "https://storage.azure.com", "exp": expires}
    claims |= {"nbf": expires - lifetime_s - 60, "iat": expires - lifetime_s, "tid": TENANT}
    return ".".join(_part(one) for one in ({"typ": "JWT", "alg": "HS256"}, claims, {"unsigned": True}))


def _part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


@contextlib.asynccontextmanager
async def leading(places: dict[str, int]) -> AsyncIterator[str]:
    """A proxy for CONNECT: hosts to ports of this machine, everything else to nowhere."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().rpartition(":")[0]
        if host not in places:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        there, back = await asyncio.open_connection("127.0.0.1", places[host])
        try:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(pump(reader, back), pump(there, writer))
        finally:
            await closed(back)

    async def closed(writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        led.add(task)
        try:
            await lead(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over, and the client keeps its connections
        finally:
            await closed(writer)
            led.discard(task)

    led = set[asyncio.Task[None]]()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(led):
            task.cancel()
        await asyncio.gather(*led, return_exceptions=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def azurite_port(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One with the container `models`, which takes tokens by TLS."""
    models, folder = of_tests("models"), tmp_path_factory.mktemp("azurite")
    program = models.install_azurite()
    if isinstance(program, str):
        pytest.skip(program)
    with models.running_azurite(folder) as plain:
        plain.container("models")
        saved = folder / "__azurite_db_blob__.json"
        models.wait_until(lambda: saved.is_file() and '"name":"models"' in saved.read_text(), "the container is saved")
    certificate, key = authority.issue("blob", "blob", hosts=[ACCOUNT])
    (port,) = models.free_ports(1)
    secure = [*program, "--cert", str(certificate), "--key", str(key), "--oauth", "basic"]
    running = models.Azurite(models.start_azurite(secure, folder, port), port, folder, secure)
    try:
        yield port
    finally:
        running.kill()


@pytest.fixture
async def entra(
    authority: Authority, azurite_port: int, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Entra]:
    """What workload identity puts into a pod: variables with names, and a file with the pod's own token."""
    made = Entra()
    runner = await runner_of(made.handle)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("login", "login", hosts=[LOGIN]))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    (tmp_path / "federated").write_text("token-of-the-service-account")
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    told = {
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": "client",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "federated"),
        "AZURE_AUTHORITY_HOST": f"https://{LOGIN}/",
        "REQUESTS_CA_BUNDLE": str(authority.path),
        CA_FILE: str(authority.path),
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert CONNECTION_STRING not in os.environ
    assert CONNECTION_STRING_FILE not in os.environ
    async with leading({ACCOUNT: azurite_port, LOGIN: runner.addresses[0][1]}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        yield made
    await runner.cleanup()


async def runner_of(handler: Any) -> web.AppRunner:
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    return runner


@pytest.fixture
async def node(entra: Entra, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Entra]:
    """A machine with a managed identity, in place of a pod with one of its own."""
    runner = await runner_of(entra.metadata)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield entra
    await runner.cleanup()


def upload(folder: Path, size: int) -> Upload:
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(os.urandom(size))
    files = model_files(folder)
    digests = file_digests(files)
    return Upload("net", {n: StoredFile(p, digests[n], p.stat().st_size) for n, p in files.items()}, ModelFacts())


async def test_a_federated_identity_reads_and_writes(entra: Entra, tmp_path: Path) -> None:
    store = open_store(f"az://{ACCOUNT}/models/{uuid.uuid4().hex[:8]}")
    record = await store.put(upload(tmp_path / "net", 100_000))
    await store.fetch(record, tmp_path / "back")
    assert (tmp_path / "back/net/model.bin").read_bytes() == (tmp_path / "net/model.bin").read_bytes()
    assert entra.asked[0]["client_assertion"] == "token-of-the-service-account"
    assert entra.asked[0]["scope"].startswith("https://storage.azure.com/.default")


async def test_tokens_that_expire_are_renewed_on_the_way(entra: Entra, tmp_path: Path) -> None:
    """Each token is good for three seconds; the work goes on when the first one is no more."""
    entra.lifetime_s = 3
    store = open_store(f"az://{ACCOUNT}/models/{uuid.uuid4().hex[:8]}")
    record = await store.put(upload(tmp_path / "net", 20 * 1024 * 1024))
    first, until = len(entra.asked), time.monotonic() + entra.lifetime_s + 1
    while time.monotonic() < until:
        assert [one.version for one in await store.versions("net")] == [1]
    await store.fetch(record, tmp_path / "back")
    assert (tmp_path / "back/net/model.bin").read_bytes() == (tmp_path / "net/model.bin").read_bytes()
    assert len(entra.asked) > first


async def test_an_identity_that_is_refused_is_told_in_a_sentence(entra: Entra, tmp_path: Path) -> None:
    entra.refused = True
    store = open_store(f"az://{ACCOUNT}/models/{uuid.uuid4().hex[:8]}")
    with pytest.raises(StoreUnavailable) as caught:
        await store.put(upload(tmp_path / "net", 1000))
    said = str(caught.value)
    assert "az://" in said
    assert "token-of-the-service-account" not in said
    assert len(said.splitlines()) <= 2


async def test_a_managed_identity_reads_and_writes(node: Entra, tmp_path: Path) -> None:
    store = open_store(f"az://{ACCOUNT}/models/{uuid.uuid4().hex[:8]}")
    record = await store.put(upload(tmp_path / "net", 100_000))
    await store.fetch(record, tmp_path / "back")
    assert (tmp_path / "back/net/model.bin").read_bytes() == (tmp_path / "net/model.bin").read_bytes()
    assert {one["resource"].rstrip("/") for one in node.asked} == {"https://storage.azure.com"}


@pytest.mark.parametrize(("name", "there"), [("of-the-node", True), ("of-nobody", False)])
async def test_an_identity_that_is_named(
    node: Entra, name: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several that a node has, by the variable that Azure's libraries read."""
    monkeypatch.setenv("AZURE_CLIENT_ID", name)
    store = open_store(f"az://{ACCOUNT}/models/{uuid.uuid4().hex[:8]}")
    if there:
        await store.put(upload(tmp_path / "net", 1000))
    else:
        with pytest.raises(StoreUnavailable, match="az://"):
            await store.put(upload(tmp_path / "net", 1000))
    assert {one.get("client_id") for one in node.asked} == {name}
