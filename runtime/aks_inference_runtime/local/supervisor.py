"""The supervisor: keeps what is declared, runs it, and can be killed and started again meanwhile."""

import asyncio
import logging
import secrets
import shutil
from collections.abc import Mapping
from functools import partial

from aks_inference_runtime.api.client import refuse_newer
from aks_inference_runtime.api.endpoint import Resources, ScoringEndpoint
from aks_inference_runtime.api.errors import AksInferenceError, Conflict, InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.keys import kept_keys
from aks_inference_runtime.api.status import EndpointStatus, EndpointView, ModelRecord, ServiceState
from aks_inference_runtime.api.supervisor import EndpointKeys, EndpointSubmission, LocalSettings, ModelRegistration
from aks_inference_runtime.autoscaler.controller import Autoscaler, ScalingTarget
from aks_inference_runtime.autoscaler.policy import Decision, Rules
from aks_inference_runtime.local import logs
from aks_inference_runtime.local.apps import CodeStore
from aks_inference_runtime.local.capacity import machine, room
from aks_inference_runtime.local.checks import check, check_port
from aks_inference_runtime.local.endpoint import EndpointController, needs_keys
from aks_inference_runtime.local.environments import EnvironmentStore, cache_root
from aks_inference_runtime.local.files import read_wire, remove_tree, write_wire
from aks_inference_runtime.local.keeper import KEEPER
from aks_inference_runtime.local.models import ModelStore
from aks_inference_runtime.local.observer import Observer
from aks_inference_runtime.local.process import kill_all, marked
from aks_inference_runtime.local.publisher import Publisher
from aks_inference_runtime.local.records import (
    EndpointRecord,
    KeysRecord,
    ReplicaRecord,
    StatePaths,
)
from aks_inference_runtime.local.replica import Replica, adopt, remove_files
from aks_inference_runtime.local.replicaset import Host
from aks_inference_runtime.router.model import Router, RouterState, VersionKey

ROTATE_S = 2.0
SHUTDOWN_DRAIN_S = 10.0
"""How long requests that are under way may take when everything is destroyed."""
SHUTDOWN_MARGIN_S = 20.0
_log = logging.getLogger(__name__)


