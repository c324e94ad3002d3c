"""TCP connections of this machine, as the system tells.

By its socket diagnostics (netlink, sock_diag(7)), which tell of those that are open alone. /proc/net/tcp also has those
that wait out their time, with many clients tens of thousands: to write them takes the kernel tens of milliseconds, in
which the agent does nothing else. It is read where a system has no diagnostics.
"""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ESTABLISHED, CLOSE_WAIT = "01", "08"
"""States, as /proc/net/tcp writes them: whole, and closed by the other side."""
_TABLES = {"tcpv4": Path("/proc/net/tcp"), "tcpv6": Path("/proc/net/tcp6")}
_FAMILIES = {"tcpv4": socket.AF_INET, "tcpv6": socket.AF_INET6}
PROTOCOLS = frozenset(_TABLES)
"""By HAProxy's names."""
_OPEN = 1 << int(ESTABLISHED, 16) | 1 << int(CLOSE_WAIT, 16)
_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_DONE, _ERROR = 3, 2
_HEADER = struct.Struct("=IHHII")
_WANTED = struct.Struct("=BBBxI")
_PORTS = struct.Struct("!HH")
_TIMEOUT_S = 1.0
_PIECE_BYTES = 64 * 1024


class Connection(NamedTuple):
    """One, as this side has it."""

    port: int
    """Of this side."""
    remote_end: str
    """`<address>:<port>` in hexadecimal digits: words of four bytes, the lowest first."""
    state: str


class Told(NamedTuple):
    """What the system says."""

    connections: list[Connection]
    bytes: int
    """That were read for it."""


def connections(protocol: str, port: int | None = None) -> Told | None:
    """The open ones, by this port of ours or any. None: the system does not tell."""
    try:
        return _diagnosed(_FAMILIES[protocol], port or 0)
    except (OSError, struct.error):
        return _read(_TABLES[protocol], port)


def _diagnosed(family: int, port: int) -> Told:
    wanted = _WANTED.pack(family, socket.IPPROTO_TCP, 0, _OPEN) + _PORTS.pack(port, 0) + bytes(32)
    # No interface, no cookie.
    wanted += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    found: list[Connection] = []
    size = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as asked:
        asked.settimeout(_TIMEOUT_S)
        asked.send(_HEADER.pack(_HEADER.size + len(wanted), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + wanted)
        while True:
            data = asked.recv(_PIECE_BYTES)
            size += len(data)
            for kind, message in _messages(data):
                if kind == _DONE:
                    return Told(found, size)
                if kind == _ERROR:
                    raise OSError("no diagnostics of this family")
                found.append(_connection(family, message))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            raise OSError("a message without its header")
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _connection(family: int, message: bytes) -> Connection:
    """From an inet_diag_msg: family, state, two bytes, ports, addresses of 16 bytes each."""
    port, remote = _PORTS.unpack_from(message, 4)
    address = message[24 : 28 if family == socket.AF_INET else 40]
    return Connection(port, f"{words(address)}:{remote:04X}", f"{message[1]:02X}")


def _read(table: Path, port: int | None) -> Told | None:
    try:
        text = table.read_text()
    except OSError:
        return None
    found = []
    for line in text.splitlines()[1:]:
        _, own, end, state, *_ = line.split(None, 4)
        own_port = int(own.rpartition(":")[2], 16)
        if state in {ESTABLISHED, CLOSE_WAIT} and port in {None, own_port}:
            found.append(Connection(own_port, end, state))
    return Told(found, len(text))


def words(address: bytes) -> str:
    """An address as /proc/net/tcp has it."""
    return "".join(address[start : start + 4][::-1].hex() for start in range(0, len(address), 4)).upper()
