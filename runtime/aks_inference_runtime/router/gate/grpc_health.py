"""gRPC's health checking protocol: one question (`grpc.health.v1.Health/Check` of the whole server), one answer."""

import asyncio

from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import H2Error

from aks_inference_runtime.router.gate.address import Address
from aks_inference_runtime.router.gate.goaways import GoAways
from aks_inference_runtime.router.gate.grpc_wire import CONTENT_TYPE, Code, code_of
from aks_inference_runtime.router.gate.h2_upstream import client

_PATH = b"/grpc.health.v1.Health/Check"
_EMPTY = b"\0\0\0\0\0"
"""A message without fields: of the server as a whole."""
_SERVING = b"\0\0\0\0\2\x08\x01"
"""A message with `status: SERVING`."""
_READ_BYTES = 65_536


async def serves(address: Address) -> bool:
    """Whether the server says that it serves, or has no such service. Raises OSError."""
    reader, writer = await address.open()
    try:
        return await _asked(reader, writer)
    except H2Error:
        return False
    finally:
        writer.close()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    protocol, goaways, answer = client(), GoAways(), _Answer()
    stream = protocol.get_next_available_stream_id()
    _ask(protocol, stream)
    while not answer.over:
        writer.write(protocol.data_to_send())
        data = await reader.read(_READ_BYTES)
        if not data:
            return False
        for event in protocol.receive_data(goaways.without(data)):
            answer.take(event)
    return answer.serves


def _ask(protocol: H2Connection, stream: int) -> None:
    head = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", _PATH),
        (b":authority", b"replica"),
        (b"te", b"trailers"),
        (b"content-type", CONTENT_TYPE),
    ]
    protocol.send_headers(stream, head)
    protocol.send_data(stream, _EMPTY, end_stream=True)


class _Answer:
    """What the server says, as it comes."""

    def __init__(self) -> None:
        self.over = False
        self._code: int | None = None
        self._message = b""

    def take(self, event: Event) -> None:
        """The next thing that came."""
        match event:
            case ResponseReceived(headers=list(headers)) | TrailersReceived(headers=list(headers)):
                code = code_of(headers)
                self._code = self._code if code is None else code
            case DataReceived(data=bytes(data)):
                self._message += data
            case StreamEnded() | StreamReset():
                self.over = True
            case _:
                # Of the connection.
                return

    @property
    def serves(self) -> bool:
        """Once it is over."""
        if self._code == Code.OK:
            return self._message == _SERVING
        return self._code == Code.UNIMPLEMENTED