class Supervisor:
    """One local cluster."""

    def __init__(self, settings: LocalSettings, paths: StatePaths, router: Router) -> None:
        self.settings = settings
        self.paths = paths
        self.models = ModelStore(paths.models)
        self._codes = CodeStore(paths.code)
        self._router = router
        self.observer = Observer(paths.root, router, self._present, self._replicas)
        self._host = Host(
            paths=paths,
            environments=EnvironmentStore(cache_root()),
            models=self.models,
            codes=self._codes,
            machine=machine(),
            used=self._used,
            starting=self._starting,
            drain=self._drain,
            reported=self.observer.reported,
        )
        self._endpoints: dict[str, EndpointController] = {}
        self._publisher = Publisher(router, self._router_state)
        self._changing: dict[str, asyncio.Lock] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stores = asyncio.Lock()

    @property
    def url(self) -> str:
        """Of the router."""
        return f"http://127.0.0.1:{self.settings.port}"

    async def start(self) -> None:
        """Reads what is declared, takes over what still runs, and begins. Raises InvalidInput for a damaged file."""
        self.paths.make()
        # All files are read before anything is touched: one that is damaged stops the start and destroys nothing.
        records = [read_wire(path, EndpointRecord) for path in sorted(self.paths.endpoints.glob("*.json"))]
        keys = {path.stem: read_wire(path, KeysRecord) for path in self.paths.keys.glob("*.json")}
        replicas = self._replica_records()
        self.observer.load()
        for record in records:
            name = record.endpoint.metadata.name
            self._endpoints[name] = self._controller(record, keys.get(name))
        await self._take_over(replicas)
        await self._router.start()
        for endpoint in self._endpoints.values():
            if endpoint.record.deleting:
                self._tasks.append(asyncio.create_task(self._remove(endpoint)))
            else:
                endpoint.run()
        scaler = Autoscaler(self._router, self)
        for work in (scaler.run(), self._publisher.keep_trying(), self._rotate(), self.observer.run()):
            self._tasks.append(asyncio.create_task(work))

    async def detach(self) -> None:
        """Ends the supervisor alone: all that serves goes on, and the next one takes it over."""
        await self._end_tasks()
        await asyncio.gather(*(endpoint.close(None) for endpoint in self._endpoints.values()))
        await self.observer.close()
        await self._publisher.close()
        await self._router.detach()

    async def shutdown(self) -> None:
        """Ends everything that it started; the files of what is declared stay."""
        try:
            async with asyncio.timeout(SHUTDOWN_DRAIN_S + SHUTDOWN_MARGIN_S):
                await self._end_tasks()
                await asyncio.gather(*(endpoint.close(SHUTDOWN_DRAIN_S) for endpoint in self._endpoints.values()))
        except TimeoutError:
            _log.error("not all ended in order in time; the rest is killed")
        await self.observer.close()
        await self._publisher.close()
        await self._router.stop()
        await asyncio.to_thread(lambda: kill_all(marked(self.paths.root)))

    # --- models

    async def put_model(self, registration: ModelRegistration) -> ModelRecord:
        """See SupervisorClient.put_model."""
        async with self._stores:
            return await asyncio.to_thread(self.models.put, registration)

    async def delete_model(self, name: str, version: int) -> None:
        """See SupervisorClient.delete_model."""
        async with self._stores:
            users = [
                endpoint.name
                for endpoint in self._endpoints.values()
                if any(
                    (model.name, model.version, model.store) == (name, version, None)
                    for declared in filter(None, (endpoint.record.endpoint, endpoint.record.served))
                    for v in declared.spec.versions
                    for model in v.models
                )
            ]
            await asyncio.to_thread(self.models.delete, name, version, sorted(users))

    # --- endpoints

    async def put_endpoint(self, submission: EndpointSubmission) -> EndpointStatus:
        """See SupervisorClient.put_endpoint."""
        name = submission.endpoint.metadata.name
        if name in self._endpoints and self._endpoints[name].record.deleting:
            raise Conflict(f"endpoint {name} is being deleted; declare it again when it is gone")
        async with self._changing.setdefault(name, asyncio.Lock()):
            present = self._endpoints.get(name)
            # From the look at its models on none of them may be deleted.
            async with self._stores:
                await asyncio.to_thread(check, submission, self.models)
                self._check_port(submission.endpoint, present)
                try:
                    for version in submission.endpoint.spec.versions:
                        await asyncio.to_thread(self._codes.put, version.code)
                    present = self._declare(submission, present)
                finally:
                    await asyncio.to_thread(self._collect_code)
            return self.status(present)

    def _declare(self, submission: EndpointSubmission, present: EndpointController | None) -> EndpointController:
        keys = self._keys(submission, present)
        record = _next(present, submission.endpoint, keys)
        self._write(record, keys, present)
        if present is not None:
            present.declare(record, keys)
            return present
        made = self._endpoints[record.endpoint.metadata.name] = self._controller(record, keys)
        made.run()
        return made

    async def delete_endpoint(self, name: str) -> None:
        """See SupervisorClient.delete_endpoint."""
        endpoint = self.endpoint(name)
        async with self._changing.setdefault(name, asyncio.Lock()):
            if self._endpoints.get(name) is not endpoint:
                return
            endpoint.record = endpoint.record.model_copy(update={"deleting": True})
            try:
                write_wire(self.paths.endpoints / f"{name}.json", endpoint.record)
            except OperationFailed as error:
                # The mark only helps a supervisor that is killed meanwhile, and deleting makes room on a full disk.
                _log.warning("endpoint %s is deleted without a mark: %s", name, error)
            await self._remove(endpoint)

    async def _remove(self, endpoint: EndpointController) -> None:
        name = endpoint.name
        await self._publisher.publish()
        await endpoint.close(endpoint.longest_request_s())
        self._endpoints.pop(name, None)
        self.observer.tally.forget(name)
        for folder in (self.paths.apps / name, self.paths.logs / name):
            await asyncio.to_thread(remove_tree, folder)
        (self.paths.keys / f"{name}.json").unlink(missing_ok=True)
        (self.paths.endpoints / f"{name}.json").unlink(missing_ok=True)
        async with self._stores:
            await asyncio.to_thread(self._collect_code)

    def endpoint(self, name: str) -> EndpointController:
        """Raises NotFound."""
        if name not in self._endpoints:
            present = ", ".join(sorted(self._endpoints)) or "none"
            raise NotFound(f"no endpoint {name} (endpoints: {present})")
        return self._endpoints[name]

    def keys(self, name: str) -> EndpointKeys:
        """Raises NotFound."""
        keys = self.endpoint(name).keys
        if keys is None:
            raise NotFound(f"endpoint {name} asks for no key")
        return EndpointKeys(primary_key=keys.primary_key, secondary_key=keys.secondary_key)

    def views(self) -> list[EndpointView]:
        """All endpoints, by name."""
        return [self.view(self._endpoints[name]) for name in sorted(self._endpoints)]

    def view(self, endpoint: EndpointController) -> EndpointView:
        """What is declared and how it is."""
        return EndpointView(endpoint=endpoint.record.endpoint, status=self.status(endpoint))

    def status(self, endpoint: EndpointController) -> EndpointStatus:
        """How it is now."""
        status = endpoint.status(self._router.load(), self.url)
        problem = self._router.problems().get(endpoint.name)
        if problem is None or endpoint.record.deleting:
            return status
        both = "\n".join(filter(None, (problem, status.message)))
        return status.model_copy(update={"state": ServiceState.UNHEALTHY, "message": both})

    # --- the autoscaler's view (Scaler)

    def targets(self) -> Mapping[VersionKey, ScalingTarget]:
        """All versions that are scaled by need."""
        found = {}
        for endpoint in self._endpoints.values():
            for version in endpoint.scalable():
                scaling = version.scaling
                found[VersionKey(endpoint.name, version.name)] = ScalingTarget(
                    current=endpoint.wanted(version),
                    rules=Rules(
                        minimum=scaling.autoscale_min_replicas,
                        maximum=scaling.autoscale_max_replicas,
                        target=scaling.autoscale_target_utilization / 100,
                        max_concurrent=version.requests.replica_max_concurrent_requests,
                        scale_down_delay_s=scaling.autoscale_scale_down_delay_seconds,
                    ),
                    refresh_s=scaling.autoscale_refresh_seconds,
                    room=partial(self._room, version.resources),
                )
        return found

    def scale(self, key: VersionKey, decision: Decision) -> None:
        """The autoscaler's decision."""
        if (endpoint := self._endpoints.get(key.endpoint)) is not None:
            present = endpoint.scale(key.version, decision.replicas, decision.reason)
            self.observer.tally.add(key, present, decision)

    # --- inside

    def _controller(self, record: EndpointRecord, keys: EndpointKeys | None) -> EndpointController:
        return EndpointController(record, keys, self._host, self._publisher.publish)

    def _replica_records(self) -> list[ReplicaRecord]:
        """Those of running replicas. A damaged one declares nothing: its processes are ended, others follow."""
        records = []
        for path in sorted(self.paths.replicas.glob("*.json")):
            refuse_newer(path, path.read_text(errors="replace"))
            try:
                records.append(read_wire(path, ReplicaRecord))
            except InvalidInput as error:
                _log.warning("%s", error)
        return records

    async def _take_over(self, records: list[ReplicaRecord]) -> None:
        """Replicas that still run go on under this supervisor; what is left of others is ended."""
        adopted: set[str] = set()
        for record in records:
            endpoint = self._endpoints.get(record.endpoint)
            replica = adopt(record, endpoint.wake, self._host.reported) if endpoint is not None else None
            if replica is not None and endpoint is not None and endpoint.adopt(replica):
                adopted.add(record.id)
            elif replica is not None:
                await replica.stop(self.paths)
        # Halves of replicas, and builds that nobody waits for any more.
        # The keeper that started this one goes on until it answers: should it fail to start, somebody tries again.
        await asyncio.to_thread(lambda: kill_all(marked(self.paths.root, but={*adopted, KEEPER})))
        for record in records:
            if record.id not in adopted:
                remove_files(record, self.paths)
        for path in self.paths.replicas.iterdir():
            if path.stem not in adopted:
                path.unlink()
        _log.info("took over %d replicas", len(adopted))

    def _router_state(self) -> RouterState:
        serving = [endpoint for endpoint in self._endpoints.values() if not endpoint.record.deleting]
        return RouterState({endpoint.name: endpoint.route() for endpoint in serving})

    async def _drain(self, replica: Replica, seconds: float) -> None:
        await self._publisher.publish()
        if not await self._router.drained(replica.id, seconds):
            _log.warning("replica %s had requests under way after %g s", replica.id, seconds)

    def _used(self) -> list[Resources]:
        return [v.resources for endpoint in self._endpoints.values() for v in endpoint.versions_in_use()]

    def _room(self, request: Resources) -> int:
        """What is free beside what runs and what is wanted already and still to come."""
        to_come = [v.resources for endpoint in self._endpoints.values() for v in endpoint.versions_to_come()]
        return room(self._host.machine, self._used() + to_come, request)

    def _replicas(self) -> list[Replica]:
        return [replica for endpoint in self._endpoints.values() for replica in endpoint.replicas()]

    def _present(self) -> list[EndpointView]:
        return [self.view(endpoint) for endpoint in self._endpoints.values() if not endpoint.record.deleting]

    def _starting(self) -> int:
        return sum(replica.just_started for replica in self._replicas())

    def _check_port(self, endpoint: ScoringEndpoint, present: EndpointController | None) -> None:
        name = endpoint.metadata.name
        ports = {n: e.record.endpoint.spec.port for n, e in self._endpoints.items() if n != name}
        others = {n: port for n, port in ports.items() if port is not None}
        held = present is not None and present.record.endpoint.spec.port == endpoint.spec.port
        metrics = self.observer.observing.metrics_port
        check_port(endpoint, self.settings.port, others, held, metrics)

    @staticmethod
    def _keys(submission: EndpointSubmission, present: EndpointController | None) -> KeysRecord | None:
        if not needs_keys(submission.endpoint):
            return None
        before = (present.keys.primary_key, present.keys.secondary_key) if present and present.keys else (None, None)
        kept = kept_keys(submission.primary_key, submission.secondary_key, before)
        primary, secondary = (key or secrets.token_urlsafe(24) for key in kept)
        return KeysRecord(primary_key=primary, secondary_key=secondary)

    def _write(self, record: EndpointRecord, keys: EndpointKeys | None, present: EndpointController | None) -> None:
        """Both files or none: when the second cannot be written, the first gets its old content back."""
        name = record.endpoint.metadata.name
        path = self.paths.keys / f"{name}.json"
        old = present.keys if present is not None else None
        if keys is not None and keys != old:
            write_wire(path, keys)
        try:
            if present is None or record != present.record:
                write_wire(self.paths.endpoints / f"{name}.json", record)
        except AksInferenceError:
            if old is None:
                path.unlink(missing_ok=True)
            elif keys != old:
                write_wire(path, old)
            raise
        if keys is None:
            path.unlink(missing_ok=True)

    def _collect_code(self) -> None:
        """Removes snapshots that no endpoint needs."""
        needed = {
            self._codes.folder(version.code)
            for endpoint in self._endpoints.values()
            for declared in filter(None, (endpoint.record.endpoint, endpoint.record.served))
            for version in declared.spec.versions
        }
        for folder in self.paths.code.iterdir():
            if folder not in needed:
                shutil.rmtree(folder, ignore_errors=True)

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_S)
            files = [replica.record.log for replica in self._replicas()]
            for path in (*files, self.paths.root / "supervisor.log"):
                try:
                    await asyncio.to_thread(logs.rotate, path)
                except OSError as error:
                    _log.warning("%s is not rotated: %s", path, error)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def _next(present: EndpointController | None, endpoint: ScoringEndpoint, keys: EndpointKeys | None) -> EndpointRecord:
    """The record of what is declared now; the generation grows when something changed."""
    if present is None:
        return EndpointRecord(endpoint=endpoint, generation=1)
    if present.record.endpoint == endpoint and present.keys == keys:
        return present.record
    return present.record.model_copy(update={"endpoint": endpoint, "generation": present.record.generation + 1})
