"""What the system tells of connections: by its diagnostics, and by its table where it has none."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from aks_inference_runtime.router import connections as told_by
from aks_inference_runtime.router.connections import CLOSE_WAIT, ESTABLISHED, Connection, connections
from aks_inference_runtime.router.leavers import remote_end

HOSTS = {"tcpv4": (socket.AF_INET, "127.0.0.1"), "tcpv6": (socket.AF_INET6, "::1")}


WAYS = ("diagnostics", "table")


def only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no other way leads to what the system knows."""

    def refused(*_: object) -> None:
        raise OSError("no such protocol")

    if way == "table":
        monkeypatch.setattr(told_by, "_diagnosed", refused)
        return
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4).close()
    except OSError as error:
        pytest.skip(f"this system has no socket diagnostics: {error}")
    monkeypatch.setattr(told_by, "_read", lambda *_: None)


@contextlib.contextmanager
def pairs(protocol: str, count: int) -> Iterator[tuple[int, list[socket.socket], list[socket.socket]]]:
    """A port, clients, and what it has accepted, in the clients' order."""
    family, host = HOSTS[protocol]
    with contextlib.ExitStack() as open_:
        try:
            server = open_.enter_context(socket.create_server((host, 0), family=family))
        except OSError as error:
            pytest.skip(f"no {protocol} here: {error}")
        port = server.getsockname()[1]
        clients, accepted = [], []
        for _ in range(count):
            clients.append(open_.enter_context(socket.create_connection((host, port))))
            accepted.append(open_.enter_context(server.accept()[0]))
        yield port, clients, accepted


def end_of(client: socket.socket) -> str:
    host, port = client.getsockname()[:2]
    return remote_end(f"{host}:{port}")


def states(protocol: str, port: int) -> dict[str, str]:
    told = connections(protocol, port)
    assert told is not None
    assert {one.port for one in told.connections} <= {port}
    assert told.bytes > 0
    return {one.remote_end: one.state for one in told.connections}


@pytest.mark.parametrize("protocol", HOSTS)
@pytest.mark.parametrize("how", WAYS)
def test_whole_half_closed_and_gone(how: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pairs(protocol, 4) as (port, clients, accepted):
        only(how, monkeypatch)
        ends = [end_of(client) for client in clients]
        assert states(protocol, port) == dict.fromkeys(ends, ESTABLISHED)
        clients[1].shutdown(socket.SHUT_WR)
        clients[2].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        clients[2].close()
        # This side first: it waits out its time.
        accepted[3].close()
        clients[3].close()
        assert accepted[1].recv(1) == b""
        with pytest.raises(ConnectionResetError):
            accepted[2].recv(1)
        assert states(protocol, port) == {ends[0]: ESTABLISHED, ends[1]: CLOSE_WAIT}
        everything = connections(protocol)
        assert everything is not None
        assert Connection(port, ends[0], ESTABLISHED) in everything.connections


@pytest.mark.parametrize("how", WAYS)
def test_more_than_one_message_holds(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pairs("tcpv4", 300) as (port, clients, _):
        only(how, monkeypatch)
        assert states("tcpv4", port) == {end_of(client): ESTABLISHED for client in clients}


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only("table", monkeypatch)
    monkeypatch.setitem(told_by._TABLES, "tcpv4", tmp_path / "none")
    assert connections("tcpv4", 80) is None
