"""Clients at a constant rate that go on whatever dies: a new connection each, nothing repeated that was sent.

    python -m bench.steady_clients SETTINGS.json OUTPUT.json      until its standard input ends

`{"targets": [["host", port]], "path": "/…", "key": "…", "rate": 200}`, and `"trusted": "PEM"` for TLS. A refused
connection is tried at the next target, as behind a load balancer; what was sent and not answered has failed (status 0).
The output: `{"answers": [[due, answered, status, reason]], "refused": [[at, host]]}`, in seconds of the wall clock.
"""

import asyncio
import json
import ssl
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import uvloop

CONNECT_S = 1.0
ANSWER_S = 20.0
AGAIN_S = 0.01
MOST_TRIES = 500


class Clients:
    """All of them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.records: list[tuple[float, float, int, str]] = []
        self.refused: list[tuple[float, str]] = []
        self._tls = ssl.create_default_context(cadata=settings["trusted"]) if settings.get("trusted") else None
        self._rate = float(settings["rate"])
        self._targets = cycle([(str(host), int(port)) for host, port in settings["targets"]])
        lines = [f"POST {settings['path']} HTTP/1.1", "host: bench", "connection: close", "content-length: 2"]
        lines += [f"authorization: Bearer {settings['key']}", "", "{}"]
        self._request = "\r\n".join(lines).encode()

    async def run(self, over: asyncio.Event) -> None:
        """Until it is over and all are answered."""
        tasks: set[asyncio.Task[None]] = set()
        began = time.time()
        number = 0
        while not over.is_set():
            number += 1
            due = began + number / self._rate
            await asyncio.sleep(max(0.0, due - time.time()))
            task = asyncio.create_task(self._one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _one(self, due: float) -> None:
        status, reason = 0, "no connection"
        for _ in range(MOST_TRIES):
            host, port = next(self._targets)
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection(host, port)
            except OSError:
                self.refused.append((time.time(), host))
                await asyncio.sleep(AGAIN_S)
                continue
            status, reason = await self._ask(host, reader, writer)
            break
        self.records.append((due, time.time(), status, reason))

    async def _ask(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str]:
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._tls is not None:
                    await writer.start_tls(self._tls, server_hostname=host)
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.read(-1)
        except (OSError, asyncio.IncompleteReadError) as error:
            return 0, type(error).__name__
        finally:
            writer.close()
        reason = head.partition(b"x-aks-inference-reason: ")[2].partition(b"\r\n")[0]
        return int(head[9:12]), reason.decode()


async def main() -> None:
    """The command."""
    settings, output = map(Path, sys.argv[1:])
    clients = Clients(json.loads(settings.read_text()))
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ends() -> None:
        if not sys.stdin.buffer.read1():  # type: ignore[union-attr]
            loop.remove_reader(0)
            over.set()

    loop.add_reader(0, ends)
    await clients.run(over)
    output.write_text(json.dumps({"answers": clients.records, "refused": clients.refused}))


if __name__ == "__main__":
    uvloop.run(main())
