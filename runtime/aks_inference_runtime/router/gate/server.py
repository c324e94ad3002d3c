"""One gate: the data listener, the control socket, the watch over the replica's health."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aks_inference_runtime.router.gate import health
from aks_inference_runtime.router.gate.admission import Admission
from aks_inference_runtime.router.gate.connection import RouterConnection
from aks_inference_runtime.router.gate.control import ControlConnection, Watchers
from aks_inference_runtime.router.gate.exchange import Context
from aks_inference_runtime.router.gate.settings import GateSettings, GateStatus
from aks_inference_runtime.router.gate.upstream import UpstreamPool

BACKLOG = 1024


class Gate:
    """A gate that serves."""

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.port = 0
        self.ready = False
        self.doubt = asyncio.Event()
        self.watchers = Watchers(self.status)
        self.admission = Admission(settings.max_concurrent, self.watchers.changed)
        self.connections: set[RouterConnection] = set()
        self.pool = UpstreamPool(settings.upstream_host, settings.upstream_port, settings.max_concurrent)

    def status(self, seq: int) -> GateStatus:
        """What goes on now."""
        return GateStatus(
            replica_id=self.settings.replica_id,
            port=self.port,
            ready=self.ready,
            max_concurrent=self.settings.max_concurrent,
            running=self.admission.running,
            orphans=self.admission.orphans,
            waiting=self.admission.waiting,
            served_total=self.admission.served_total,
            seq=seq,
        )

    def health_changed(self, ready: bool) -> None:
        """The replica became ready, or stopped to be."""
        self.ready = ready
        self.watchers.changed()

    def doubted(self) -> None:
        """The replica closed a connection on a request: no further one goes there before its port was looked at."""
        if self.ready:
            self.health_changed(False)
            self.doubt.set()

    async def drained(self) -> None:
        """Returns when nothing runs or waits any more."""
        while self.admission.running or self.admission.waiting:  # noqa: ASYNC110 - only at the end; counting is hot
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(settings: GateSettings) -> AsyncIterator[Gate]:
    """A gate that listens until the block ends. Raises OSError when a port or path cannot be had."""
    loop = asyncio.get_running_loop()
    gate = Gate(settings)
    context = Context(
        settings=settings,
        admission=gate.admission,
        pool=gate.pool,
        loop=loop,
        when_acknowledged=gate.watchers.when_acknowledged,
        doubted=gate.doubted,
        tasks=set(),
    )
    server = await loop.create_server(
        lambda: RouterConnection(context, gate.connections),
        settings.listen_host,
        settings.listen_port,
        backlog=BACKLOG,
    )
    gate.port = server.sockets[0].getsockname()[1]
    settings.control.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        control = await loop.create_unix_server(lambda: ControlConnection(gate.watchers), str(settings.control))
    finally:
        os.umask(mask)
    watching = asyncio.create_task(health.watch(settings, gate.health_changed, gate.doubt))
    try:
        yield gate
    finally:
        server.close()
        control.close()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        for connection in tuple(gate.connections):
            connection.close()
        gate.pool.close()
        settings.control.unlink(missing_ok=True)
