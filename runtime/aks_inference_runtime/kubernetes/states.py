"""The autoscaler's writing of endpoints' states: of each when what it is made of has changed.

With a thousand endpoints that is what an autoscaler would do most of the time: figures change with every request.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.errors import AksInferenceError, NotFound
from aks_inference_runtime.api.kubernetes import AUTOSCALER_NAME, version_label
from aks_inference_runtime.kubernetes import objects, workloads
from aks_inference_runtime.kubernetes.client import Api
from aks_inference_runtime.kubernetes.creating import Creating
from aks_inference_runtime.kubernetes.informer import Informer
from aks_inference_runtime.kubernetes.reports import Loads, Reports
from aks_inference_runtime.kubernetes.status import (
    HEARD_S,
    Facts,
    ready_condition,
    status_of,
    unusable,
    without_figures,
)
from aks_inference_runtime.kubernetes.tails import tail_of
from aks_inference_runtime.kubernetes.telling import Change, Teller
from aks_inference_runtime.router.model import VersionKey

FIGURES_S = 2.0
"""Between writings of one endpoint's state where nothing but requests at the moment is new."""
MOST_FIGURES = 25
"""Such writings in one round: an API server takes no thousand, and what matters comes first."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What is known of the cluster."""

    endpoints: Informer[objects.Declared]
    deployments: Informer[workloads.Workload]
    pods: Informer[workloads.ReplicaPod]
    templates: Informer[workloads.Template]


class _Grouped(NamedTuple):
    """The same by version."""

    deployments: Mapping[workloads.VersionId, workloads.Workload]
    pods: Mapping[workloads.VersionId, Sequence[workloads.ReplicaPod]]
    newest: Mapping[workloads.VersionId, Sequence[workloads.ReplicaPod]]
    bad: Mapping[workloads.VersionId, workloads.ReplicaPod]
    """Of those one that will not get ready by itself, and is not; or one that should be long since."""
    creating: Mapping[workloads.VersionId, workloads.ReplicaPod]
    """Of those one whose containers are not made yet."""


class _Round(NamedTuple):
    """What one round is about."""

    served: frozenset[str]
    grouped: _Grouped
    loads: Loads
    generation: Callable[[str], int | None]
    """See `Reports.served`."""
    unserved: Mapping[str, str]
    """See `Reports.unserved`."""
    waits: str
    """See `Reports.waits`."""
    now: str


class _Made(NamedTuple):
    """What an endpoint's state was made of: all but its figures, and those; None: of others."""

    of: tuple[object, ...]
    figures: tuple[object, ...] | None


