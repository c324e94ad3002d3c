"""The autoscaler's part: what may be scaled, how far, and the writing of scales and states."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import aiohttp

from aks_inference_runtime.api.addresses import router_url
from aks_inference_runtime.api.endpoint import API_VERSION, EndpointVersion
from aks_inference_runtime.api.errors import AksInferenceError, Conflict
from aks_inference_runtime.api.kubernetes import (
    COMPONENT_LABEL,
    PART_OF,
    PART_OF_LABEL,
    ROUTER_COMPONENT,
    ROUTER_NAME,
    VERSION_LABEL,
    RuntimeSettings,
    version_label,
)
from aks_inference_runtime.autoscaler.controller import ScalingTarget
from aks_inference_runtime.autoscaler.policy import Decision, Rules
from aks_inference_runtime.autoscaler.tally import Tally
from aks_inference_runtime.kubernetes import objects, room, workloads
from aks_inference_runtime.kubernetes.client import Api, Object
from aks_inference_runtime.kubernetes.informer import Informer
from aks_inference_runtime.kubernetes.reports import Reports
from aks_inference_runtime.kubernetes.states import Sources, States
from aks_inference_runtime.kubernetes.status import CHANGE, declared_with_status, last_change
from aks_inference_runtime.kubernetes.telling import Teller
from aks_inference_runtime.router.model import VersionKey

STATUS_S = 0.5
"""Between writings of one endpoint's status."""
LISTEN_S = 0.2
"""Between looks at which routers there are."""
PENDING_S = 5.0
"""A written scale that is not seen by then is written again."""
REPLICAS = "/spec/replicas"
ROOM_IS_FOR = "room is for"
"""In the policy's reasons: the nodes hold no more."""
_log = logging.getLogger(__name__)


class _Placed(NamedTuple):
    """A version and its Deployment."""

    version: EndpointVersion
    work: workloads.Workload
    rules: Rules
    declared: tuple[str, int]
    """By which endpoint, and which generation of it."""
    place: workloads.VersionId


