"""The router with TLS: what it speaks, where its key is, and a certificate that changes while it serves."""

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import stat
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aks_inference_runtime.api.certificates import Certificate, usable
from aks_inference_runtime.router.model import RouterState
from aks_inference_runtime.router.tls import CHALLENGE_PATH, Tls
from testbed.certificates import make_certificate

HOST = "127.0.0.1"


class Secure:
    """A router with TLS, an endpoint `svc` with the key `k`, and a client that trusts some authorities."""

    def __init__(self, bed: Any, make_state: Any, port: int, replica: Any) -> None:
        self.bed, self.port, self.replica = bed, port, replica
        self._make_state = make_state
        self.trusted = ssl.create_default_context(cadata="")
        self.trusted.check_hostname = True

    def trust(self, certificate: Certificate) -> Certificate:
        root = "-----BEGIN CERTIFICATE-----" + certificate.chain.rpartition("-----BEGIN CERTIFICATE-----")[2]
        self.trusted.load_verify_locations(cadata=root)
        return certificate

    def state(self, certificate: Certificate | None, *solvers: tuple[str, int]) -> RouterState:
        served = self._make_state({"A": (10_000, [self.replica])}, keys=("k",), max_request_wait_time=5_000)
        return RouterState(served.endpoints, {}, certificate, solvers)

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/api/v1/service/svc/score"

    async def ask(self, session: aiohttp.ClientSession) -> int:
        headers = {"authorization": "Bearer k"}
        async with session.post(self.url, data=b"{}", headers=headers, ssl=self.trusted) as answer:
            await answer.read()
            return answer.status

    async def serial(self) -> int:
        """Of the certificate that a new connection gets."""
        from cryptography import x509

        pem = await asyncio.to_thread(ssl.get_server_certificate, (HOST, self.port))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


@pytest.fixture
async def make_secure(bed: Any, make_state: Any) -> Callable[..., Any]:
    async def make(port: int, **options: Any) -> Secure:
        replica = await bed.replica(cap=8)
        await bed.router(tls=Tls(port, **options))
        return Secure(bed, make_state, port, replica)

    return make


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


def issued(*names: str) -> Certificate:
    return usable(*make_certificate(*(names or (HOST,))))


def serial_of(certificate: Certificate) -> int:
    from cryptography import x509

    return x509.load_pem_x509_certificates(certificate.chain.encode())[0].serial_number


