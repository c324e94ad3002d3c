"""The autoscaler's part: what may be scaled, how far, and the writing of scales and states."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import aiohttp

from aks_inference_runtime.api.endpoint import API_VERSION, EndpointVersion
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.kubernetes import (
    AUTOSCALER_NAME,
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
from aks_inference_runtime.autoscaler.tally import direction
from aks_inference_runtime.kubernetes import objects, room, workloads
from aks_inference_runtime.kubernetes.client import Api
from aks_inference_runtime.kubernetes.informer import Informer
from aks_inference_runtime.kubernetes.reports import Reports
from aks_inference_runtime.kubernetes.status import Facts, status_of, without_figures
from aks_inference_runtime.kubernetes.tails import tail_of
from aks_inference_runtime.kubernetes.telling import Change, Teller
from aks_inference_runtime.router.model import VersionKey

STATUS_S = 0.5
"""Between writings of one endpoint's status."""
FIGURES_S = 2.0
"""The same where nothing but requests at the moment is new."""
MOST_FIGURES = 25
"""Such writings in one round: an API server takes no thousand, and what matters comes first."""
PENDING_S = 5.0
"""A written scale that is not seen by then is written again."""
ROOM_IS_FOR = "room is for"
"""In the policy's reasons: the nodes hold no more."""
_log = logging.getLogger(__name__)