class ClusterScaler:
    """Implements `controller.Scaler` over Deployments; also writes fixed numbers and the states."""

    def __init__(
        self,
        settings: RuntimeSettings,
        leads: Callable[[], bool],
        clock: Callable[[], float],
        teller: Teller | None = None,
    ) -> None:
        """`teller`: of changed states; None: nobody is told."""
        self.settings = settings
        self.reports = Reports()
        self.tally = Tally()
        """Of what it scales; nothing while it does not lead."""
        self.written = 0
        self._leads = leads
        self._clock = clock
        self._api: Api | None = None
        self._last_scaling: dict[VersionKey, str] = {}
        self._spoken_of = -1
        """As of which revision of the endpoints those that are gone have no last scaling any more."""
        self._pending: dict[VersionKey, tuple[int, float]] = {}
        """Scales that were written and are not seen yet, and when."""
        self._writing: set[VersionKey] = set()
        """Versions whose scale is being written; what is decided meanwhile follows."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._placed: dict[VersionKey, _Placed] | None = None
        """Versions that have their Deployment; None: to be looked up again."""
        self._before: dict[VersionKey, _Placed] = {}
        """The same as it was: of a thousand endpoints few have changed."""
        self._targets: tuple[object, int, dict[VersionKey, ScalingTarget]] | None = None
        """What may be scaled but for scales that are not seen yet, after what that was worked out of."""
        self._taken: tuple[Counter[workloads.VersionId], list[room.PodNeed]] | None = None
        """How many replicas of each version have a pod, and what all pods take, by node; None: to be added up again."""

        def quiet() -> None:
            """What is known is looked at every round."""

        def placed() -> None:
            self._placed = None

        def taken() -> None:
            self._taken = None

        self.endpoints = Informer(f"/apis/{API_VERSION}/scoringendpoints", self._declared, placed, again=self._declared)
        self.workloads = Informer("/apis/apps/v1/deployments", workloads.workload, placed)
        self.pods = Informer("/api/v1/pods", workloads.replica_pod, taken)
        self.templates = Informer("/apis/apps/v1/replicasets", workloads.template, quiet, labels=VERSION_LABEL)
        self.nodes = Informer("/api/v1/nodes", room.node_of, quiet)
        self.others = Informer("/apis/autoscaling/v2/horizontalpodautoscalers", workloads.other_scaler, quiet)
        self._states = States(
            Sources(self.endpoints, self.workloads, self.pods, self.templates),
            self.reports,
            self._last_scaling,
            self._url,
            clock,
            teller,
            leads,
        )
        self.services = Informer(
            f"/api/v1/namespaces/{settings.namespace}/services",
            objects.balancer,
            quiet,
            fields=f"metadata.name={ROUTER_NAME}",
        )
        """Of the router; nothing waits for it: who has no right to it has the name within the cluster."""
        self.routers = Informer(
            f"/api/v1/namespaces/{settings.namespace}/pods",
            objects.reporter,
            quiet,
            labels=f"{PART_OF_LABEL}={PART_OF},{COMPONENT_LABEL}={ROUTER_COMPONENT}",
        )

    @property
    def listed(self) -> bool:
        """Whether everything was read once."""
        return all(informer.listed for informer in self._informers())

    def _informers(self) -> tuple[Informer[Any], ...]:
        return (self.endpoints, self.workloads, self.templates, self.pods, self.nodes, self.others, self.routers)

    async def run(self, api: Api, session: aiohttp.ClientSession) -> None:
        """Keeps what is known up to date and writes fixed numbers and states, until cancelled."""
        self._api = api
        async with asyncio.TaskGroup() as tasks:
            for informer in (*self._informers(), self.services):
                tasks.create_task(informer.run(api))
            tasks.create_task(self._listen(session))
            while True:
                await asyncio.sleep(STATUS_S)
                self._forget()
                if self.listed:
                    try:
                        if self._leads():
                            self._write_fixed()
                        await self._states.write(api)
                    except Exception:  # noqa: BLE001 - one endpoint's objects must not end the autoscaler of all
                        _log.exception("states are not written; it is tried again")

    def _declared(self, found: Object, before: objects.Declared | None = None) -> objects.Declared | None:
        def refused(one: objects.Refused) -> None:
            self._states.refused[one.namespace, one.name] = one

        endpoint = declared_with_status(found, before, refused)
        if endpoint is None:
            return None
        self._states.refused.pop((endpoint.namespace, endpoint.name), None)
        # What another leader did last is told on.
        if before is None or not self._leads():
            for version in (found.get("status") or {}).get("versions") or ():
                if change := last_change(version):
                    self._last_scaling[VersionKey(endpoint.name, version["name"])] = change
        return endpoint

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        """By itself: a thousand states are written one after the other, and a router that begins is heard at once."""
        port = self.settings.agent_port
        while True:
            self.reports.listen(session, {objects.url(r.address, port): r.ready for r in self.routers.items.values()})
            await asyncio.sleep(LISTEN_S)

    def _url(self) -> str:
        """Where clients reach the router: as they were told, else its load balancer, else within the cluster."""
        if self.settings.url is not None:
            return self.settings.url
        return router_url(self.settings.namespace, next(iter(self.services.items.values()), None))

    # --- Scaler

    def targets(self) -> Mapping[VersionKey, ScalingTarget]:
        """All versions that are scaled by need; none while this one does not lead or does not know everything."""
        if not self._leads() or not self.listed:
            return {}
        placed, others = self._versions(), self.others.revision
        if self._targets is None or self._targets[0] is not placed or self._targets[1] != others:
            self._targets = placed, others, self._scaled_by_need(placed)
        found = self._targets[2].copy()
        for key in tuple(self._pending):
            if (target := found.get(key)) is not None:
                found[key] = target._replace(current=self._current(key, placed[key].work))
        return found

    def _scaled_by_need(self, placed: Mapping[VersionKey, _Placed]) -> dict[VersionKey, ScalingTarget]:
        found = {}
        fought = workloads.fought_over(self.others.items)
        for key, one in placed.items():
            scaling, work = one.version.scaling, one.work
            if not scaling.autoscale_enabled or self._of_another(key, work, fought):
                continue
            room_for = partial(self._room, work)
            found[key] = ScalingTarget(
                current=work.replicas,
                rules=one.rules,
                refresh_s=scaling.autoscale_refresh_seconds,
                room=room_for,
                ready=work.started,
                proven=work.proven,
                start_s=work.deadline_s,
            )
        return found

    def _of_another(self, key: VersionKey, work: workloads.Workload, fought: workloads.Scaled) -> bool:
        """Whether an HPA scales it: two would undo each other's work. Its state then says so."""
        hpa = fought.get((work.namespace, work.name)) if fought else None
        if hpa is not None:
            self._last_scaling[key] = f"not scaled: the HorizontalPodAutoscaler {hpa} scales {work.name}; remove it"
        return hpa is not None

    def scale(self, key: VersionKey, decision: Decision) -> None:
        """The autoscaler's decision: written at once, if it changes something."""
        placed = self._versions().get(key)
        if placed is None:
            return
        found = placed.work
        present = self._current(key, found)
        self.tally.add(key, present, decision)
        if decision.replicas == present:
            # What keeps it from growing is always told; how many requests there are is not: that changes all the time.
            if ROOM_IS_FOR in decision.reason or CHANGE not in self._last_scaling.get(key, ""):
                self._last_scaling[key] = f"{decision.replicas}: {decision.reason}"
            return
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._last_scaling[key] = f"{at} {present}{CHANGE}{decision.replicas}: {decision.reason}"
        self._set(key, found, decision.replicas)

    def _forget(self) -> None:
        """What is not its own any more: the alert on missing replicas would wait for some that nobody wants."""
        if not self._leads() or not self.listed:
            self.tally.keep(())
            return
        placed, fought = self._versions(), workloads.fought_over(self.others.items)
        self.tally.keep({k for k, one in placed.items() if (one.work.namespace, one.work.name) not in fought})
        if self._spoken_of != self.endpoints.revision:
            self._spoken_of = self.endpoints.revision
            there = {(e.name, v.name) for e in self.endpoints.items.values() for v in e.spec.versions}
            for key in [key for key in self._last_scaling if key not in there]:
                del self._last_scaling[key]

    def _versions(self) -> Mapping[VersionKey, "_Placed"]:
        if self._placed is None:
            by_version = {work.version: work for work in self.workloads.items.values()}
            found = {}
            for endpoint in objects.served(self.endpoints.items).values():
                declared = endpoint.uid, endpoint.generation
                for version in endpoint.spec.versions:
                    key = VersionKey(endpoint.name, version.name)
                    before = self._before.get(key)
                    if before is None or before.declared != declared:
                        place = endpoint.namespace, endpoint.name, version_label(version.name)
                        if (work := by_version.get(place)) is not None:
                            found[key] = _Placed(version, work, rules_of(version), declared, place)
                    elif (work := by_version.get(before.place)) is not None:
                        found[key] = before if work is before.work else before._replace(work=work)
            # The same object while nothing is new, as after each writing of a state.
            if found != self._before:
                self._before = found
            self._placed = self._before
        return self._placed

    def _current(self, key: VersionKey, work: workloads.Workload) -> int:
        pending = self._pending.get(key)
        if pending is None:
            return work.replicas
        wanted, at = pending
        if work.replicas == wanted or self._clock() - at > PENDING_S:
            del self._pending[key]
            return work.replicas
        return wanted

    def _room(self, work: workloads.Workload) -> int:
        return self.room_for(work.need, work.selector, spot=work.spot)

    def room_for(self, need: room.Amounts, selector: Mapping[str, str], *, spot: bool = False) -> int:
        """Further pods of this need and selector of nodes that fit. `spot`: whether they may run on spot nodes."""
        there, needs = self._all_taken()
        # Replicas that are wanted and have no pod yet need their place too, each as large as it is; not those that the
        # API server refuses, as beyond a quota: they may never come.
        coming = [
            room.PodNeed("", {name: missing * amount for name, amount in placed.work.need.items()})
            for key, placed in self._versions().items()
            if not placed.work.refused and (missing := self._current(key, placed.work) - there[placed.work.version]) > 0
        ]
        pods, limits = [*needs, *coming], self.settings.autoscaled_pools
        return room.room(need, self.there(), pods, limits, spot=spot, selector=selector)

    def there(self) -> Iterable[room.Node]:
        """All nodes."""
        return self.nodes.items.values()

    def needs(self) -> list[room.PodNeed]:
        """What all pods take, one entry a node."""
        return self._all_taken()[1]

    def other_scaler(self, namespace: str, name: str) -> str | None:
        """The HorizontalPodAutoscaler of a Deployment."""
        return workloads.fought_over(self.others.items).get((namespace, name))

    def _all_taken(self) -> tuple[Counter[workloads.VersionId], list[room.PodNeed]]:
        if self._taken is None:
            pods = self.pods.items.values()
            there = Counter(pod.version for pod in pods if pod.version is not None)
            self._taken = there, room.by_node(pod.need for pod in pods)
        return self._taken

    def _set(self, key: VersionKey, work: workloads.Workload, replicas: int) -> None:
        present = self._current(key, work)
        self._pending[key] = (replicas, self._clock())
        if self._api is not None and key not in self._writing:
            self._writing.add(key)
            self._start(self._write_scales(self._api, key, work, present))

    async def _write_scales(self, api: Api, key: VersionKey, work: workloads.Workload, present: int) -> None:
        try:
            while (pending := self._pending.get(key)) is not None and pending[0] != present:
                replicas = pending[0]
                try:
                    if not self._leads():
                        raise Conflict("another one leads")
                    await _write_scale(api, work, present, replicas)
                except AksInferenceError as error:
                    _log.warning("%s: not scaled from %d to %d: %s", work.name, present, replicas, error)
                    # It is decided anew, by what is there then.
                    self._pending.pop(key, None)
                    return
                self.written += 1
                present = replicas
        finally:
            self._writing.discard(key)

    # --- fixed numbers

    def _write_fixed(self) -> None:
        fought = workloads.fought_over(self.others.items)
        for key, (version, work, *_) in tuple(self._versions().items()):
            scaling = version.scaling
            if scaling.autoscale_enabled or self._of_another(key, work, fought):
                continue
            wanted = scaling.num_replicas or 1
            self.tally.decisions[key] = Decision(wanted, "as declared")
            self._last_scaling[key] = f"{wanted}: as declared"
            if self._current(key, work) != wanted:
                self._set(key, work, wanted)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _write_scale(api: Api, work: workloads.Workload, present: int, replicas: int) -> None:
    """Refused where the number is not the one that this was decided on: a leader that stood still takes nothing back
    that the next one did. In one request: asking for the number first would come between a report and its scale."""
    path = f"/apis/apps/v1/namespaces/{work.namespace}/deployments/{work.name}/scale"
    # The API server leaves out a number that is 0.
    same = {"op": "test", "path": REPLICAS, "value": present or None}
    await api.edit(path, [same, {"op": "add", "path": REPLICAS, "value": replicas}])


def rules_of(version: EndpointVersion) -> Rules:
    """How a version may be scaled."""
    scaling = version.scaling
    return Rules(
        minimum=scaling.autoscale_min_replicas,
        maximum=scaling.autoscale_max_replicas,
        target=scaling.autoscale_target_utilization / 100,
        max_concurrent=version.requests.replica_max_concurrent_requests,
        scale_down_delay_s=scaling.autoscale_scale_down_delay_seconds,
    )
