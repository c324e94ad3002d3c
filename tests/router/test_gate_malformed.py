"""A request whose end is none: its begin has passed on already, or its answer has begun."""

import asyncio
import contextlib

import pytest
from gate_clients import Connection

from aks_inference_runtime.router.gate.server import serving
from aks_inference_runtime.router.gate.settings import GateSettings

pytestmark = pytest.mark.usefixtures("closed_connections")
CHUNKED = b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
ENDS = [b"0\r\ncontent-length: 3\r\n\r\n", b"0\r\ntransfer-encoding: chunked\r\n\r\n", b"zz\r\n"]


@pytest.mark.parametrize("end", ENDS, ids=["a length", "a coding", "no chunk"])
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "after its begin"])
async def test_it_is_refused_and_its_slot_is_free_again(bed, end, begun):
    replica = await bed.replica()
    client = await Connection.to(replica)
    client.writer.write(CHUNKED + b"3\r\nabc\r\n" + (b"" if begun else end))
    if begun:

        async def there() -> bool:
            return bool((await replica.stats())["began"])

        await bed.until(there)
        client.writer.write(end)
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 400")
    assert b"x-aks-inference-reason: bad-request" in head
    assert len((await replica.stats())["began"]) == begun
    following = await Connection.to(replica)
    following.writer.write(CHUNKED + b"0\r\n\r\n")
    head, _ = await following.answer()
    assert head.startswith(b"HTTP/1.1 200")
    status = await replica.status()
    assert (status.running, status.orphans) == (0, 0)


@pytest.mark.parametrize("rest", [ENDS[0], b"5\r\nabcde\r\n"], ids=["malformed", "too large"])
async def test_no_second_head_stands_in_an_answer_that_has_begun(bed, rest):
    """Within its length a refusal would be taken for the answer's own bytes."""

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 70_000)
                await reader.read()
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    folder = bed.directory
    server = await asyncio.start_unix_server(serve, str(folder / "app"))
    settings = GateSettings(
        replica_id="r",
        version="A",
        upstream_path=folder / "app",
        control=folder / "gate",
        listen_path=folder / "in",
        max_body_bytes=4,
    )
    async with server, serving(settings):
        reader, writer = await asyncio.open_unix_connection(str(folder / "in"))
        writer.write(CHUNKED + b"2\r\nab\r\n")
        async with asyncio.timeout(15):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.write(rest)
            got = b""
            with contextlib.suppress(ConnectionError):
                got = await reader.read()
        writer.transport.abort()
    assert set(got) <= set(b"x")


async def test_what_a_proxy_says_of_where_an_application_is_mounted_does_not_reach_it(bed):
    replica = await bed.replica()
    client = await Connection.to(replica)
    client.writer.write(b"GET /score HTTP/1.1\r\nhost: x\r\nSCRIPT_NAME: /elsewhere\r\nscript-name: kept\r\n\r\n")
    assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
    headers = (await replica.stats())["last_headers"]
    assert "script_name" not in headers
    assert headers["script-name"] == "kept"
