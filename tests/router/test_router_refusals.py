"""Early answers to large bodies, as the clients that people use see them: the answer, never a reset."""

import asyncio
import contextlib
import http.client
import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from aks_inference_runtime.router import refusals
from aks_inference_runtime.router.model import VersionKey

BODY = b"x" * (20 * 1024 * 1024)
PATH = "/api/v1/service/svc/score"
SVC = VersionKey("svc", "A")
REFUSALS = 40
"""Of each kind, each over a connection of HTTP/2 of its own: one in a hundred did not arrive once."""


def by_http_client(port: int, path: str, body: bytes, key: str, _: Path) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body=body, headers={"authorization": f"Bearer {key}"})
        return connection.getresponse().status
    finally:
        connection.close()


def by_urllib(port: int, path: str, body: bytes, key: str, _: Path) -> int:
    headers = {"authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http only
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def by_chunks(port: int, path: str, body: bytes, key: str, _: Path) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
        connection.request("POST", path, body=pieces, headers={"authorization": f"Bearer {key}"}, encode_chunked=True)
        return connection.getresponse().status
    finally:
        connection.close()


def by_curl(port: int, path: str, body: bytes, key: str, folder: Path) -> int:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (folder / "body").write_bytes(body)
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"authorization: Bearer {key}"]
    command += ["--data-binary", f"@{folder / 'body'}", f"http://127.0.0.1:{port}{path}"]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


def by_requests(port: int, path: str, body: bytes, key: str, _: Path) -> int:
    requests = pytest.importorskip("requests")
    headers = {"authorization": f"Bearer {key}"}
    return int(requests.post(f"http://127.0.0.1:{port}{path}", data=body, headers=headers, timeout=30).status_code)


