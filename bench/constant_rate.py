"""Requests at a constant rate, each timed from the moment at which it should have been sent.

    python -m bench.constant_rate [HOST:]PORT[,…] RATE SECONDS PATH [HEADER …]      prints one JSON object

Several addresses are asked in turn, one connection after the other.

A process of its own. `select` in place of an event loop: its timeouts are exact to microseconds, those of epoll are
whole milliseconds, which would be most of what is measured.
"""

import json
import select
import socket
import statistics
import sys
import time
from collections import deque
from itertools import cycle

CONNECTIONS = 32
LATE_SECONDS = 5.0


def run(where: list[tuple[str, int]], rate: float, seconds: float, headers: list[str], path: str) -> dict[str, float]:
    """Sends `rate` × `seconds` requests; what is not answered 200 counts as failed."""
    lines = [f"GET {path} HTTP/1.1", "host: bench", *headers, "", ""]
    request = "\r\n".join(lines).encode()
    # A gate takes one request a connection; the next one is made before it is needed.
    once = "connection: close" in headers
    addresses = cycle(where)
    idle = deque(_connect(next(addresses)) for _ in range(CONNECTIONS))
    busy: dict[socket.socket, float] = {}
    pieces: dict[socket.socket, bytes] = {}
    latencies: list[float] = []
    lags: list[float] = []
    failed = sent = 0
    total = int(rate * seconds)
    began = time.perf_counter() + 0.01
    while len(latencies) + failed < total:
        now = time.perf_counter()
        while sent < total and began + sent / rate <= now and idle:
            connection = idle.popleft()
            due = began + sent / rate
            connection.send(request)
            lags.append(time.perf_counter() - due)
            busy[connection] = due
            sent += 1
            now = time.perf_counter()
        wait = max(0.0, began + sent / rate - now) if sent < total and idle else 0.05
        for connection in select.select(list(busy), [], [], wait)[0]:
            piece = connection.recv(65_536)
            data = pieces.pop(connection, b"") + piece
            if piece and not _whole(data):
                pieces[connection] = data
                continue
            due = busy.pop(connection)
            if data.startswith(b"HTTP/1.1 200"):
                latencies.append(time.perf_counter() - due)
            else:
                failed += 1
            if piece and not once:
                idle.append(connection)
            else:
                connection.close()
                idle.append(_connect(next(addresses)))
        if now - began > seconds + LATE_SECONDS:
            break
    for connection in (*idle, *busy):
        connection.close()
    latencies.sort()
    return {
        "requests": total,
        "failed": total - len(latencies),
        "mean_ms": statistics.fmean(latencies) * 1000,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "send_lag_mean_ms": statistics.fmean(lags) * 1000,
    }


def _whole(data: bytes) -> bool:
    head, mark, body = data.partition(b"\r\n\r\n")
    return bool(mark) and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)


def _connect(where: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(where)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


if __name__ == "__main__":
    named, how_many, how_long, at, *extra = sys.argv[1:]
    parts = [one.rpartition(":") for one in named.split(",")]
    asked = [(host or "127.0.0.1", int(port)) for host, _, port in parts]
    print(json.dumps(run(asked, float(how_many), float(how_long), extra, at)))