class States:
    """Remembers what was written."""

    def __init__(
        self,
        sources: Sources,
        reports: Reports,
        scaling: Mapping[VersionKey, str],
        url: Callable[[], str],
        clock: Callable[[], float],
        teller: Teller | None,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            sources, reports: Required. What is known.
            scaling: Required. The last decision of each version and its reason; changes all the time.
            url: Required. Of the router; changes when its load balancer gets its address.
            clock: Required. In seconds.
            teller: Required. Of changed states; None: nobody is told.
            leads: Optional. Asked before each writing: of a thousand the last one is much later. Default: always.
        """
        self._sources = sources
        self._reports = reports
        self._scaling = scaling
        self._url = url
        self._clock = clock
        self._teller = teller
        self._leads = leads
        self._tasks: set[asyncio.Task[None]] = set()
        self._tails: dict[workloads.VersionId, str] = {}
        self._creating = Creating(clock)
        self._asking: asyncio.Task[None] | None = None
        """At most one: an API server that is slow has its time."""
        self._reading: set[workloads.VersionId] = set()
        """Versions whose log is being read: who hears that one failed is to hear why."""
        self._statuses: dict[str, dict[str, Any]] = {}
        self._made: dict[str, _Made] = {}
        self._written_at: dict[str, float] = {}
        self._known: dict[str, tuple[int, float]] = {}
        """Generation of each endpoint, and since when it is known."""
        self._places: dict[str, tuple[objects.Declared, list[workloads.VersionId]]] = {}
        self._grouped: tuple[object, _Grouped] | None = None
        self.refused: dict[tuple[str, str], objects.Refused] = {}
        """Endpoints that cannot be read, by namespace and name, until their state says so."""
        self._unusable: set[str] = set()
        """Endpoints that have no state as they are declared, once that was logged."""

    def _forget(self) -> None:
        """What was written: another one leads, and what it wrote since is what the next change is from."""
        for kept in (self._statuses, self._made, self._written_at):
            kept.clear()

    async def write(self, api: Api) -> None:
        """One round; nothing while this one does not lead."""
        if not self._leads():
            self._forget()
            return
        endpoints = self._sources.endpoints.items
        served = frozenset(endpoint.uid for endpoint in objects.served(endpoints).values())
        grouped = self._by_version()
        self._read_tails(api, grouped.bad)
        if self._asking is None or self._asking.done():
            self._asking = self._start(self._creating.look(api, grouped.creating))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        heard = self._reports
        a_round = _Round(served, grouped, heard.load(), heard.served(), heard.unserved(), heard.waits(), now)
        at = self._clock()
        late: list[tuple[float, objects.Declared, _Made]] = []
        for number, endpoint in enumerate(tuple(endpoints.values())):
            if number % 50 == 0:
                await asyncio.sleep(0)  # decisions do not wait for a thousand states
            if self._reading and any(version[:2] == (endpoint.namespace, endpoint.name) for version in self._reading):
                continue
            made = self._made_of(endpoint, a_round)
            before, was = self._statuses.get(endpoint.uid), self._made.get(endpoint.uid)
            if before is None or was is None or was.of != made.of:
                status = self._status(endpoint, a_round)
                if before is None or without_figures(before) != without_figures(status):
                    await self._write(api, endpoint, status, made)
                    continue
                was = self._made[endpoint.uid] = made._replace(figures=made.figures if status == before else None)
            if was.figures != made.figures:
                written = self._written_at.get(endpoint.uid, at - FIGURES_S)
                if at - written >= FIGURES_S:
                    late.append((written, endpoint, made))
        for _, endpoint, made in sorted(late, key=lambda entry: entry[0])[:MOST_FIGURES]:
            await self._write(api, endpoint, self._status(endpoint, a_round), made)
        await self._write_refused(api, now)
        there = {endpoint.uid for endpoint in self._sources.endpoints.items.values()}
        self._unusable &= there
        for kept in (self._statuses, self._made, self._written_at, self._known, self._places):
            for gone in kept.keys() - there:
                del kept[gone]

    async def _write_refused(self, api: Api, now: str) -> None:
        for place, refused in tuple(self.refused.items()):
            status = unusable(refused, refused.why, now)
            known = {**refused.status, "conditions": [ready_condition(refused.status)]}
            if status.items() <= known.items() or await self._write(api, refused, status):
                self.refused.pop(place, None)

    def _by_version(self) -> _Grouped:
        sources = self._sources
        revisions = sources.deployments.revision, sources.pods.revision, sources.templates.revision
        if self._grouped is None or self._grouped[0] != revisions:
            by_version = {work.version: work for work in sources.deployments.items.values()}
            pods: dict[workloads.VersionId, list[workloads.ReplicaPod]] = {}
            for pod in sources.pods.items.values():
                if pod.version is not None:
                    pods.setdefault(pod.version, []).append(pod)
            templates: dict[workloads.VersionId, list[workloads.Template]] = {}
            for template in sources.templates.items.values():
                templates.setdefault(template.version, []).append(template)
            newest = {
                version: workloads.made_as_declared(by_version.get(version), templates.get(version, ()), found)
                for version, found in pods.items()
            }
            bad = {version: one for version, found in newest.items() if (one := _bad(by_version.get(version), found))}
            creating = {version: pod for version, found in newest.items() for pod in found if pod.creating}
            self._grouped = revisions, _Grouped(by_version, pods, newest, bad, creating)
        return self._grouped[1]

    def _made_of(self, endpoint: objects.Declared, a_round: _Round) -> _Made:
        grouped = a_round.grouped
        known = self._places.get(endpoint.uid)
        if known is None or known[0] is not endpoint:
            places = [(endpoint.namespace, endpoint.name, version_label(v.name)) for v in endpoint.spec.versions]
            known = self._places[endpoint.uid] = endpoint, places
        of = (grouped.deployments, grouped.pods, grouped.newest, self._tails, self._creating.words)
        facts = (tuple(told.get(place) for told in of) for place in known[1])
        keys = [VersionKey(endpoint.name, version.name) for version in endpoint.spec.versions]
        why = a_round.unserved.get(endpoint.name)
        in_use, heard = endpoint.uid not in a_round.served, self._known_s(endpoint) >= HEARD_S
        return _Made(
            (endpoint, in_use, heard, self._url(), a_round.generation(endpoint.name), why, a_round.waits, *facts),
            (*map(a_round.loads.get, keys), *map(self._scaling.get, keys)),
        )

    def _status(self, endpoint: objects.Declared, a_round: _Round) -> dict[str, Any]:
        """One that cannot be understood costs only itself, and says why."""
        try:
            status = status_of(self._facts(endpoint, a_round))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others go on
            if endpoint.uid not in self._unusable:
                _log.exception("endpoint %s/%s has no state", endpoint.namespace, endpoint.name)
                self._unusable.add(endpoint.uid)
            return unusable(endpoint, str(error), a_round.now)
        self._unusable.discard(endpoint.uid)
        return status

    def _facts(self, endpoint: objects.Declared, a_round: _Round) -> Facts:
        return Facts(
            endpoint=endpoint,
            name_in_use=endpoint.uid not in a_round.served,
            workloads=a_round.grouped.deployments,
            pods=a_round.grouped.pods,
            newest=a_round.grouped.newest,
            loads=a_round.loads,
            scaling=self._scaling,
            served_generation=a_round.generation(endpoint.name),
            unserved=a_round.unserved.get(endpoint.name, ""),
            waits=a_round.waits,
            log_tails=self._tails,
            creating=self._creating.words,
            url=self._url(),
            now=a_round.now,
            known_s=self._known_s(endpoint),
        )

    def _known_s(self, endpoint: objects.Declared) -> float:
        at = self._clock()
        generation, since = self._known.get(endpoint.uid, (None, at))
        if generation != endpoint.generation:
            since = at
            self._known[endpoint.uid] = endpoint.generation, at
        return at - since

    async def _write(
        self, api: Api, endpoint: objects.Declared | objects.Refused, status: dict[str, Any], made: _Made | None = None
    ) -> bool:
        """Whether there is no more to write of it now."""
        if not self._leads():
            self._forget()
            return False
        body = {
            "apiVersion": API_VERSION,
            "kind": "ScoringEndpoint",
            "metadata": {"name": endpoint.name, "namespace": endpoint.namespace},
            "status": status,
        }
        path = f"/apis/{API_VERSION}/namespaces/{endpoint.namespace}/scoringendpoints/{endpoint.name}/status"
        try:
            await api.apply(path, body, AUTOSCALER_NAME)
        except NotFound:
            return True  # who deleted it is told of by and by
        except AksInferenceError as error:
            _log.warning("%s", error)
            return False
        before = (self._statuses.get(endpoint.uid) or endpoint.status or {}).get("state")
        self._statuses[endpoint.uid] = status
        if made is not None:
            self._made[endpoint.uid] = made
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
        return True

    def _read_tails(self, api: Api, bad: Mapping[workloads.VersionId, workloads.ReplicaPod]) -> None:
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

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _bad(work: workloads.Workload | None, pods: Sequence[workloads.ReplicaPod]) -> workloads.ReplicaPod | None:
    """The one whose log tells why; of what waits for a node there is none."""
    unready = [pod for pod in pods if not pod.ready]
    given_up = next((pod for pod in unready if pod.given_up), None)
    if given_up is None and work is not None and work.overdue and len(unready) == len(pods):
        return next((pod for pod in unready if not pod.unschedulable), None)
    return given_up
