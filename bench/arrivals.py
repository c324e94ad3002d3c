"""Clients of the queue's measurement, in a process of their own.

    python -m bench.arrivals SETTINGS.json OUTPUT.json

`{"ports": […], "clients": n, "seconds": s}`: closed loop, each client asks its port again as soon as it is answered.
`{"port": p, "rate": r, "seconds": s, "leaving": 0.1, "slow": 0.01, "slow_ms": 600}`: open loop, whatever is answered;
a share of the clients leaves while its request waits or runs, a share asks for longer than the scoring timeout.
"""

import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import uvloop

PATH = "/api/v1/service/svc/score"
GRACE_SECONDS = 5.0


class Client(asyncio.Protocol):
    """One connection; told when its answer is whole."""

    def __init__(self, answered: Callable[["Client"], None]) -> None:
        self.answered = answered
        self.transport: asyncio.Transport | None = None
        self.record: list[Any] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, record: list[Any], request: bytes) -> None:
        """Sends; the record gets the time, later the status, the reason and the time of the answer."""
        assert self.transport is not None
        self.record = record
        self._data = b""
        self.transport.write(request)
        record[1] = time.time()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, mark, body = self._data.partition(b"\r\n\r\n")
        if not mark or self.record is None:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        record, self.record = self.record, None
        reason = head.partition(b"x-aks-inference-reason: ")[2].partition(b"\r\n")[0]
        record[2:] = [int(head[9:12]), reason.decode(), time.time()]
        self.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.record is not None:
            self.record[2:] = [0, "lost", time.time()]
            self.record = None


def request(number: int, extra: str = "", path: str = PATH) -> bytes:
    """A request with its number."""
    return f"GET {path} HTTP/1.1\r\nhost: bench\r\nx-id: {number}\r\n{extra}\r\n".encode()


async def closed(settings: dict[str, Any]) -> list[list[Any]]:
    """Closed loop."""
    loop = asyncio.get_running_loop()
    records: list[list[Any]] = []
    end = time.time() + settings["seconds"]

    def again(client: Client) -> None:
        if time.time() < end:
            records.append([len(records), 0.0, 0, "", 0.0])
            client.ask(records[-1], request(len(records), path="/score"))

    for port in settings["ports"]:
        _, client = await loop.create_connection(lambda: Client(again), "127.0.0.1", port)
        again(client)
    await asyncio.sleep(settings["seconds"] + 0.2)
    return records


async def opened(settings: dict[str, Any]) -> list[list[Any]]:
    """Open loop."""
    loop = asyncio.get_running_loop()
    chance = random.Random(7)
    idle: deque[Client] = deque()
    records: list[list[Any]] = []

    async def connect() -> Client:
        _, client = await loop.create_connection(lambda: Client(idle.append), "127.0.0.1", settings["port"])
        return client

    for _ in range(64):
        idle.append(await connect())
    began = loop.time()
    rate, seconds = settings["rate"], settings["seconds"]
    while (passed := loop.time() - began) < seconds:
        while len(records) < rate * passed:
            client = idle.popleft() if idle else await connect()
            if client.transport is None or client.transport.is_closing():
                continue
            slow = chance.random() < settings.get("slow", 0)
            extra = f"x-sleep-ms: {settings['slow_ms']}\r\n" if slow else ""
            records.append([len(records), 0.0, 0, "", 0.0])
            client.ask(records[-1], request(len(records) - 1, extra))
            if chance.random() < settings.get("leaving", 0):
                loop.call_later(chance.uniform(0, 0.1), leave, client, records[-1])
        await asyncio.sleep(0.001)
    async with asyncio.timeout(GRACE_SECONDS):
        while any(record[2] == 0 and record[3] == "" for record in records):  # noqa: ASYNC110 - the load is over
            await asyncio.sleep(0.02)
    return records


def leave(client: Client, record: list[Any]) -> None:
    """A client that goes, if its request is not answered yet."""
    if client.record is record and client.transport is not None:
        client.transport.abort()


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    made = uvloop.run(opened(asked) if "rate" in asked else closed(asked))
    Path(sys.argv[2]).write_text(json.dumps(made))