async def curl(*arguments: str) -> str:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("needs curl")
    process = await asyncio.create_subprocess_exec(
        program, "-sS", "-m", "20", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_clients_that_trust_the_authority_are_served(make_secure, unused_port, session):
    secure = await make_secure(unused_port)
    router = secure.bed.routers[0]
    await router.apply(secure.state(secure.trust(issued())))
    assert await secure.ask(session) == 200
    # Another name is another host.
    await router.apply(secure.state(secure.trust(issued("other.example"))))
    async with aiohttp.ClientSession() as fresh:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await secure.ask(fresh)


async def test_versions_and_protocols(make_secure, unused_port):
    secure = await make_secure(unused_port)
    await secure.bed.routers[0].apply(secure.state(secure.trust(issued())))
    post = ("-k", "-d", "{}", "-H", "authorization: Bearer k", "-o", "/dev/null", secure.url)
    for flag, version in (("--http1.1", "1.1"), ("--http2", "2")):
        assert await curl(flag, "-w", "%{http_code} %{http_version}", *post) == f"200 {version}"
    for flags in (("--tlsv1.2", "--tls-max", "1.2"), ("--tlsv1.3",)):
        assert await curl(*flags, "-w", "%{http_code}", *post) == "200"
    # curl offers 1.1 only with ciphers of that time.
    old = await curl("--tlsv1.0", "--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0", *post)
    assert "curl: (35)" in old


async def test_only_1_3_where_that_is_asked_for(make_secure, unused_port):
    secure = await make_secure(unused_port, minimum_version="1.3")
    await secure.bed.routers[0].apply(secure.state(issued()))
    url = f"https://{HOST}:{secure.port}/"
    assert await curl("-k", "--tlsv1.3", url) == "Healthy"
    assert "curl: (35)" in await curl("-k", "--tls-max", "1.2", url)


async def test_the_plain_port_refuses_what_would_carry_a_key(make_secure, unused_port):
    secure = await make_secure(unused_port)
    await secure.bed.routers[0].apply(secure.state(issued()))
    answer = await secure.bed.ask(key="k")
    assert (answer.status, answer.reason) == (400, "bad-request")
    assert b"use https" in answer.body
    assert (await secure.bed.ask(key="k", data=b"x" * 900_000)).status == 400
    health = await secure.bed.ask(method="GET", path="/", data=None)
    assert (health.status, health.body) == (200, b"Healthy")
    assert (await secure.replica.stats())["served"] == 0


async def test_the_plain_port_serves_where_that_is_allowed(make_secure, unused_port, session):
    secure = await make_secure(unused_port, plain=True)
    await secure.bed.routers[0].apply(secure.state(secure.trust(issued())))
    assert (await secure.bed.ask(key="k")).status == 200
    assert (await secure.bed.ask(key="wrong")).status == 401
    assert (await secure.bed.ask("other", key="k")).reason == "not-found"
    assert await secure.ask(session) == 200


async def test_the_key_is_nobody_elses(make_secure, unused_port):
    secure = await make_secure(unused_port)
    certificate = issued()
    await secure.bed.routers[0].apply(secure.state(certificate))
    folder = secure.bed.directory / "router"
    files = [path for path in folder.iterdir() if path.is_file() and certificate.key.encode() in path.read_bytes()]
    assert [path.name for path in files] == ["p0.pem"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    secret = certificate.key.splitlines()[1].encode()
    process = Path("/proc") / str(secure.bed.haproxy_pid())
    assert secret not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert secret.decode() not in repr(secure.state(certificate))
    await secure.bed.routers[0].stop()
    assert not folder.exists()


async def test_a_change_of_the_certificate_fails_no_request(make_secure, unused_port):
    """I4: under load, clients with a connection for each request beside clients that keep theirs."""
    secure = await make_secure(unused_port)
    router = secure.bed.routers[0]
    certificates = [secure.trust(issued()) for _ in range(6)]
    await router.apply(secure.state(certificates[0]))
    answers: Counter[Any] = Counter()
    done = asyncio.Event()

    async def client(*, keep: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not keep)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(20)) as session:
            while not done.is_set():
                try:
                    answers[await secure.ask(session)] += 1
                except aiohttp.ClientError as error:
                    answers[repr(error)] += 1

    async with asyncio.TaskGroup() as clients:
        for number in range(6):
            clients.create_task(client(keep=number % 2 == 0))
        for certificate in certificates[1:]:
            before = answers.total()
            await router.apply(secure.state(certificate))
            assert await secure.serial() == serial_of(certificate)
            async with asyncio.timeout(20):
                while answers.total() < before + 30:
                    await asyncio.sleep(0.01)
        done.set()
    assert set(answers) == {200}, answers


async def test_what_haproxy_refuses_leaves_the_one_before(make_secure, unused_port):
    secure = await make_secure(unused_port)
    router = secure.bed.routers[0]
    good = issued()
    await router.apply(secure.state(good))
    broken = Certificate(good.chain, good.key.replace(good.key.splitlines()[1], "nonsense"))
    await router.apply(secure.state(broken))
    assert await secure.serial() == serial_of(good)
    # The next change is not spoilt by it.
    after = issued()
    await router.apply(secure.state(after))
    assert await secure.serial() == serial_of(after)


async def test_a_process_that_dies_comes_back_with_the_certificate(make_secure, unused_port):
    secure = await make_secure(unused_port)
    certificate = issued()
    async with solver() as port:
        await secure.bed.routers[0].apply(secure.state(certificate, (HOST, port)))
        pid = secure.bed.haproxy_pid()
        os.kill(pid, signal.SIGKILL)

        async def back() -> bool:
            with contextlib.suppress(OSError, ssl.SSLError, aiohttp.ClientError):
                challenge = await secure.bed.ask(method="GET", path=f"{CHALLENGE_PATH}token", data=None)
                return await secure.serial() == serial_of(certificate) and challenge.body == b"token.proof"
            return False

        await secure.bed.until(back)
    assert secure.bed.haproxy_pid() != pid


async def test_the_plain_port_serves_until_there_is_a_certificate(make_secure, unused_port, session):
    """TLS that is added to what serves: no request fails for want of a certificate, nor by its coming (I4)."""
    secure = await make_secure(unused_port, until_certificate=True)
    bed, router = secure.bed, secure.bed.routers[0]
    path = f"{CHALLENGE_PATH}abc"
    async with solver() as port:
        await router.apply(secure.state(None, (HOST, port)))
        assert (await bed.ask(key="k")).status == 200
        assert (await bed.ask(key="wrong")).status == 401
        assert (await bed.ask(method="GET", path=path, data=None)).body == b"abc.proof"
        pid = bed.haproxy_pid()
        os.kill(pid, signal.SIGKILL)

        async def back() -> bool:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                return (await bed.ask(key="k")).status == 200
            return False

        await bed.until(back)
        # One that is under way while the port closes comes to its end.
        slow = asyncio.create_task(bed.ask(key="k", x_sleep_ms="1000"))
        await bed.counts(router, busy=1)
        certificate = secure.trust(issued())
        await router.apply(secure.state(certificate, (HOST, port)))
        assert (await slow).status == 200
        assert await secure.ask(session) == 200
        refused = await bed.ask(key="k")
        assert (refused.status, refused.reason) == (400, "bad-request")
        assert (await bed.ask(method="GET", path="/", data=None)).body == b"Healthy"
        assert (await bed.ask(method="GET", path=path, data=None)).body == b"abc.proof"
        # It stays closed: without the Secret, and when the process begins anew.
        await router.apply(secure.state(None, (HOST, port)))
        assert (await bed.ask(key="k")).status == 400
        os.kill(bed.haproxy_pid(), signal.SIGKILL)
        seen = set()

        async def closed() -> bool:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                seen.add((await bed.ask(key="k")).status)
            return bool(seen)

        await bed.until(closed)
        assert seen == {400}
    assert await secure.ask(session) == 200


@contextlib.asynccontextmanager
async def solver() -> AsyncIterator[int]:
    """Answers challenges as cert-manager's pods do."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.match_info['token']}.proof")

    application = web.Application()
    application.router.add_get(f"{CHALLENGE_PATH}{{token}}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("plain", [False, True])
async def test_challenges_go_to_who_answers_them(make_secure, unused_port, plain):
    secure = await make_secure(unused_port, plain=plain)
    router = secure.bed.routers[0]
    path = f"{CHALLENGE_PATH}abc"
    async with solver() as port:
        await router.apply(secure.state(None, (HOST, port)))
        answer = await secure.bed.ask(method="GET", path=path, data=None)
        assert (answer.status, answer.body) == (200, b"abc.proof")
    await router.apply(secure.state(issued()))
    assert (await secure.bed.ask(method="GET", path=path, data=None)).status == 503


@pytest.mark.parametrize("flag", ["--http1.1", "--http2"])
async def test_events_arrive_as_they_are_sent(make_secure, unused_port, flag):
    """Server-sent events: the first is there long before the last."""
    secure = await make_secure(unused_port)
    await secure.bed.routers[0].apply(secure.state(issued()))
    program = shutil.which("curl")
    if program is None:
        pytest.skip("needs curl")
    process = await asyncio.create_subprocess_exec(
        *(program, "-sSNk", "-m", "60", flag, "-d", "{}", "-H", "authorization: Bearer k"),
        *("-H", "x-stream: 4,500", secure.url),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    arrived = []
    clock = asyncio.get_running_loop().time
    while line := await process.stdout.readline():
        arrived.append((clock(), line))
    assert await process.wait() == 0
    assert [line for _, line in arrived] == [b"data: %d\n" % number for number in range(4)]
    assert arrived[-1][0] - arrived[0][0] > 0.7, "events are passed on one by one, not at the end"
