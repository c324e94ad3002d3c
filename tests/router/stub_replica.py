"""A model server for tests and measurements: what it does is told by request headers, and it counts what runs.

    python stub_replica.py [--port 0] [--path …] [--sleep-ms 0]      prints its port

| header | meaning |
| --- | --- |
| x-sleep-ms | works so long before it answers, also when the caller is gone |
| x-status | the status of the answer |
| x-stream | `<count>,<gap ms>`: that many chunks |
| x-end | `early` (closes without an answer), `middle` (after half of the body), `eof` (body ends with the connection) |
| x-malformed | `<kind>,<ms>`: `nonsense`, `large head`, `garbage after`; works on for so long, then it ends |
| x-bytes | size of the answer's body |
| x-id | recorded in the order of arrival |

`GET /` is healthy; `GET /_stats` answers the counts; `POST /_reset` clears them.
"""

import argparse
import asyncio
import contextlib
import json
import time

import httptools
import uvloop


class Counts:
    def __init__(self) -> None:
        self.reset()
        self.running = 0

    def reset(self) -> None:
        self.most = 0
        self.served = 0
        self.began: list[tuple[str, float]] = []
        self.bodies: list[int] = []
        self.last_headers: dict[str, str] = {}
        self.last_target = ""

    def as_json(self) -> bytes:
        return json.dumps(vars(self)).encode()


class Replica(asyncio.Protocol):
    def __init__(self, counts: Counts, sleep_ms: float) -> None:
        self.counts = counts
        self.sleep_ms = sleep_ms
        self.parser = httptools.HttpRequestParser(self)
        self.tasks: set[asyncio.Task[None]] = set()
        self.uploading = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def eof_received(self) -> bool:
        # As a model server does: a half request ends, a whole one is worked on to its end.
        self.body_broke_off()
        return bool(self.tasks)

    def on_message_begin(self) -> None:
        self.headers: dict[str, str] = {}
        self.url = ""
        self.length = 0

    def on_url(self, url: bytes) -> None:
        self.url += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.url.startswith("/score"):
            self.uploading = True
            self.counts.running += 1
            self.counts.most = max(self.counts.most, self.counts.running)
            self.counts.began.append((self.headers.get("x-id", ""), time.time()))

    def on_body(self, data: bytes) -> None:
        self.length += len(data)

    def on_message_complete(self) -> None:
        if self.url == "/":
            self.respond(200, b"Healthy")
        elif self.url == "/_stats":
            self.respond(200, self.counts.as_json())
        elif self.url == "/_reset":
            self.counts.reset()
            self.respond(200, b"")
        elif self.url.startswith("/score"):
            self.uploading = False
            self.counts.last_headers = self.headers
            self.counts.last_target = self.url
            self.counts.bodies.append(self.length)
            task = asyncio.create_task(self.score(dict(self.headers), self.length))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif self.url.startswith("/swagger.json"):
            self.respond(200, b'{"swagger": "2.0"}')
        else:
            self.respond(404, b"{}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.body_broke_off()

    def body_broke_off(self) -> None:
        if self.uploading:
            self.uploading = False
            self.counts.running -= 1

    async def score(self, headers: dict[str, str], length: int) -> None:
        try:
            await asyncio.sleep(float(headers.get("x-sleep-ms", self.sleep_ms)) / 1000)
        finally:
            self.counts.running -= 1
            self.counts.served += 1
        end = headers.get("x-end", "")
        if end == "early":
            self.transport.close()
            return
        if "x-malformed" in headers:
            await self.malformed(*headers["x-malformed"].split(","))
            return
        status = int(headers.get("x-status", "200"))
        if "x-stream" in headers:
            await self.stream(status, *map(float, headers["x-stream"].split(",")))
            return
        body = json.dumps({"id": headers.get("x-id", ""), "length": length}).encode()
        if "x-bytes" in headers:
            body = b"x" * int(headers["x-bytes"])
        if end == "eof":
            self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            self.transport.close()
        elif end == "middle":
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * len(body)) + body)
            self.transport.close()
        else:
            self.respond(status, body, close=headers.get("connection") == "close")

    async def malformed(self, kind: str, works_ms: str) -> None:
        if kind == "garbage after":
            # In one piece: on a connection that is used again it could be taken for the next answer.
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}garbage\r\n\r\n")
            return
        self.counts.running += 1
        if kind == "nonsense":
            self.transport.write(b"NONSENSE\r\n\r\n")
        else:
            self.transport.write(b"HTTP/1.1 200 OK\r\n" + b"x-large: %b\r\n" % (b"a" * 1_000) * 100)
            self.transport.write(b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await asyncio.sleep(float(works_ms) / 1000)
        self.counts.running -= 1
        if kind == "nonsense":
            self.transport.close()
        else:
            self.transport.write(b"0\r\n\r\n")

    async def stream(self, status: int, count: float, gap_ms: float) -> None:
        self.counts.running += 1
        with contextlib.suppress(ConnectionError):
            self.transport.write(b"HTTP/1.1 %d OK\r\ntransfer-encoding: chunked\r\n\r\n" % status)
            for number in range(int(count)):
                self.transport.write(b"8\r\ndata: %d\n\r\n" % (number % 10))
                await asyncio.sleep(gap_ms / 1000)
            self.transport.write(b"0\r\n\r\n")
        self.counts.running -= 1

    def respond(self, status: int, body: bytes, *, close: bool = False) -> None:
        extra = b"connection: close\r\n" if close else b""
        self.transport.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
            % (status, extra, len(body), body)
        )
        if close:
            self.transport.close()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--path", help="a Unix socket to listen on too")
    parser.add_argument("--sleep-ms", type=float, default=0)
    arguments = parser.parse_args()
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Replica(counts, arguments.sleep_ms), "127.0.0.1", arguments.port)
    if arguments.path:
        await loop.create_unix_server(lambda: Replica(counts, arguments.sleep_ms), arguments.path)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
