"""The router's agent in a cluster: learns from the API server and the other routers, and tells HAProxy."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp

from aks_inference_runtime.api.certificates import Certificate
from aks_inference_runtime.api.endpoint import API_VERSION, EndpointSpec
from aks_inference_runtime.api.kubernetes import (
    COMPONENT_LABEL,
    ENDPOINT_LABEL,
    PART_OF,
    PART_OF_LABEL,
    ROUTER_COMPONENT,
    SOLVER_LABEL,
    TLS_TYPE,
    RuntimeSettings,
)
from aks_inference_runtime.kubernetes import objects, routing
from aks_inference_runtime.kubernetes.client import Api
from aks_inference_runtime.kubernetes.heartbeats import Heartbeats
from aks_inference_runtime.kubernetes.informer import Informer
from aks_inference_runtime.kubernetes.sharing import Sharing, Told
from aks_inference_runtime.kubernetes.words import View
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.model import Peer, RouterState

STEP_S = 0.1
"""Between looks when nothing was reported: silence is no news."""
MOVING_S = 0.02
"""While an endpoint changes hands."""
_log = logging.getLogger(__name__)


class Agent:
    """One router of a cluster."""

    def __init__(self, me: str, settings: RuntimeSettings, router: HaproxyRouter) -> None:
        self.me = me
        self.settings = settings
        self.router = router
        self.ready = False
        self._wake = asyncio.Event()
        self.heartbeats = Heartbeats(me, self._wake.set)
        self.sharing = Sharing(me)
        namespace = f"/api/v1/namespaces/{settings.namespace}"
        wake = self._wake.set
        self.endpoints = Informer(f"/apis/{API_VERSION}/scoringendpoints", objects.declared, wake)
        self.slices = Informer(
            "/apis/discovery.k8s.io/v1/endpointslices", objects.slice_of, wake, labels=ENDPOINT_LABEL
        )
        self.secrets = Informer(f"{namespace}/secrets", objects.digests_of, wake, labels=ENDPOINT_LABEL)
        self.pods = Informer(
            f"{namespace}/pods",
            objects.router_pod,
            wake,
            labels=f"{PART_OF_LABEL}={PART_OF},{COMPONENT_LABEL}={ROUTER_COMPONENT}",
        )
        self.certificates = Informer(f"{namespace}/secrets", objects.tls_secret, wake, fields=f"type={TLS_TYPE}")
        self.solvers = Informer(f"{namespace}/pods", objects.solver_pod, wake, labels=f"{SOLVER_LABEL}=true")
        self._informers: list[Informer[Any]] = [self.endpoints, self.slices, self.secrets, self.pods]
        self._informers += [self.certificates, self.solvers]
        self._served: dict[str, EndpointSpec] = {}
        self.generations: dict[str, int] = {}
        """Endpoint → the newest generation that is served whole here."""
        self._applied: RouterState | None = None
        self._settled: object = None
        """What was known at the last round, if that left nothing to do."""
        self._seen: object = None
        self._built = RouterState()
        """What is to be served, as it was worked out when things were as `_seen`."""
        self._routes = routing.Routes()
        self._agreed_at: float | None = None
        self.owner_changes = 0

    async def run(self, api: Api, session: aiohttp.ClientSession) -> None:
        """Until cancelled. What it learns first: the API server's objects, then the other routers, then it is ready."""
        informers = self._informers if self.settings.https_port is not None else self._informers[:4]
        async with asyncio.TaskGroup() as tasks:
            for informer in informers:
                tasks.create_task(informer.run(api))
            await asyncio.gather(*(informer.first() for informer in informers))
            while True:
                self._wake.clear()
                try:
                    moving = await self.step(session)
                except Exception:  # noqa: BLE001 - what serves goes on serving; the next round tries again
                    _log.exception("a round failed; it is tried again")
                    moving = True
                try:
                    async with asyncio.timeout(MOVING_S if moving else STEP_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def leave(self) -> None:
        """Wants no endpoint any more; those that it has go to others."""
        self.heartbeats.leaving = True
        self.ready = False
        self._wake.set()

    @property
    def left(self) -> bool:
        """Whether others have all, or there are none."""
        view = self.heartbeats.view()
        return view.live == {self.me} or not self.sharing.held

    async def step(self, session: aiohttp.ClientSession) -> bool:
        """One round; True while something is on the move."""
        view = self.heartbeats.view()
        # With a thousand endpoints a round is work, and mostly nothing has changed since the last one.
        words = {name: (heard.word, heard.held) for name, heard in view.heard.items()}
        known = [informer.revision for informer in self._informers]
        news = (known, view.live, view.candidates, words, self.router.news)
        if news == self._settled:
            return False
        self._settled = None
        moving = await self._round(session, view)
        if not moving:
            self._settled = news
        return moving

    async def _round(self, session: aiohttp.ClientSession, view: View) -> bool:
        self._listen(session)
        endpoints = objects.served(self.endpoints.items)
        before = self.sharing.tenures
        parts = self.sharing.decide(endpoints, view, self._told(view))
        held = self.sharing.held
        self.owner_changes += sum(
            (name in held) != (before.get(name) is not None and before[name].epoch is not None)
            for name in self.sharing.tenures
        )
        seen = (*(informer.revision for informer in self._informers), view.live, parts)
        if seen != self._seen:
            self._built = self._state(endpoints, parts, view)
            self._seen = seen
        state = self._built
        if state is not self._applied and state != self._applied:
            await self.router.apply(state)
        self._applied = state
        self.generations = {
            name: endpoint.generation if self._in_force(endpoint) else self.generations.get(name, 0)
            for name, endpoint in endpoints.items()
        }
        self.heartbeats.say(clock=self.sharing.clock, candidates=view.candidates, held=held)
        if view.heard_all and not self.heartbeats.leaving:
            self.ready = True
        return not view.agreed or any(part.tenure.uses_replicas == (part.owner is not None) for part in parts.values())

    def _in_force(self, endpoint: objects.Declared) -> bool:
        spec = self._served[endpoint.name]
        return spec is endpoint.spec or spec == endpoint.spec

    def _listen(self, session: aiohttp.ClientSession) -> None:
        others = {pod.name: pod for pod in self.pods.items.values() if pod.name != self.me}
        port = self.settings.agent_port
        self.heartbeats.listen(session, {name: objects.url(pod.address, port) for name, pod in others.items()})

    def _told(self, view: View) -> dict[str, Told]:
        now = asyncio.get_running_loop().time()
        if not view.agreed:
            self._agreed_at = None
        elif self._agreed_at is None:
            self._agreed_at = now
        told = {}
        for endpoint in self.sharing.tenures:
            highest, above = self.router.claims(endpoint)
            agreed = self._agreed_at is not None
            settled = agreed and self.router.waiting(endpoint, since=self._agreed_at or now) == 0
            told[endpoint] = Told(settled, highest, above)
        return told

    def _state(
        self, endpoints: Mapping[str, objects.Declared], parts: Mapping[str, routing.Part], view: View
    ) -> RouterState:
        replicas = self._routes.replicas(self.slices.items, self.slices.revision)
        digests = {found.endpoint: found.digests for found in self.secrets.items.values()}
        served = {}
        routes = {}
        for name, endpoint in endpoints.items():
            spec = served[name] = routing.next_spec(self._served.get(name), endpoint, replicas)
            routes[name] = self._routes.route(endpoint, spec, replicas, digests.get(name, frozenset()), parts[name])
        self._served = served
        self._routes.forget(but=routes)
        peers = {
            pod.name: Peer(pod.address, self.settings.owner_port, pod.name in view.live)
            for pod in self.pods.items.values()
            if pod.name != self.me
        }
        return RouterState(routes, peers, *self._tls())

    def _tls(self) -> tuple[Certificate | None, tuple[tuple[str, int], ...]]:
        found = {secret.name: secret.certificate for secret in self.certificates.items.values()}
        certificate = next((found[name] for name in self.settings.tls_secrets if name in found), None)
        return certificate, tuple((solver.address, solver.port) for _, solver in sorted(self.solvers.items.items()))
