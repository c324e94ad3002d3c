"""One lane of a router pod: a process that clients reach, the one with the queues, and their part in all endpoints.

To other lanes, of this pod or another one, it is a router by itself: an owner with a name, epochs and counts of its
own. So what holds between routers holds between lanes, and a pod that gets more or fewer of them hands endpoints over
as if routers came and went.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from aks_inference_runtime.api.kubernetes import LANE_PORTS, RuntimeSettings
from aks_inference_runtime.kubernetes import objects, routing
from aks_inference_runtime.kubernetes.heartbeats import Heartbeats
from aks_inference_runtime.kubernetes.known import Known
from aks_inference_runtime.kubernetes.sharing import Sharing, Told
from aks_inference_runtime.kubernetes.words import View
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.model import EndpointRoute, Peer, RouterState

_log = logging.getLogger(__name__)


def lane_name(pod: str, number: int) -> str:
    """What other routers know it as: the first lane by its pod's name, the others by what can be no pod's name."""
    return f"{pod}/{number}" if number else pod


def pod_of(lane: str) -> str:
    """The pod of a lane."""
    return lane.partition("/")[0]


def owner_port(settings: RuntimeSettings, lane: str) -> int:
    """Where a lane takes what other routers pass on."""
    number = lane.partition("/")[2]
    return LANE_PORTS[int(number) - 1] if number else settings.owner_port


class Lane:
    """Its agent's part."""

    def __init__(
        self,
        name: str,
        address: str,
        settings: RuntimeSettings,
        router: HaproxyRouter,
        heartbeats: Heartbeats,
        bases: routing.Bases,
    ) -> None:
        """
        Args:
            name: Required. See `lane_name`.
            address: Required. Of its pod.
            settings: Required. Of the runtime.
            router: Required. Its HAProxy processes; started and ended by others.
            heartbeats, bases: Required. Of its pod.
        """
        self.name = name
        self.router = router
        self.sharing = Sharing(name)
        self.ready = False
        """Whether it knows what is served, and the other routers."""
        self.leaving = False
        """Wants no endpoint any more; those that it has go to others."""
        self.owner_changes = 0
        self.generations: dict[str, int] = {}
        """Endpoint → the newest generation that is served whole here."""
        self._uids: dict[str, str] = {}
        """Of those endpoints: one that is made again under its name is another one."""
        self._address = address
        self._settings = settings
        self._heartbeats = heartbeats
        self._endpoints: tuple[int, dict[str, objects.Declared]] = -1, {}
        """Those that are served, as of which revision."""
        self._applied: RouterState | None = None
        self._settled: object = None
        """What was known at the last round, if that left nothing to do."""
        self._seen: object = None
        self._built = RouterState()
        """What is to be served, as it was worked out when things were as `_seen`."""
        self._routes = routing.Routes(bases)
        self._unserved: dict[str, str] = {}
        """Why endpoints cannot be served as they are declared, once that was logged."""
        self._agreed_at: float | None = None
        self._lock = asyncio.Lock()
        self._over = False

    async def end(self) -> None:
        """Ends its processes; what is under way there is lost."""
        # No round begins any more; the one that is under way comes to its end. Other lanes' rounds do not wait for it.
        self._over = True
        async with self._lock:
            await self.router.stop()

    @property
    def unserved(self) -> dict[str, str]:
        """Why endpoints are not served as they are declared, by name."""
        return {**self.router.unserved, **self._unserved}

    @property
    def view(self) -> View:
        """The routers now."""
        found = self._heartbeats.view(self.name, leaving=self.leaving)
        if self.name == self._heartbeats.me or self.name in self._heartbeats.said:
            return found
        # Others must have had a word of it before it claims anything, as of a pod that begins: it has heard nobody yet.
        return replace(found, heard={})

    async def step(self, known: Known) -> bool:
        """One round; True while something is on the move."""
        if self._over:
            return False
        async with self._lock:
            return await self._step(known)

    async def _step(self, known: Known) -> bool:
        view = self.view
        # With a thousand endpoints a round is work, and mostly nothing has changed since the last one.
        words = {name: (heard.word, heard.held) for name, heard in view.heard.items()}
        news = (known.revisions, view.live, view.candidates, words, self.router.news)
        if news == self._settled:
            return False
        self._settled = None
        moving = await self._round(known, view)
        if not moving:
            self._settled = news
        return moving

    async def _round(self, known: Known, view: View) -> bool:
        if self._endpoints[0] != known.endpoints.revision:
            self._endpoints = known.endpoints.revision, objects.served(known.endpoints.items)
        endpoints = self._endpoints[1]
        before = self.sharing.tenures
        parts = self.sharing.decide(endpoints, view, self._told(view))
        held = self.sharing.held
        if self.sharing.tenures != before:
            self.owner_changes += sum(
                (name in held) != (before.get(name) is not None and before[name].epoch is not None)
                for name in self.sharing.tenures
            )
        seen = (known.revisions, view.live, parts, _idle(view))
        if seen != self._seen:
            self._built = self._state(known, endpoints, parts, view)
            self._seen = seen
        state = self._built
        if state is not self._applied and state != self._applied:
            # Told half-way it is not the one before either: that is told again, should it come back.
            self._applied = None
            await self.router.apply(state)
        self._applied = state
        unserved = self.router.unserved
        self.generations = {
            name: endpoint.generation
            if self._routes.in_force(endpoint) and name not in unserved
            else self._served_before(endpoint)
            for name, endpoint in endpoints.items()
        }
        self._uids = {name: endpoint.uid for name, endpoint in endpoints.items()}
        self._heartbeats.say(self.name, view, clock=self.sharing.clock, leaving=self.leaving, held=held)
        self.ready = self.ready or view.heard_all
        return not view.agreed or any(part.tenure.uses_replicas == (part.owner is not None) for part in parts.values())

    def _served_before(self, endpoint: objects.Declared) -> int:
        return self.generations.get(endpoint.name, 0) if self._uids.get(endpoint.name) == endpoint.uid else 0

    def _told(self, view: View) -> dict[str, Told]:
        now = asyncio.get_running_loop().time()
        if not view.agreed:
            self._agreed_at = None
        elif self._agreed_at is None:
            self._agreed_at = now
        told = {}
        for endpoint, tenure in self.sharing.tenures.items():
            goes = tenure.uses_replicas and self.sharing.owner(endpoint, view) != self.name
            settled = goes and view.agreed and self.router.waiting(endpoint, since=self._agreed_at or now) == 0
            told[endpoint] = Told(settled, *self.router.claims(endpoint))
        return told

    def _state(
        self,
        known: Known,
        endpoints: Mapping[str, objects.Declared],
        parts: Mapping[str, routing.Part],
        view: View,
    ) -> RouterState:
        replicas = self._routes.replicas(known.slices.items, known.slices.revision)
        digests = {found.endpoint: found.digests for found in known.secrets.items.values()}
        found = {}
        for name, endpoint in endpoints.items():
            route = self._route(endpoint, replicas, digests.get(name, frozenset()), parts[name])
            if route is not None:
                found[name] = route
        self._routes.forget(but=found)
        for gone in self._unserved.keys() - endpoints.keys():
            del self._unserved[gone]
        return RouterState(found, self._peers(known, view), *known.tls)

    def _route(
        self, endpoint: objects.Declared, replicas: routing.Replicas, digests: frozenset[str], part: routing.Part
    ) -> EndpointRoute | None:
        """Of one that cannot be served as it is declared what was before: the others go on."""
        try:
            route = self._routes.serve(endpoint, replicas, digests, part).route
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others go on
            why = f"it cannot be served as it is declared: {error}"
            if self._unserved.get(endpoint.name) != why:
                _log.exception("endpoint %s/%s is not served as it is declared", endpoint.namespace, endpoint.name)
                self._unserved[endpoint.name] = why
            return self._routes.as_before(endpoint.name, part)
        self._unserved.pop(endpoint.name, None)
        return route

    def _peers(self, known: Known, view: View) -> dict[str, Peer]:
        """All other lanes: of other pods, and of this one."""
        idle = _idle(view)
        found = {
            name: Peer(pod.address, owner_port(self._settings, name), name in view.live, name in idle)
            for pod in known.pods.items.values()
            if pod.name != self._heartbeats.me
            for name in sorted(self._heartbeats.lanes(pod.name))
        }
        for name in self._heartbeats.said:
            if name != self.name:
                found[name] = Peer(self._address, owner_port(self._settings, name))
        return found


def _idle(view: View) -> frozenset[str]:
    """Who leaves and holds nothing."""
    return frozenset(name for name, one in view.heard.items() if name not in view.candidates and not one.held)
