"""HTTP/2 frame by frame, in clear."""

import asyncio
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

LIMIT_S = 30


@dataclass
class Got:
    """Of one stream, until it ended."""

    status: int = 0
    reason: str = ""
    body: bytes = b""
    ended: str = ""
    events: list[Event] = field(default_factory=list)


class Client:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()
        self.gone_away = False

    async def ask(self, method: str, path: str, key: str, size: int) -> Got:
        """All of the body first, as simple clients do it, whatever comes meanwhile."""
        stream, got = self._h2.get_next_available_stream_id(), Got()
        head = {
            ":method": method,
            ":scheme": "http",
            ":authority": "x",
            ":path": path,
            "authorization": f"Bearer {key}",
        }
        if size:
            head["content-length"] = str(size)
        self._h2.send_headers(stream, list(head.items()), end_stream=not size)
        async with asyncio.timeout(LIMIT_S):
            while size and not got.ended:
                room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size, size)
                if room:
                    self._h2.send_data(stream, b"x" * room, end_stream=room == size)
                    size -= room
                    self.writer.write(self._h2.data_to_send())
                    await self.writer.drain()
                else:
                    await self._read(got)
            while not got.ended:
                await self._read(got)
        return got

    async def _read(self, got: Got) -> None:
        self.writer.write(self._h2.data_to_send())
        data = await self._reader.read(65_536)
        if not data:
            got.ended = "the connection ended"
        for event in self._h2.receive_data(data):
            match event:
                case ResponseReceived(headers=list(headers)):
                    told = dict(headers)
                    got.status, got.reason = int(told[":status"]), told.get("x-aks-inference-reason", "")
                case DataReceived():
                    got.body += event.data
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case StreamEnded():
                    got.ended = "whole"
                case StreamReset():
                    got.ended = got.ended or f"reset {event.error_code}"
                case ConnectionTerminated():
                    self.gone_away = True