class _Placed(NamedTuple):
    """A version and its Deployment."""

    version: EndpointVersion
    work: workloads.Workload
    rules: Rules


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
        self._teller = teller
        self.reports = Reports()
        self.decisions: dict[VersionKey, Decision] = {}
        self.decided: dict[VersionKey, Counter[str]] = {}
        """How many decisions of each direction."""
        self.written = 0
        self._leads = leads
        self._clock = clock
        self._api: Api | None = None
        self._last_scaling: dict[VersionKey, str] = {}
        self._pending: dict[VersionKey, tuple[int, float]] = {}
        """Scales that were written and are not seen yet, and when."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._tails: dict[workloads.VersionId, str] = {}
        self._reading: set[workloads.VersionId] = set()
        """Versions whose log is being read: who hears that one failed is to hear why."""
        self._statuses: dict[str, dict[str, Any]] = {}
        self._written_at: dict[str, float] = {}
        self._known: dict[str, tuple[int, float]] = {}
        """Generation of each endpoint, and since when it is known."""
        self._placed: dict[VersionKey, _Placed] | None = None
        """Versions that have their Deployment; None: to be looked up again."""
        self._taken: tuple[int, list[room.PodNeed]] | None = None
        """How many replicas have a pod, and what all pods take, by node; None: to be added up again."""

        def quiet() -> None:
            """What is known is looked at every round."""

        def placed() -> None:
            self._placed = None

        def taken() -> None:
            self._taken = None

        self.endpoints = Informer(f"/apis/{API_VERSION}/scoringendpoints", objects.declared_with_status, placed)
        self.workloads = Informer("/apis/apps/v1/deployments", workloads.workload, placed)
        self.pods = Informer("/api/v1/pods", workloads.replica_pod, taken)
        self.templates = Informer("/apis/apps/v1/replicasets", workloads.template, quiet, labels=VERSION_LABEL)
        self.nodes = Informer("/api/v1/nodes", room.node_of, quiet)
        self.others = Informer("/apis/autoscaling/v2/horizontalpodautoscalers", workloads.other_scaler, quiet)
        self.routers = Informer(
            f"/api/v1/namespaces/{settings.namespace}/pods",
            objects.router_pod,
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
            for informer in self._informers():
                tasks.create_task(informer.run(api))
            while True:
                await asyncio.sleep(STATUS_S)
                port = self.settings.agent_port
                urls = frozenset(objects.url(pod.address, port) for pod in self.routers.items.values())
                self.reports.listen(session, urls)
                if self._leads() and self.listed:
                    try:
                        self._write_fixed()
                        await self._write_statuses(api)
                    except Exception:  # noqa: BLE001 - one endpoint's objects must not end the autoscaler of all
                        _log.exception("states are not written; it is tried again")

    # --- Scaler

    def targets(self) -> Mapping[VersionKey, ScalingTarget]:
        """All versions that are scaled by need; none while this one does not lead or does not know everything."""
        if not self._leads() or not self.listed:
            return {}
        found = {}
        fought = workloads.fought_over(self.others.items)
        for key, (version, work, rules) in self._versions().items():
            scaling = version.scaling
            if not scaling.autoscale_enabled:
                continue
            if fought and (hpa := fought.get((work.namespace, work.name))) is not None:
                self._last_scaling[key] = f"not scaled: the HorizontalPodAutoscaler {hpa} scales {work.name}; remove it"
                continue
            room_for = partial(self._room, work)
            found[key] = ScalingTarget(self._current(key, work), rules, scaling.autoscale_refresh_seconds, room_for)
        return found

    def scale(self, key: VersionKey, decision: Decision) -> None:
        """The autoscaler's decision: written at once, if it changes something."""
        self.decisions[key] = decision
        before = self.decided.setdefault(key, Counter())
        placed = self._versions().get(key)
        if placed is None:
            return
        found = placed.work
        present = self._current(key, found)
        before[direction(present, decision.replicas)] += 1
        if decision.replicas == present:
            # What keeps it from growing is always told; how many requests there are is not: that changes all the time.
            if ROOM_IS_FOR in decision.reason or not self._last_scaling.get(key, "").count(" → "):
                self._last_scaling[key] = f"{decision.replicas}: {decision.reason}"
            return
        at = datetime.now(UTC).strftime("%H:%M:%S")
        self._last_scaling[key] = f"{at} {present} → {decision.replicas}: {decision.reason}"
        self._set(key, found, decision.replicas)

    def _versions(self) -> Mapping[VersionKey, "_Placed"]:
        if self._placed is None:
            by_version = {work.version: work for work in self.workloads.items.values()}
            self._placed = {
                VersionKey(endpoint.name, version.name): _Placed(version, work, rules_of(version))
                for endpoint in objects.served(self.endpoints.items).values()
                for version in endpoint.spec.versions
                if (work := by_version.get((endpoint.namespace, endpoint.name, version_label(version.name))))
                is not None
            }
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
        return self.room_for(work.need, spot=work.spot)

    def room_for(self, need: room.Amounts, *, spot: bool = False) -> int:
        """Further pods of this need that fit. `spot`: whether they may run on spot nodes."""
        there, needs = self._all_taken()
        wanted = sum(self._current(other, placed.work) for other, placed in self._versions().items())
        # Replicas that are wanted and have no pod yet need their place too.
        coming = [room.PodNeed("", need)] * max(0, wanted - there)
        return room.room(need, self.there(), [*needs, *coming], self.settings.autoscaled_pools, spot=spot)

    def there(self) -> Iterable[room.Node]:
        """All nodes."""
        return self.nodes.items.values()

    def needs(self) -> list[room.PodNeed]:
        """What all pods take, one entry a node."""
        return self._all_taken()[1]

    def other_scaler(self, namespace: str, name: str) -> str | None:
        """The HorizontalPodAutoscaler of a Deployment."""
        return workloads.fought_over(self.others.items).get((namespace, name))

    def _all_taken(self) -> tuple[int, list[room.PodNeed]]:
        if self._taken is None:
            pods = self.pods.items.values()
            self._taken = sum(pod.version is not None for pod in pods), room.by_node(pod.need for pod in pods)
        return self._taken

    def _set(self, key: VersionKey, work: workloads.Workload, replicas: int) -> None:
        self._pending[key] = (replicas, self._clock())
        self._start(self._write_scale(key, work, replicas))

    async def _write_scale(self, key: VersionKey, work: workloads.Workload, replicas: int) -> None:
        if self._api is None or not self._leads():
            return
        path = f"/apis/apps/v1/namespaces/{work.namespace}/deployments/{work.name}/scale"
        try:
            await self._api.patch(path, {"spec": {"replicas": replicas}})
            self.written += 1
        except AksInferenceError as error:
            _log.warning("%s: not scaled to %d: %s", work.name, replicas, error)
            self._pending.pop(key, None)

    # --- fixed numbers and states

    def _write_fixed(self) -> None:
        for key, (version, work, _) in tuple(self._versions().items()):
            scaling = version.scaling
            if not scaling.autoscale_enabled and self._current(key, work) != (wanted := scaling.num_replicas or 1):
                self._last_scaling[key] = f"{wanted}: as declared"
                self._set(key, work, wanted)

    async def _write_statuses(self, api: Api) -> None:
        served = {endpoint.uid for endpoint in objects.served(self.endpoints.items).values()}
        by_version = {work.version: work for work in self.workloads.items.values()}
        pods: dict[workloads.VersionId, list[workloads.ReplicaPod]] = {}
        for pod in self.pods.items.values():
            if pod.version is not None:
                pods.setdefault(pod.version, []).append(pod)
        templates: dict[workloads.VersionId, list[workloads.Template]] = {}
        for template in self.templates.items.values():
            templates.setdefault(template.version, []).append(template)
        newest = {
            version: workloads.made_as_declared(by_version.get(version), templates.get(version, ()), found)
            for version, found in pods.items()
        }
        self._read_tails(api, newest)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        loads = self.reports.load()
        url = self.settings.url or f"http://{ROUTER_NAME}.{self.settings.namespace}"
        at = self._clock()
        late: list[tuple[float, objects.Declared, dict[str, Any]]] = []
        for number, endpoint in enumerate(tuple(self.endpoints.items.values())):
            if number % 50 == 0:
                await asyncio.sleep(0)  # decisions do not wait for a thousand states
            if any(version[:2] == (endpoint.namespace, endpoint.name) for version in self._reading):
                continue
            facts = Facts(
                endpoint=endpoint,
                name_in_use=endpoint.uid not in served,
                workloads=by_version,
                pods=pods,
                newest=newest,
                loads=loads,
                scaling=self._last_scaling,
                served_generation=self.reports.generation(endpoint.name),
                log_tails=self._tails,
                url=url,
                now=now,
                known_s=self._known_s(endpoint),
            )
            status, before = status_of(facts), self._statuses.get(endpoint.uid)
            if status == before:
                continue
            if before is None or without_figures(before) != without_figures(status):
                await self._write_status(api, endpoint, status)
            elif at - (written := self._written_at.get(endpoint.uid, at - FIGURES_S)) >= FIGURES_S:
                late.append((written, endpoint, status))
        for _, endpoint, status in sorted(late, key=lambda entry: entry[0])[:MOST_FIGURES]:
            await self._write_status(api, endpoint, status)
        there = {endpoint.uid for endpoint in self.endpoints.items.values()}
        for kept in (self._statuses, self._written_at, self._known):
            for gone in kept.keys() - there:
                del kept[gone]

    def _known_s(self, endpoint: objects.Declared) -> float:
        at = self._clock()
        generation, since = self._known.get(endpoint.uid, (None, at))
        if generation != endpoint.generation:
            since = at
            self._known[endpoint.uid] = endpoint.generation, at
        return at - since

    async def _write_status(self, api: Api, endpoint: objects.Declared, status: dict[str, Any]) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "ScoringEndpoint",
            "metadata": {"name": endpoint.name, "namespace": endpoint.namespace},
            "status": status,
        }
        path = f"/apis/{API_VERSION}/namespaces/{endpoint.namespace}/scoringendpoints/{endpoint.name}/status"
        try:
            await api.apply(path, body, AUTOSCALER_NAME)
        except AksInferenceError as error:
            _log.warning("%s", error)
            return
        before = (self._statuses.get(endpoint.uid) or endpoint.status or {}).get("state")
        self._statuses[endpoint.uid] = status
        self._written_at[endpoint.uid] = self._clock()
        if self._teller is not None and before != status["state"]:
            change = Change(
                namespace=endpoint.namespace,
                name=endpoint.name,
                uid=endpoint.uid,
                generation=endpoint.generation,
                before=before,
                after=status["state"],
                message=status["message"],
                scoring_uri=status["scoringUri"],
                at=datetime.now(UTC),
            )
            self._start(self._teller.tell(api, change))

    def _read_tails(self, api: Api, newest: Mapping[workloads.VersionId, Sequence[workloads.ReplicaPod]]) -> None:
        bad = {version: pod for version, found in newest.items() for pod in found if pod.given_up and not pod.ready}
        for version in self._tails.keys() - bad.keys():
            del self._tails[version]
        for version, pod in bad.items():
            if version not in self._tails:
                self._tails[version] = ""
                self._reading.add(version)
                self._start(self._read_tail(api, version, pod))

    async def _read_tail(self, api: Api, version: workloads.VersionId, pod: workloads.ReplicaPod) -> None:
        try:
            self._tails[version] = await tail_of(api, pod)
        finally:
            self._reading.discard(version)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
