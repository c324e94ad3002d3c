"""The agent: makes HAProxy serve what is declared, keeps each replica's cap right, observes, restarts what dies."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from aks_inference_runtime.api.errors import AksInferenceError, Conflict
from aks_inference_runtime.observability.failures import Failures
from aks_inference_runtime.router import routes
from aks_inference_runtime.router.answers import AnswerKey, Answers
from aks_inference_runtime.router.binary import find_haproxy
from aks_inference_runtime.router.deltas import Changes
from aks_inference_runtime.router.fleet import Fleet
from aks_inference_runtime.router.hints import Hints
from aks_inference_runtime.router.leavers import Leavers
from aks_inference_runtime.router.listener import Listener
from aks_inference_runtime.router.maps import Maps
from aks_inference_runtime.router.model import EndpointRoute, RouterState, VersionKey, VersionLoad
from aks_inference_runtime.router.neighbours import Neighbours
from aks_inference_runtime.router.observing import Observer
from aks_inference_runtime.router.ownership import AWAY, Epoch
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.places import Places
from aks_inference_runtime.router.process import sockets_directory, write_private
from aks_inference_runtime.router.readers import Readers
from aks_inference_runtime.router.served import Served
from aks_inference_runtime.router.servers import Servers
from aks_inference_runtime.router.slots import DEFAULT_LAYOUT, Layout, Slot
from aks_inference_runtime.router.tls import Tls
from aks_inference_runtime.router.tokens.keys import Fetch
from aks_inference_runtime.router.tokens.verdicts import Verdicts
from aks_inference_runtime.router.versions import ServedVersion

OBSERVE_SECONDS = 0.1
IDLE_SECONDS = 0.2
"""Between looks while nothing moves."""
REPEAT_SECONDS = 1.0
"""What has not changed is looked through again so often."""
MOVING_SECONDS = 0.02
"""Between looks while a version moves from one slot to another."""
STALE_SECONDS = 1.0
"""Figures older than this are not reported."""
GATE_SECONDS = 0.5
"""How long `apply` waits to hear a new replica's gate; later ones join when they are heard."""
ROTATE_SECONDS = 10.0
RESTART_SECONDS = 1.0
"""Between attempts to start a process that does not start."""
PORTS = "ports"
"""Stands for the endpoints' own ports among the names of processes."""

log = logging.getLogger(__name__)


