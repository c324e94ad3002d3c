"""Servers that cannot run where tests do, by what they document: paths, health and streams as docs/images.md says
them to users, through the real router and gate. The others run for real: test_servers_of_others_on_a_node.py.

vLLM's packages are built for GPUs; Triton runs as a process, and on a node where that has libpython3.11.
"""

import asyncio
import json
import re
from pathlib import Path

import aiohttp
import pytest

STUB = Path(__file__).parent / "protocol_replica.py"
TABLE = Path(__file__).parents[2] / "docs" / "images.md"
BINARY = "Inference-Header-Content-Length"


def documented(server: str) -> dict[str, str]:
    """A gate's settings by the row of a server."""
    (row,) = (line for line in TABLE.read_text().splitlines() if line.startswith(f"| {server} |"))
    _, _, _, score, health, *_ = row.split("|")
    paths = [re.findall(r"`([^`]+)`", cell)[0].replace("<m>", "doubled") for cell in (score, health)]
    return {"scorePath": paths[0], "healthPath": paths[1]}


@pytest.fixture
async def uri(request, bed, make_state):
    """The scoring URI of a server; its gate was ready only when the server said so at its own health path."""
    replica = await bed.replica(stub=STUB, **documented(request.param))
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    return f"http://127.0.0.1:{bed.port}/api/v1/service/svc/score", bed.directory / f"{replica.id}.app"


@pytest.mark.parametrize("uri", ["vLLM"], indirect=True)
async def test_completions_stream_event_by_event(uri):
    await completed(*uri)


async def test_completions_stream_by_way_of_another_router(bed, pair, make_state):
    replica = await bed.replica(stub=STUB, **documented("vLLM"))
    await pair.give_to("b", make_state({"A": (10_000, [replica])}))
    await completed(f"http://127.0.0.1:{pair.ports['a']}/api/v1/service/svc/score", bed.directory / f"{replica.id}.app")


async def completed(address, beside):
    own = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(beside)))
    async with aiohttp.ClientSession() as session, own, asyncio.timeout(20):
        async with session.post(address, json={"model": "m", "prompt": "Tell", "stream": True}) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            events = [await answer.content.readuntil(b"\n\n")]
            # The rest comes only after this: the first event was not held back.
            assert (await own.post("http://beside/_release")).status == 200
            events += [event async for event in _events(answer)]
        assert events[-1] == b"data: [DONE]\n\n"
        texts = [json.loads(event.removeprefix(b"data: "))["choices"][0]["text"] for event in events[:-1]]
        assert "".join(texts) == "Once upon a time"
        async with session.post(address, json={"prompt": "Tell"}) as answer:
            assert (await answer.json())["choices"][0]["text"] == "Once upon a time"
        async with session.post(address, json={}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, 400), "the server's own refusal"


async def _events(answer):
    while event := await answer.content.readuntil(b"\n\n"):
        yield event


@pytest.mark.parametrize("uri", ["Triton, V2"], indirect=True)
async def test_binary_tensors_of_v2_stay_what_they_are(uri):
    address, _ = uri
    values = bytes(range(256)) * 100
    tensor = {"name": "rows", "datatype": "UINT8", "shape": [1, len(values)]}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(values)}}]}).encode()
    headers = {BINARY: str(len(head)), "Content-Type": "application/octet-stream"}
    asking = aiohttp.request("POST", address, data=head + values, headers=headers)
    async with asyncio.timeout(20), asking as answer:
        body, length = await answer.read(), int(answer.headers[BINARY])
    assert answer.status == 200
    assert json.loads(body[:length])["model_name"] == "doubled"
    assert body[length:] == bytes(2 * value % 256 for value in values)
