"""One process in place of the gates of many replicas: each connection to its control is a gate that has nothing to do.

    python -m bench.many_gates HOST [MOST]      prints the ports of data and control; ends with its standard input

Data: HTTP/1.1, each request is answered at once. MOST: requests at once at each gate; else one.
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

from aks_inference_runtime.router.gate.settings import GateStatus

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Control(asyncio.Protocol):
    """Of one replica."""

    def __init__(self, most: int) -> None:
        self._rest = b""
        self._status = GateStatus(
            replica_id="one", port=0, ready=True, max_concurrent=most, running=0, orphans=0, waiting=0, served_total=0
        )
        self._line = self._told()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match json.loads(line):
                case {"op": "claim", "epoch": int(epoch), "owner": str(owner)}:
                    update = {"epoch": epoch, "owner": owner, "seq": self._status.seq + 1}
                    self._status = self._status.model_copy(update=update)
                    self._line = self._told()
                    self._transport.write(self._line)
                case {"op": _}:
                    self._transport.write(self._line)

    def _told(self) -> bytes:
        return self._status.model_dump_json(by_alias=True).encode() + b"\n"


class Data(asyncio.Protocol):
    """Answers whatever ends with an empty line, and `{}` where it is a POST."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if self._rest.endswith(b"\r\n\r\n{}") or (self._rest[:4] == b"GET " and self._rest.endswith(b"\r\n\r\n")):
            self._rest = b""
            self._transport.write(OK)


async def main() -> None:
    """The command."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(0, over.set)
    data = await loop.create_server(Data, sys.argv[1], 0, backlog=1_000)
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    control = await loop.create_server(lambda: Control(most), sys.argv[1], 0, backlog=10_000)
    async with data, control:
        print(*(server.sockets[0].getsockname()[1] for server in (data, control)), flush=True)
        await over.wait()


if __name__ == "__main__":
    uvloop.run(main())
