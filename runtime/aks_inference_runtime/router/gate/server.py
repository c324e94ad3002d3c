"""One gate: the data listener, the control socket, the watch over the replica's health."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from aks_inference_runtime.router.gate import health
from aks_inference_runtime.router.gate.admission import Admission
from aks_inference_runtime.router.gate.alarms import Alarms
from aks_inference_runtime.router.gate.connection import RouterConnection
from aks_inference_runtime.router.gate.context import Context
from aks_inference_runtime.router.gate.control import ControlConnection, Watchers
from aks_inference_runtime.router.gate.departed import Departed
from aks_inference_runtime.router.gate.listener import Listener
from aks_inference_runtime.router.gate.reporting import Reporting
from aks_inference_runtime.router.gate.sending import Leftovers, unsent
from aks_inference_runtime.router.gate.settings import GateSettings, GateStatus
from aks_inference_runtime.router.gate.sockets import Sockets
from aks_inference_runtime.router.gate.upstream import Pool, UpstreamPool

_log = logging.getLogger(__name__)


class Gate:
    """A gate that serves."""

    def __init__(self, settings: GateSettings) -> None:
        loop = asyncio.get_running_loop()
        self.settings = settings
        self.ready = False
        self.trusted = True
        """Requests that are here may be given to the replica; until the first look all may."""
        self.ending = False
        self.doubt = asyncio.Event()
        self.watchers = Watchers(self.status, self._disowned)
        self.admission = Admission(settings.max_concurrent, self.watchers.changed)
        self.connections: set[RouterConnection] = set()
        self._leftovers = Leftovers(settings.reader_timeout_ms / 1000)
        self.departed = Departed()
        self.sockets = Sockets(loop)
        self.alarms = Alarms(loop)
        self.pool, connection_class = _spoken(settings, self.sockets)
        self.reporting = Reporting(settings)
        self.telemetry = self.reporting.telemetry
        context = Context(
            settings=settings,
            version=settings.version.encode(),
            admission=self.admission,
            pool=self.pool,
            loop=loop,
            when_acknowledged=self.watchers.when_acknowledged,
            doubted=self.doubted,
            trusted=lambda: self.trusted,
            keeps=lambda: self.trusted and not self.ending,
            departed=self.departed,
            alarms=self.alarms,
            tasks=set(),
            telemetry=self.telemetry,
            ahead_s=self.watchers.ahead_s,
        )
        self.listener = Listener(settings.listen, partial(connection_class, context, self.connections, self.sockets))

    @property
    def port(self) -> int:
        """Of the data listener; 0: it has a path, or was not open yet."""
        return self.listener.address.port

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
            hung=self.admission.hung,
            served_total=self.admission.served_total,
            seq=seq,
        )

    async def looked(self, accepts: bool) -> bool:
        """What the look at the replica found; returns whether it is ready now."""
        ready = accepts and not self.doubt.is_set()
        if ready:
            try:
                # Before anybody is told: whoever hears that it is ready may connect.
                self.listener.open()
            except OSError as error:
                _log.error("gate: %s; it tries again", error)
                ready = False
        changed = ready != self.ready
        # Before what has come already is read: that is handed back.
        self.ready, self.trusted = ready, ready
        if not ready:
            self._refuse()
        if changed:
            self.watchers.changed()
        return ready

    def doubted(self) -> None:
        """The replica refused or closed a connection: it gets no further request before it was looked at.

        What comes from here on is refused, so that the router sends it elsewhere; what is here and has not begun is
        handed back.
        """
        self.trusted = False
        self._refuse()
        self.pool.close()
        if self.ready:
            self.ready = False
            self.watchers.changed()
        self.doubt.set()

    def end(self) -> None:
        """What is here is finished; connections are not kept any more."""
        self.ending = True
        for connection in tuple(self.connections):
            connection.close_idle()

    def _refuse(self) -> None:
        """From here on connections are refused, and those without a request end."""
        self.listener.close()
        for connection in tuple(self.connections):
            connection.close_idle()

    def _disowned(self) -> None:
        """Another router sends from now on; it may use names again that the one before has given."""
        self.admission.disown()
        self.departed.forget()

    def busy(self) -> bool:
        """Whether anything runs or waits, or the end of an answer is still to be taken, by a reader not too slow."""
        at_work = self.admission.running or self.admission.waiting or any(one.unsent for one in self.connections)
        # What a Unix socket has taken is its reader's, whatever becomes of this process.
        left = 0 if at_work or not self.port else unsent(self.port)
        return self._leftovers.wait(left, asyncio.get_running_loop().time()) or bool(at_work)

    async def drained(self) -> None:
        """Returns when nothing is to be waited for any more."""
        while self.busy():  # noqa: ASYNC110 - only at the end; counting is hot
            await asyncio.sleep(0.05)


def _spoken(settings: GateSettings, sockets: Sockets) -> tuple[Pool, type[RouterConnection]]:
    """What speaks with the replica, and with the router."""
    if settings.protocol == "http":
        return UpstreamPool(settings.upstream, settings.max_concurrent, sockets), RouterConnection
    # Most gates never load it.
    from aks_inference_runtime.router.gate.call_connection import CallRouterConnection
    from aks_inference_runtime.router.gate.h2_upstream import CallPool

    return CallPool(settings.upstream, settings.max_concurrent, sockets), CallRouterConnection


@asynccontextmanager
async def serving(settings: GateSettings) -> AsyncIterator[Gate]:
    """A gate that listens until the block ends. Raises OSError when a port or path cannot be had."""
    loop = asyncio.get_running_loop()
    gate = Gate(settings)
    gate.listener.open()
    gate.reporting.report(settings.reported)
    settings.control.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        control = await loop.create_unix_server(
            lambda: ControlConnection(gate.watchers, gate.departed, gate.reporting), str(settings.control)
        )
    finally:
        os.umask(mask)
    watching = asyncio.create_task(health.watch(settings, gate.looked, gate.doubt, lambda: gate.admission.running > 0))
    try:
        yield gate
    finally:
        gate.listener.close()
        control.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for connection in tuple(gate.connections):
            connection.close()
        gate.alarms.close()
        gate.pool.close()
        gate.sockets.close()
        await gate.reporting.close()
        settings.control.unlink(missing_ok=True)
