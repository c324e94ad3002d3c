"""What HAProxy's parser refuses before there is a request: fixed pages without a reason (docs/architecture.md, "Answers
without a reason"), which nothing in its configuration reaches. An answer with a reason here is good news for that text.
"""

import asyncio

HEAD = b"POST /api/v1/service/svc/score HTTP/1.1\r\nhost: x\r\n"
GET = b"GET /api/v1/service/svc/score HTTP/1.1\r\nhost: x\r\n"
UNPARSED = {
    "no HTTP": (400, b"garbage\r\n\r\n"),
    "a length that is no number": (400, HEAD + b"content-length: ten\r\n\r\n"),
    "two lengths": (400, HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
    "a bad chunk": (400, HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nab\r\n"),
    "a coding without chunks": (400, HEAD + b"transfer-encoding: gzip\r\n\r\nab"),
    "an unknown coding": (422, HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a header of 20 kB": (400, HEAD + b"x-large: " + b"y" * 20_000 + b"\r\n\r\n"),
    "200 headers": (400, HEAD + b"".join(b"x-%d: 1\r\n" % n for n in range(200)) + b"\r\n"),
    "a WebSocket without its key": (400, GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"),
    "a body of HTTP/1.0 GET": (413, GET.replace(b"1.1", b"1.0") + b"content-length: 3\r\n\r\nabc"),
}
TRAILERS = (b"content-length: 3", b"transfer-encoding: chunked")
"""They frame a body, and may not stand behind it."""
PARSED = {
    # Another protocol is not spoken: it is answered in this one.
    "an upgrade to HTTP/2": (200, GET + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"),
    "a path that is none": (404, GET.replace(b"/svc/", b"/none/") + b"\r\n"),
}


async def sent(port: int, data: bytes) -> tuple[int, bytes]:
    """Status and head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(15):
            head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    return int(head.split(b" ")[1]), head.lower()


async def test_what_is_no_request_gets_a_page_without_a_reason(bed, make_state):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    found = {what: await sent(bed.port, data) for what, (_, data) in UNPARSED.items()}
    assert {what: status for what, (status, _) in found.items()} == {what: s for what, (s, _) in UNPARSED.items()}
    for what, (_, head) in found.items():
        assert b"content-type: text/html" in head, what
        assert b"x-aks-inference-reason" not in head, what
    assert (await replica.stats())["served"] == 0, "none of them reached the replica"


async def test_a_trailer_that_frames_the_body_is_a_bad_request_and_costs_no_replica(bed, make_state):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    for trailer in TRAILERS:
        data = HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n" + trailer + b"\r\n\r\n"
        found, head = await sent(bed.port, data)
        assert found == 400, trailer
        assert b"x-aks-inference-reason: bad-request" in head, trailer
        assert (await bed.ask()).status == 200
    assert (await replica.stats())["served"] == len(TRAILERS), "none of them reached the replica"


async def test_what_is_a_request_gets_an_answer_of_the_table(bed, make_state):
    replica = await bed.replica("A")
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}))
    for what, (status, data) in PARSED.items():
        found, head = await sent(bed.port, data)
        assert found == status, what
        assert (b"x-aks-inference-reason: not-found" in head) == (status == 404), what
        assert b"text/html" not in head, what
