"""What an exchange is given: the gate around it, the connection to the router, the request's head."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aks_inference_runtime.router.gate.admission import Admission
from aks_inference_runtime.router.gate.alarms import Alarms
from aks_inference_runtime.router.gate.departed import Departed
from aks_inference_runtime.router.gate.settings import GateSettings
from aks_inference_runtime.router.gate.telemetry import Request, Telemetry
from aks_inference_runtime.router.gate.upstream import Pool


class RouterSide(Protocol):
    """The connection to the router, as an exchange uses it."""

    def write(self, data: bytes) -> None:
        """Sends."""

    def hold(self, reason: str, on: bool) -> None:
        """Stops reading while any reason holds."""

    def done(self, *, keeps: bool = False) -> bool:
        """The answer is whole. False: its end waits to be taken; `answer_over` is called when that is decided.

        `keeps`: the next request may come on this connection, as far as the answer goes.
        """

    def abort(self) -> None:
        """Breaks the connection: the answer that began cannot be completed."""


@dataclass(frozen=True)
class Context:
    """What all exchanges of a gate share."""

    settings: GateSettings
    version: bytes
    admission: Admission
    pool: Pool
    loop: asyncio.AbstractEventLoop
    when_acknowledged: Callable[[float, Callable[[], None]], None]
    """Calls back once every watcher has acknowledged the newest state, or after so many seconds."""
    doubted: Callable[[], None]
    """Says that the replica closed a connection on a request; watchers hear of it."""
    trusted: Callable[[], bool]
    """Whether requests may be given to the replica: not from a doubt on until it was looked at."""
    keeps: Callable[[], bool]
    """Whether connections are kept for further requests."""
    departed: Departed
    alarms: Alarms
    tasks: set[asyncio.Task[None]]
    telemetry: Telemetry
    ahead_s: Callable[[], float | None]
    """By how much this clock is ahead of the router's; None: not known."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970."""


class RequestHead(NamedTuple):
    """A request's first line and headers, as they go to the replica."""

    bytes: bytes
    is_head: bool
    chunked: bool
    expects_continue: bool
    http_11: bool
    record: Request
    keeps: bool = False
    """The router may send its next request on the same connection."""
    left_s: float | None = None
    """Until the end of its wait, which began in the router; None: not known, or it did not wait there."""