def by_socket(port: int, path: str, body: bytes, key: str, _: Path) -> int:
    """Writes all before it reads."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head.encode() + body)
        return int(client.recv(65_536).split()[1])


CLIENTS = [by_http_client, by_urllib, by_chunks, by_curl, by_requests, by_socket]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
async def test_a_large_body_that_is_refused(bed, make_state, tmp_path, unused_port, client):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("key",), port=unused_port))

    async def asked(path: str, body: bytes, key: str, port: int) -> int:
        return await asyncio.to_thread(client, port, path, body, key, tmp_path)

    assert await asked(PATH, BODY, "wrong", bed.port) == 401
    assert await asked("/nowhere", BODY, "key", bed.port) == 404
    assert await asked("/nowhere", BODY, "key", unused_port) == 404
    assert await asked("/score", BODY, "wrong", unused_port) == 401
    if client is not by_chunks:
        too_large = b"x" * 101_000_000
        assert await asked(PATH, too_large, "key", bed.port) == 413
    assert await asked(PATH, BODY, "key", bed.port) == 200
    assert (await replica.stats())["served"] == 1


async def test_what_a_refusal_says_is_the_same_with_a_large_body(bed, make_state):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("key",)))
    for ask in (
        {"key": "wrong"},
        {"key": "key", "name": "other"},
        {"key": "key", "method": "PUT"},
        {"key": "key", "path": "/api/v1/service/svc/swagger.json"},
        {"key": "key", "x_aks_inference_version": "Z"},
    ):
        small, large = await bed.ask(**ask), await bed.ask(**ask, data=io.BytesIO(BODY))
        assert (small.status, small.reason, small.body) == (large.status, large.reason, large.body), ask
        for name in ("content-type", "www-authenticate", "allow"):
            assert small.headers.get(name) == large.headers.get(name), (ask, name)


@pytest.mark.parametrize(
    "client",
    # Where the endpoint is served, what each of them does with an answer that comes early is seen above.
    [pytest.param(one, marks=() if one in (by_chunks, by_socket) else pytest.mark.long) for one in CLIENTS],
    ids=lambda client: client.__name__,
)
@pytest.mark.parametrize(
    "timeout_ms",
    [pytest.param(10_000, id="first process"), pytest.param(3_210, id="further process", marks=pytest.mark.long)],
)
async def test_a_large_body_when_the_queue_is_full(bed, make_state, tmp_path, client, timeout_ms):
    replica = await bed.replica("A")
    router = await bed.router()
    state = make_state(
        {"A": (10_000, [replica])}, keys=("key",), max_request_wait_time=timeout_ms, max_queued_requests=1
    )
    await router.apply(state)
    waiting = [asyncio.create_task(bed.ask(key="key", x_sleep_ms="2000")) for _ in range(2)]
    await bed.counts(router, busy=1, queued=1)
    before = router.load()[SVC].rejected_total
    assert await asyncio.to_thread(client, bed.port, PATH, BODY, "key", tmp_path) == 429
    small, large = await bed.ask(key="key"), await bed.ask(key="key", data=io.BytesIO(BODY))
    assert (small.status, small.reason, small.body) == (large.status, large.reason, large.body)
    for name in ("content-type", "retry-after", "x-aks-inference-version"):
        assert small.headers[name] == large.headers[name], name
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}

    async def counted() -> bool:
        return router.load()[SVC].rejected_total == before + 3

    await bed.until(counted)
    assert router.load()[SVC].requests_total == 5


@pytest.mark.parametrize("pause_s", [0, 3])
async def test_a_body_that_grows_too_large_while_it_is_sent(bed, make_state, pause_s):
    """Without a length only the gate can count; whoever writes all before it reads sees the answer all the same."""
    replica = await bed.replica("A", max_body_bytes=8 * 1024 * 1024)
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("key",)))

    def pieces():
        for number in range(800):
            if number == 400:
                time.sleep(pause_s)  # longer than the gate waits for what has its last word already
            yield BODY[:65_536]

    def send() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", bed.port, timeout=30)
        try:
            headers = {"authorization": "Bearer key"}
            connection.request("POST", PATH, body=pieces(), headers=headers, encode_chunked=True)
            return connection.getresponse().status
        finally:
            connection.close()

    assert await asyncio.to_thread(send) == 413
    assert (await bed.ask(key="key", data=BODY[:65_536])).status == 200, "the slot is free again"


@pytest.mark.parametrize(
    "length",
    [pytest.param(n, marks=pytest.mark.long) for n in (2_000_000_000, 2**32 + 2**31 + 5, sys.maxsize // 4)]
    + [3_000_000_000],
)
async def test_nobody_is_read_for_ever(bed, make_state, monkeypatch, length):
    """More than a client can want to send in good faith: then the connection ends."""
    monkeypatch.setattr(refusals, "DROP_SECONDS", 2)
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [])}, keys=("key",)))

    def send() -> tuple[int, bytes]:
        sent = 0
        with socket.create_connection(("127.0.0.1", bed.port), timeout=20) as client:
            client.sendall(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode())
            answer = client.recv(1_000)
            with contextlib.suppress(OSError):
                while sent < 2**30:
                    sent += client.send(BODY)
        return sent, answer

    sent, answer = await asyncio.to_thread(send)
    assert answer.startswith(b"HTTP/1.1 401")
    assert sent < 2**29


async def test_a_length_above_the_limit_is_refused_whatever_its_bits(bed, make_state):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("key",)))

    def send(length: int) -> bytes:
        with socket.create_connection(("127.0.0.1", bed.port), timeout=20) as client:
            head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key\r\ncontent-length: {length}\r\n\r\n"
            client.sendall(head.encode())
            return client.recv(1_000)

    for length in (100_000_001, 3_000_000_000, 2**32 + 2, 9 * 10**18):
        answer = await asyncio.to_thread(send, length)
        assert answer.startswith(b"HTTP/1.1 413"), length
        assert b"x-aks-inference-reason: too-large" in answer
    assert (await replica.stats())["served"] == 0


@pytest.mark.long
@pytest.mark.parametrize("size", [100, 200_000])
async def test_over_http_2_each_refusal_arrives(bed, make_state, tmp_path, size):
    program = shutil.which("curl")
    if program is None:
        pytest.skip("needs curl")
    replica = await bed.replica()
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("k",)))
    (tmp_path / "body").write_bytes(b"x" * size)
    base = f"http://127.0.0.1:{bed.port}/api/v1/service"
    cases = [("none/score", "POST", 404), ("svc/score", "PUT", 405), ("svc/swagger.json", "POST", 405)]
    for path, method, status in cases:
        for _ in range(REFUSALS):
            process = await asyncio.create_subprocess_exec(
                *(program, "-sS", "-m", "60", "--http2-prior-knowledge", "-X", method, "--data-binary", "@body"),
                *("-H", "authorization: Bearer k", "-w", "%{http_code}", "-o", "/dev/null", f"{base}/{path}"),
                stdout=asyncio.subprocess.PIPE,
                cwd=tmp_path,
            )
            told, _ = await process.communicate()
            assert told == b"%d" % status, path