class HaproxyRouter:
    """Implements `model.Router` with HAProxy processes on this host."""

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8890,
        haproxy: str | None = None,
        sockets: Path | None = None,
        layout: Layout = DEFAULT_LAYOUT,
        cluster: Cluster | None = None,
        fetch: Fetch | None = None,
        tls: Tls | None = None,
    ) -> None:
        """
        Args:
            directory: Required. For configurations, records and logs; made for the owner only.
            host, port: Optional. Where clients reach it.
            haproxy: Optional. Path of another binary than the installed one.
            sockets: Optional. A short directory for Unix sockets; default as `sockets_directory` has it.
            layout: Optional. Slots of the first process.
            cluster: Optional. Where several routers share the work; the slots are then in a second process.
            fetch: Optional. Reads an issuer's keys; needed for endpoints that ask for tokens.
            tls: Optional. Where it speaks TLS. Default: nowhere.
        """
        self._directory = directory
        self._sockets = sockets or sockets_directory(directory)
        self.url = f"http://{host}:{port}"
        self._paths = paths = Paths(directory, self._sockets)
        self._memory = directory / "slots.json"
        self._fleet = Fleet(
            paths, host, port, find_haproxy(haproxy), layout, cluster, tokens=fetch is not None, tls=tls
        )
        self._listener = Listener(paths.certificate, self._fleet.first, self._fleet.first_is_dead, tls=tls)
        self._neighbours = Neighbours(self._fleet)
        self._maps = Maps(paths, self._fleet)
        self._verdicts = (
            Verdicts(paths.socket("p0", "verify"), fetch, self._maps.remember) if fetch is not None else None
        )
        self._servers = Servers(self._fleet.admin)
        self._hints = Hints(paths, self._fleet.admin)
        self._answers = Answers(paths, self._fleet.admin)
        self._readers = Readers(self._fleet.admin)
        ports = (port, None) if cluster is None else (None, cluster.owner_port)
        self._leavers = Leavers(self._fleet.admin, self._fleet.pid, *ports)
        self._versions = Served()
        self._state = RouterState()
        self._adopted: dict[VersionKey, list[Slot]] = {}
        self._remembered: dict[VersionKey, tuple[Slot, ...]] | None = None
        """What the file of slots has."""
        self._endpoints = Changes[EndpointRoute]()
        self._observer = Observer(self._fleet.admin, self._servers)
        self._observed = self._observer.seen
        self._places = Places(self._fleet, (self._observer, self._hints, self._leavers))
        self._finishing = False
        self._restart_after: dict[str, float] = {}
        self._quiet_until = 0.0
        """While no process shows a change, there is nothing to do before that."""
        self.news = 0  # grows with each claim, orphan and readiness that a gate tells
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `model.Router`. Raises Conflict when the port is in use, OperationFailed when HAProxy does not start."""
        for directory in (self._directory, self._sockets):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if directory.stat().st_uid != os.getuid():
                raise Conflict(f"{directory} belongs to another user")
            directory.chmod(0o700)
        self._listener.prepare()
        if self._verdicts is not None:
            await self._verdicts.open()
        if await self._fleet.begin():
            await self._adopt()
        self._task = asyncio.create_task(self._watch())

    async def apply(self, state: RouterState) -> None:
        """See `model.Router`. Raises InvalidInput for names or shares that cannot be served."""
        names = self._endpoints.names(state.endpoints)
        routes.check({name: state.endpoints[name] for name in names & state.endpoints.keys()})
        async with self._lock:
            changed = await self._declare(state)
            await self._fleet.set_ports({e.name: e.port for e in state.endpoints.values() if e.port is not None})
        # Among several routers time counts more: a gate that is heard later joins later.
        if self._fleet.cluster is None:
            await asyncio.gather(*(version.heard(GATE_SECONDS) for version in self._versions.values()))
            async with self._lock:
                await self._reconcile(changed)

    def load(self) -> Mapping[VersionKey, VersionLoad]:
        """See `model.Router`."""
        oldest = asyncio.get_running_loop().time() - STALE_SECONDS
        fresh = {number: seen for number, seen in self._observed.items() if seen.at > oldest}
        served = ((key, version) for key, version in self._versions.items() if version.route is not None)
        return {key: load for key, version in served if (load := version.load(fresh)) is not None}

    def waiting(self, endpoint: str, since: float = 0.0) -> int | None:
        """Requests that wait here for an endpoint, also one handed over; None: not looked at since (loop's clock)."""
        return self._versions.waiting(endpoint, self._observed, since)

    def claims(self, endpoint: str) -> tuple[int, Epoch | None]:
        """What the gates of an endpoint tell: the highest epoch, and a claim above this router's own."""
        return self._versions.claims(endpoint)

    @property
    def answers(self) -> Mapping[AnswerKey, int]:
        """What HAProxy answered itself, since the agent began."""
        return self._answers.totals

    def problems(self) -> Mapping[str, str]:
        """See `model.Router`."""
        ways = ((key.endpoint, slot.process) for key, v in self._versions.items() for slot in v.slots)
        return self._fleet.problems(ways) | self._places.problems

    @property
    def unserved(self) -> Mapping[str, str]:
        """Why endpoints are not served as declared for which there is no queue."""
        return self._places.problems

    async def drained(self, replica_id: str, timeout_s: float) -> bool:
        """See `model.Router`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            async with self._lock:
                await self._observe()
                await self._reconcile()
                used = [v for v in self._versions.values() if v.uses(replica_id, self._observed, self._servers)]
            if not used:
                return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(MOVING_SECONDS)

    async def finish(self) -> None:
        """Among several routers: takes no new connections; returns when all requests that are here are over."""
        self._finishing = True
        await self._fleet.let_finish()
        self._observer.forget(0)
        while not all(seen.stat.idle for seen in self._observed.values()):  # noqa: ASYNC110 - the watch looks
            await asyncio.sleep(OBSERVE_SECONDS)

    async def detach(self) -> None:
        """See `model.Router`."""
        await self._end_watching()
        self._fleet.detach()

    async def stop(self) -> None:
        """See `model.Router`."""
        await self._end_watching()
        await self._fleet.stop()
        self._memory.unlink(missing_ok=True)
        for directory in {self._sockets, self._directory}:
            with contextlib.suppress(OSError):
                directory.rmdir()

    # --- declaring

    async def _declare(self, state: RouterState) -> Collection[VersionKey] | None:
        """Which versions have changed; None: possibly all."""
        self._state, problems = state, self._places.problems
        before = self._versions.signs(self._endpoints.fresh(state.endpoints))
        names = self._endpoints.take(state.endpoints) | {key.endpoint for key in self._adopted}
        declared = {name: state.endpoints.get(name) for name in names}
        self._answers.declare(declared)
        own = [endpoint for endpoint in declared.values() if endpoint is not None and endpoint.owner is None]
        wanted = {VersionKey(e.name, v.name): routes.queue_timeout_ms(v) for e in own for v in e.versions}
        slots = await self._assign(wanted)
        self.news += self._places.problems != problems
        state = self._places.served(state, slots)
        for endpoint in (state.endpoints[one.name] for one in own if one.name in state.endpoints):
            for route in endpoint.versions:
                key = VersionKey(endpoint.name, route.name)
                if key not in self._versions:
                    self._versions[key] = ServedVersion(key, self._gate_changed, self._adopted.get(key, ()))
                self._versions[key].declare(route, slots[key])
        for key, left in self._adopted.items():
            if key not in wanted:
                # Withdrawn while no agent was here: its requests are still under way.
                self._versions[key] = ServedVersion(key, self._gate_changed, left)
        self._adopted = {}
        self._remember_slots()
        for name, one in declared.items():
            for version in self._versions.of(name):
                version.take(one.tenure if one is not None else version.tenure)
        # New replicas are servers before the first request can be sent to them.
        await self._reconcile(self._versions.changed(before, names))
        await self._neighbours.declare(state.peers)
        await self._listener.declare(state.certificate, state.solvers)
        if self._verdicts is not None:
            self._verdicts.declare(routes.token_rules(state))
        await self._maps.declare(state, names, slots, self._neighbours.numbers)
        versions = [version for name in names for version in self._versions.of(name)]
        for version in versions:
            if version.key not in wanted:
                version.withdraw()
        changed = self._versions.changed(before, names)
        # Of many it is looked at those that leave a slot or a replica.
        if changed is None or any(version.moving for version in versions):
            await self._observe()
            await self._reconcile(changed)
        self._endpoints.done(but=self._places.problems)
        return changed

    def _remember_slots(self) -> None:
        """For a later agent, if it does not know yet."""
        slots = {key: tuple(version.slots) for key, version in self._versions.items()}
        if slots != self._remembered:
            write_private(self._memory, routes.slots_to_json(slots))
            self._remembered = slots

    async def _assign(self, wanted: Mapping[VersionKey, int]) -> Mapping[VersionKey, Slot]:
        def occupied() -> set[Slot]:
            queued = {slot for seen in self._observed.values() for slot in seen.queued_slots()}
            return self._versions.slots.union(self._servers.occupied(), queued, *self._adopted.values())

        adopted = {key: slots[-1] for key, slots in self._adopted.items() if slots}
        return await self._places.assign(wanted, self._versions.present(wanted) | adopted, occupied)

    # --- keeping

    async def _gate_changed(self, version: ServedVersion, replica_id: str) -> None:
        """A gate reports orphans or readiness: its caps follow at once, before it goes on."""
        self._quiet_until, self.news = 0.0, self.news + 1
        if replica_id in version.replicas:
            try:
                await version.reconcile_replica(replica_id, self._observed, self._servers)
            except AksInferenceError as error:
                # The watch over the gate must go on; the next round repeats the command.
                log.warning("replica %s: %s", replica_id, error)

    async def _reconcile(self, only: Collection[VersionKey] | None = None) -> None:
        for key in tuple(self._versions) if only is None else only:
            if (version := self._versions.get(key)) is None:
                continue
            await version.reconcile(self._observed, self._servers)
            if version.tenure == AWAY and version.route is None and self._fleet.cluster is not None:
                await version.pass_on(self._paths.socket("p0", "again"), self._observed, self._servers)
            if version.over:
                await version.close()
                del self._versions[key]
        if only is None:
            await self._hints.update(self._versions.values(), self._observed, self._leavers.counts())

    async def _watch(self) -> None:
        """Observes and repairs until cancelled."""
        loop = asyncio.get_running_loop()
        failures = Failures(log, "the router's agent could not do its round; it tries again")
        rotated = loop.time()
        moved = True
        while True:
            moving = any(version.moving for version in self._versions.values())
            await asyncio.sleep(MOVING_SECONDS if moving else OBSERVE_SECONDS if moved else IDLE_SECONDS)
            try:
                async with self._lock:
                    await self._restart_dead()
                    moved = await self._observe()
                    if moved or moving or loop.time() >= self._quiet_until:
                        self._quiet_until = loop.time() + REPEAT_SECONDS
                        await self._round(self._versions.turn(loop.time(), self._observed))
                    if self._places.problems and loop.time() >= self._places.again_at:
                        await self._declare(self._state)
            except Exception as error:  # noqa: BLE001 - without this task nothing would be restarted or observed any more
                failures.tell(error)
            if loop.time() - rotated > ROTATE_SECONDS:
                rotated = loop.time()
                self._fleet.rotate_logs()

    async def _round(self, only: Collection[VersionKey] | None) -> None:
        await self._leavers.look(self._observed)
        await self._reconcile(only)
        await self._listener.again()
        versions = [self._versions[key] for key in (self._versions if only is None else only) if key in self._versions]
        await self._readers.look(held for version in versions for held in version.held(self._observed))
        await self._hints.look_at_refused(self._versions.values(), self._fleet.admins())
        await self._answers.count(self._fleet.layouts, self._versions.values())
        for version in versions:
            version.left(self._leavers.of(version.slots))
            version.watch_closely(self._observed)

    async def _restart_dead(self) -> None:
        now = asyncio.get_running_loop().time()
        for name in self._fleet.dead():
            if now < self._restart_after.get(name, 0.0):
                continue
            self._restart_after[name] = now + RESTART_SECONDS
            log.warning("haproxy (%s) is gone; it is started again", name)
            try:
                await self._restart(name)
            except (AksInferenceError, OSError) as error:
                # The others go on, whatever became of this one's port.
                log.error("haproxy (%s) could not be started again: %s", name, error)
            else:
                del self._restart_after[name]
        if self._fleet.port_problems and now >= self._restart_after.get(PORTS, 0.0):
            self._restart_after[PORTS] = now + RESTART_SECONDS
            await self._fleet.start_ports()

    async def _restart(self, name: str) -> None:
        if not (name.startswith("p") and name[1:].isdigit()):
            await self._fleet.restart(name)
            return
        number = int(name[1:])
        self._observer.forget(number)
        self._hints.write(number, self._versions.values())
        self._maps.write(number)
        await self._fleet.restart(name)
        self._maps.started(number)
        self._servers.forget(number)
        if number == 0:
            await self._listener.restarted()

    async def _observe(self) -> bool:
        """True when requests are under way, or were since the last look."""
        used: dict[int, set[Slot]] = {number: set() for number in self._fleet.layouts}
        for slot in self._versions.slots | self._servers.occupied():
            if slot.process in used:
                used[slot.process].add(slot)
        return await self._observer.look(used, everything=self._finishing)

    async def _adopt(self) -> None:
        """Learns from running processes what they serve."""
        await self._maps.adopt()
        with contextlib.suppress(OSError, ValueError):
            self._adopted = routes.slots_from_json(self._memory.read_text())
        await self._observe()
        for seen in self._observed.values():
            for slot, rows in seen.rows():
                self._servers.adopt(slot, rows)

    async def _end_watching(self) -> None:
        if self._verdicts is not None:
            await self._verdicts.close()
        if self._task is not None:
            self._task.cancel()
            # Not suppress(CancelledError): that would swallow a cancellation of the caller too.
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._neighbours.close()
        for version in self._versions.values():
            await version.close()
        self._versions = Served()
