"""One endpoint: brings what runs to what is declared, and says how far it is."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aks_inference_runtime.api.endpoint import AuthMode, EndpointVersion, Requests, ScoringEndpoint
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.status import EndpointStatus, ServiceState, VersionStatus
from aks_inference_runtime.api.supervisor import EndpointKeys
from aks_inference_runtime.api.traffic import declared_traffic
from aks_inference_runtime.autoscaler.policy import Load, utilization
from aks_inference_runtime.local.environments import hash_of
from aks_inference_runtime.local.files import BY_ITSELF, write_wire
from aks_inference_runtime.local.records import EndpointRecord
from aks_inference_runtime.local.replica import Replica
from aks_inference_runtime.local.replicaset import Host, ReplicaSet
from aks_inference_runtime.local.states import endpoint_state, version_state
from aks_inference_runtime.local.template import rollout, template_of
from aks_inference_runtime.router.model import EndpointRoute, VersionKey, VersionLoad, VersionRoute, token_rules

STEP_S = 0.25
"""Between looks when nothing was reported: back-offs and deadlines end by themselves."""
MAX_BACK_OFF_S = 4.0
"""Between tries while a step fails; what happens to a replica is looked at at once."""
_log = logging.getLogger(__name__)


class EndpointController:
    """Runs one endpoint."""

    def __init__(
        self, record: EndpointRecord, keys: EndpointKeys | None, host: Host, publish: Callable[[], Awaitable[None]]
    ) -> None:
        self.record = record
        self.keys = keys
        self._host = host
        self._publish = publish
        self._sets: dict[tuple[str, str], ReplicaSet] = {}
        self._scale: dict[str, int] = {}
        self._scaling: dict[str, str] = {}
        """The last change of the number, and why; until there was one, why there was none."""
        self._reasons: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._problem = ""
        """Why the last step failed; it is tried again."""
        self._templates = _templates(record.endpoint)

    @property
    def name(self) -> str:
        """The endpoint's."""
        return self.record.endpoint.metadata.name

    def run(self) -> None:
        """Begins to work; `close` ends it."""
        self._task = asyncio.create_task(self._work(), name=f"endpoint {self.name}")

    def declare(self, record: EndpointRecord, keys: EndpointKeys | None) -> None:
        """What is wanted from now on; declared again it also takes back that something failed."""
        self.record, self.keys = record, keys
        self._templates = _templates(record.endpoint)
        for replicas in self._sets.values():
            replicas.forgive()
        self.wake()

    def adopt(self, replica: Replica) -> bool:
        """Takes over a replica that ran before the supervisor's restart; False when no version is made so any more."""
        for endpoint in filter(None, (self.record.endpoint, self.record.served)):
            for version in endpoint.spec.versions:
                template = _templates(endpoint)[version.name]
                if (version.name, template) == (replica.record.version, replica.record.template):
                    self._set(version, template).adopted(replica)
                    serving = len(self._set(version, template).serving())
                    self._scale[version.name] = max(self._scale.get(version.name, 0), serving)
                    return True
        return False

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()

    def wanted(self, version: EndpointVersion) -> int:
        """How many replicas a version is to have now."""
        scaling = version.scaling
        if not scaling.autoscale_enabled:
            return scaling.num_replicas or 1
        low, high = scaling.autoscale_min_replicas, scaling.autoscale_max_replicas
        return min(max(self._scale.get(version.name, low), low), high)

    def scale(self, version: str, replicas: int, reason: str) -> int:
        """The autoscaler's decision. Returns how many replicas were wanted before."""
        present = next((self.wanted(v) for v in self.record.endpoint.spec.versions if v.name == version), replicas)
        self._reasons[version] = f"{replicas}: {reason}"
        self._scale[version] = replicas
        if present != replicas:
            self._scaling[version] = f"{time.strftime('%H:%M:%S')} {present} → {replicas}: {reason}"
            self.wake()
        return present

    def scalable(self) -> list[EndpointVersion]:
        """The versions that the autoscaler looks after: those that were ready once."""
        if self.record.deleting:
            return []
        return [
            version
            for version in self.record.endpoint.spec.versions
            if version.scaling.autoscale_enabled
            and (self._settled or self._set(version, self._templates[version.name]).ever_ready)
        ]

    def replicas(self) -> list[Replica]:
        """All, those that drain included."""
        return [replica for replicas in self._sets.values() for replica in replicas.replicas.values()]

    def versions_in_use(self) -> list[EndpointVersion]:
        """For each replica that runs its version."""
        return [replicas.version for replicas in self._sets.values() for _ in replicas.replicas]

    def versions_to_come(self) -> list[EndpointVersion]:
        """For each replica that is wanted and not there yet, its version."""
        missing: list[EndpointVersion] = []
        for version in self.record.endpoint.spec.versions:
            there = sum(len(s.serving()) for (name, _), s in self._sets.items() if name == version.name)
            missing += [version] * max(0, self.wanted(version) - there)
        return missing

    async def close(self, drain_s: float | None) -> None:
        """Ends all replicas within a drain time each; None: lets them go on and only stops looking."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(replicas.close(drain_s) for replicas in self._sets.values()))

    def longest_request_s(self) -> float:
        """How long a request that is under way may still take."""
        requests = [v.requests for e in (self.record.endpoint, self.record.served) if e for v in e.spec.versions]
        return max((r.scoring_timeout_ms + r.max_request_wait_time) / 1_000 for r in requests) + 5

    # --- what the router is told

    def route(self) -> EndpointRoute:
        """As the router serves it: what was served whole last stays in force until the declared is ready."""
        current = self.record.served or self.record.endpoint
        declared = self.record.endpoint.spec
        traffic = declared_traffic(current.spec)
        digests = () if self.keys is None else (self.keys.primary_key, self.keys.secondary_key)
        return EndpointRoute(
            name=self.name,
            auth=declared.auth,
            key_digests=frozenset(hashlib.sha256(key.encode()).hexdigest() for key in digests),
            versions=tuple(self._version_route(v, traffic[v.name]) for v in current.spec.versions),
            version_header_enabled=declared.version_header_enabled,
            cors_origins=declared.cors_origins,
            port=declared.port,
            token=token_rules(declared),
        )

    def _version_route(self, version: EndpointVersion, traffic: int) -> VersionRoute:
        sets = [s for (name, _), s in self._sets.items() if name == version.name]
        targets = [replica.target() for s in sets for replica in s.replicas.values()]
        caps = [s.version.requests.replica_max_concurrent_requests for s in sets if s.replicas]
        requests = version.requests.model_copy(
            update={"replica_max_concurrent_requests": min(caps, default=_cap(version.requests))}
        )
        return VersionRoute(
            name=version.name,
            traffic=traffic,
            requests=requests,
            replicas=tuple(target for target in targets if target is not None),
            scaled_to_zero=self._cold(version, sets),
        )

    def _cold(self, version: EndpointVersion, sets: Sequence[ReplicaSet]) -> bool:
        """Scaled to zero, also while its first replica starts: requests go on waiting for that one."""
        return self._minimum(version) == 0 and (self.wanted(version) == 0 or not any(s.ready for s in sets))

    # --- working

    async def _work(self) -> None:
        wait_s = STEP_S
        while not self._closing:
            self._wake.clear()
            try:
                await self._step()
            except Exception as error:  # noqa: BLE001 - one bad step must not end the endpoint; it is tried again
                self._failed(error)
                wait_s = min(MAX_BACK_OFF_S, 2 * wait_s)
            else:
                if self._problem:
                    _log.info("endpoint %s: went on", self.name)
                self._problem, wait_s = "", STEP_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _failed(self, error: Exception) -> None:
        """Told in the status, and logged when it is another reason than before."""
        known = isinstance(error, AksInferenceError)
        problem = str(error) if known else f"a step failed ({type(error).__name__}: {error}){BY_ITSELF}"
        if problem != self._problem:
            _log.error("endpoint %s: %s", self.name, problem, exc_info=None if known else error)
        self._problem = problem

    async def _step(self) -> None:
        lost = [replicas.collect() for replicas in self._sets.values()]
        if any(lost):
            # Before new ones are started: until the router knows, what died is the replica that answers fastest.
            await self._publish()
        settled = True
        for version in self.record.endpoint.spec.versions:
            new = self._set(version, self._templates[version.name])
            others = [s for (name, template), s in self._sets.items() if name == version.name and s is not new]
            old = sum(len(s.serving()) for s in others)
            wanted = self.wanted(version)
            new_wanted, old_wanted = rollout(wanted, new.ready, old)
            new.reconcile(new_wanted)
            for s in others:
                keep = min(len(s.serving()), old_wanted)
                old_wanted -= keep
                s.reconcile(keep)
            old = sum(len(s.serving()) for s in others)
            # Scaled to zero nothing shows whether it works, but the first request must not wait for a build.
            enough = new.ready >= min(wanted, self._minimum(version)) if wanted else new.prepared()
            settled = settled and enough and old == 0 and not new.failed
        self._keep_removed()
        if settled and (self.record.served != self.record.endpoint or not self._settled):
            await self._switch()
        await self._publish()
        self._forget_empty()

    def _keep_removed(self) -> None:
        """Versions that are no longer declared serve on until what is declared is served whole."""
        declared = {version.name for version in self.record.endpoint.spec.versions}
        served = {v.name: v for v in self.record.served.spec.versions} if self.record.served else {}
        for (name, _), replicas in self._sets.items():
            if name not in declared:
                kept = name in served and self.record.served != self.record.endpoint
                replicas.reconcile(max(1, len(replicas.serving())) if kept else 0)

    async def _switch(self) -> None:
        """The declared is ready: from now on it is what is served. It is reported as served when the router has it."""
        told = self.record = self.record.model_copy(update={"served": self.record.endpoint})
        await self._publish()
        if self.record is not told:
            return  # declared anew meanwhile
        record = told.model_copy(update={"observed_generation": told.generation})
        write_wire(self._host.paths.endpoints / f"{self.name}.json", record, BY_ITSELF)
        self.record = record
        self._keep_removed()

    def _forget_empty(self) -> None:
        live = set(self._templates.items())
        for key, replicas in list(self._sets.items()):
            if key not in live and not replicas.replicas:
                replicas.abandon()
                del self._sets[key]

    def _set(self, version: EndpointVersion, template: str) -> ReplicaSet:
        key = (version.name, template)
        if key not in self._sets:
            self._sets[key] = ReplicaSet(self.name, version, template, self._host, self.wake)
        self._sets[key].version = version
        return self._sets[key]

    def _minimum(self, version: EndpointVersion) -> int:
        scaling = version.scaling
        if not scaling.autoscale_enabled:
            return scaling.num_replicas or 1
        return scaling.autoscale_min_replicas

    @property
    def _settled(self) -> bool:
        return self.record.observed_generation == self.record.generation

    # --- reporting

    def status(self, loads: Mapping[VersionKey, VersionLoad], base_url: str) -> EndpointStatus:
        """How it is now."""
        spec = self.record.endpoint.spec
        traffic = declared_traffic((self.record.served or self.record.endpoint).spec)
        versions = tuple(self._version_status(version, traffic, loads) for version in spec.versions)
        service = f"{base_url}/api/v1/service/{self.name}"
        if spec.port is not None:
            service = f"http://127.0.0.1:{spec.port}"
        return EndpointStatus(
            name=self.name,
            state=endpoint_state([version.state for version in versions]),
            generation=self.record.generation,
            observed_generation=self.record.observed_generation,
            scoring_uri=f"{service}/score",
            swagger_uri=f"{service}/swagger.json",
            message="is being deleted" if self.record.deleting else self._problem,
            versions=versions,
        )

    def _version_status(
        self, version: EndpointVersion, traffic: Mapping[str, int], loads: Mapping[VersionKey, VersionLoad]
    ) -> VersionStatus:
        replicas = self._set(version, self._templates[version.name])
        mine = [s for (name, _), s in self._sets.items() if name == version.name]
        ready = sum(s.ready for s in mine)
        load = loads.get(VersionKey(self.name, version.name), VersionLoad())
        state = version_state(
            failed=bool(replicas.failed),
            unschedulable=bool(replicas.unschedulable),
            ready=ready,
            wanted=self.wanted(version),
            settled=self._settled,
            troubled=any(s.troubled or any(r.unready_since for r in s.serving()) for s in mine),
        )
        quiet = state is ServiceState.HEALTHY
        return VersionStatus(
            name=version.name,
            state=state,
            traffic=traffic.get(version.name, 0) / 100,
            replicas_desired=self.wanted(version),
            replicas_ready=ready,
            busy=load.busy,
            queued=load.queued,
            utilization=round(utilization(Load(load.busy, load.queued), ready, _cap(version.requests)), 1),
            last_scaling=self._scaling.get(version.name) or self._reasons.get(version.name, ""),
            message="" if quiet else replicas.trouble(),
            replicas=tuple(replica.status(s.restarts) for s in mine for replica in s.replicas.values()),
        )


def _cap(requests: Requests) -> int:
    return requests.replica_max_concurrent_requests


def _templates(endpoint: ScoringEndpoint) -> dict[str, str]:
    return {v.name: template_of(v, hash_of(v.environment.pip_packages)) for v in endpoint.spec.versions}


def needs_keys(endpoint: ScoringEndpoint) -> bool:
    """Whether requests must bring a key."""
    return endpoint.spec.auth is AuthMode.KEY
