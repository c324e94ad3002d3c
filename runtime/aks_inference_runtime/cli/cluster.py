"""What runs on a Kubernetes cluster, for the same commands as on this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aks_inference_runtime.api.endpoint import API_VERSION, Metadata, ScoringEndpoint
from aks_inference_runtime.api.errors import (
    AksInferenceError,
    InvalidInput,
    NotFound,
    OperationFailed,
    RuntimeUnavailable,
)
from aks_inference_runtime.api.kubernetes import (
    COMPONENT_LABEL,
    ENDPOINT_LABEL,
    READY_CONDITION,
    REPLICA_COMPONENT,
    VERSION_LABEL,
    version_label,
)
from aks_inference_runtime.api.status import (
    EndpointStatus,
    EndpointView,
    ReplicaState,
    ReplicaStatus,
    ServiceState,
    VersionStatus,
)
from aks_inference_runtime.cli.loglines import LogLine
from aks_inference_runtime.kubernetes.client import Api, Object
from aks_inference_runtime.kubernetes.connection import Connection, from_kubeconfig
from aks_inference_runtime.kubernetes.kubeconfig import of_environment
from aks_inference_runtime.kubernetes.log_in import by_program
from aks_inference_runtime.kubernetes.workloads import replica_pod

CONTAINER = "scoring"
_STATUSES = ("initContainerStatuses", "containerStatuses")
POLL_S = 1.0
LOOK_S = 2.0
"""Between looks for new replicas while their logs are followed."""
MOST_WAITING = 10_000
"""Lines that may wait for who reads: a reader that is slower holds the streams up."""


def kubeconfigs(given: Path | None) -> list[Path]:
    """The file as given, or those of the environment. Raises InvalidInput where there is none."""
    if given is not None and not given.is_file():
        raise InvalidInput(f"no kubeconfig: {given} is not there; name one with --kubeconfig")
    return of_environment() if given is None else [given]


def connection(given: Path | None, context: str | None) -> Connection:
    """To the API server that a kubeconfig names. Raises InvalidInput, OperationFailed."""
    return from_kubeconfig(kubeconfigs(given), context, by_program)


class ClusterSource:
    """A cluster's."""

    def __init__(self, api: Api, where: Connection, namespace: str | None = None) -> None:
        """`namespace`: where to look; None: in all."""
        self._api = api
        self._server = where.server
        self._namespace = namespace

    async def heading(self) -> tuple[str, dict[str, Any]]:
        """See `Source`."""
        about: dict[str, Any] = {"server": self._server}
        if self._namespace is not None:
            about["namespace"] = self._namespace
        return f"cluster {self._server}{f', namespace {self._namespace}' if self._namespace else ''}", about

    async def endpoints(self) -> list[EndpointView]:
        """See `Source`."""
        found, pods = await asyncio.gather(self._declared(), self._pods(f"{COMPONENT_LABEL}={REPLICA_COMPONENT}"))
        return [view_of(one, pods) for one in sorted(found, key=_place)]

    async def endpoint(self, name: str) -> EndpointView:
        """See `Source`."""
        found = await self._found(name)
        return view_of(found, await self._pods(f"{ENDPOINT_LABEL}={name}"))

    async def logs(
        self, status: EndpointStatus, version: str | None, replica: str | None, tail: int, follow: bool, dead: bool
    ) -> AsyncIterator[LogLine]:
        """See `Source`."""
        found = await self._chosen(status.name, version, replica)
        if not found and (version or replica) and not follow:
            raise NotFound(f"endpoint {status.name} has no replica {replica or 'any'} of version {version or 'any'}")
        streams = _Streams(self._api, tail, follow)
        try:
            for one in found:
                streams.begin(one, ended=not follow and (dead or one.unwell))
            if follow:
                streams.watch(lambda: self._chosen(status.name, version, replica))
            async for line in streams.lines():
                yield line
        finally:
            await streams.close()

    async def key(self, name: str) -> str:
        """See `Source`."""
        raise InvalidInput(
            f"keys never reach the cluster: give that of {name} as AKS_INFERENCE_KEY (the stack has it: "
            f"`pulumi stack output --show-secrets`)"
        )

    async def wait(self, name: str, timeout_s: float, progress: Callable[[EndpointStatus], None]) -> EndpointStatus:
        """See `Source`."""
        loop = asyncio.get_running_loop()
        deadline, before = loop.time() + timeout_s, None
        while True:
            status = (await self.endpoint(name)).status
            if status != before:
                progress(status)
                before = status
            if status.observed_generation == status.generation and status.state is ServiceState.HEALTHY:
                return status
            if status.state is ServiceState.FAILED or loop.time() > deadline:
                what = "failed" if status.state is ServiceState.FAILED else f"is not served whole after {timeout_s:g} s"
                raise OperationFailed(f"endpoint {name} {what}: {status.message or status.state}")
            await asyncio.sleep(min(POLL_S, max(0.0, deadline - loop.time()) + 0.01))

    async def _chosen(self, name: str, version: str | None, replica: str | None) -> "list[_Log]":
        found = await self._found(name)
        versions = {version_label(v["name"]): str(v["name"]) for v in found["spec"]["versions"]}
        logs: list[_Log] = []
        for pod in await self._pods(f"{ENDPOINT_LABEL}={name}"):
            label = pod["metadata"]["labels"].get(VERSION_LABEL, "")
            of = versions.get(label, label)
            if version in (None, of) and replica in (None, pod["metadata"]["name"]):
                logs += _logs_of(pod, of)
        return logs

    async def _declared(self) -> list[Object]:
        inside = f"/namespaces/{self._namespace}" if self._namespace else ""
        try:
            return (await self._api.list(f"/apis/{API_VERSION}{inside}/scoringendpoints"))[0]
        except NotFound:
            raise RuntimeUnavailable(
                f"{self._server} does not know ScoringEndpoints: the inference runtime is not on this cluster"
            ) from None

    async def _found(self, name: str) -> Object:
        """By name; of those with one name in several namespaces the one that is served: the oldest."""
        every = await self._declared()
        fitting = [one for one in every if one["metadata"]["name"] == name]
        if not fitting:
            present = ", ".join(sorted(one["metadata"]["name"] for one in every)) or "none"
            raise NotFound(f"no endpoint {name} (endpoints: {present})")
        return min(fitting, key=lambda one: (one["metadata"].get("creationTimestamp", ""), one["metadata"]["uid"]))

    async def _pods(self, labels: str) -> list[Object]:
        inside = f"/namespaces/{self._namespace}" if self._namespace else ""
        return (await self._api.list(f"/api/v1{inside}/pods", labels))[0]


@dataclass(frozen=True)
class _Log:
    """Of a replica's container; or why a replica has none."""

    namespace: str
    name: str
    version: str
    container: str = CONTAINER
    restarts: int = 0
    unwell: bool = False
    waits: str = ""
    """Why no container of it has begun."""

    @property
    def path(self) -> str:
        """Where it is read."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}/log"

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Another one after each restart."""
        return self.name, self.container, self.restarts, self.waits

    def line(self, raw: str) -> LogLine:
        """With the container's name where it is not the one that scores."""
        time, _, line = raw.partition(" ")
        return LogLine(
            self.version, self.name, time, line if self.container == CONTAINER else f"[{self.container}] {line}"
        )


def _logs_of(found: Object, version: str) -> list[_Log]:
    """Of the container that scores, and of the one that holds it up: the gate, what fetches models or ships data."""
    status = found.get("status") or {}
    containers = {c["name"]: c for kind in _STATUSES for c in status.get(kind) or ()}
    pod = replica_pod(found)
    held = next((name for name, c in containers.items() if name != CONTAINER and _holds_up(c)), CONTAINER)
    troubled = pod.troubled if pod is not None and pod.trouble else held
    here = (str(found["metadata"]["namespace"]), str(found["metadata"]["name"]), version)
    logs = [
        _Log(*here, name, int(containers[name].get("restartCount") or 0), not containers[name].get("ready"))
        for name in dict.fromkeys((CONTAINER, troubled))
        if name in containers and _began(containers[name])
    ]
    if logs:
        return logs
    waiting = (containers.get(troubled, {}).get("state") or {}).get("waiting") or {}
    why = (pod.unschedulable or pod.trouble if pod is not None else "") or waiting.get("reason") or "no container yet"
    return [_Log(*here, troubled, waits=why)]


def _began(container: Object) -> bool:
    return (container.get("state") or {}).get("waiting") is None or bool(container.get("restartCount"))


def _holds_up(container: Object) -> bool:
    """One of those that are run before: neither through with it nor, as a sidecar, started."""
    ended = (container.get("state") or {}).get("terminated")
    return not container.get("started") if ended is None else ended.get("exitCode") != 0


class _Streams:
    """The logs of several replicas, read at once."""

    def __init__(self, api: Api, tail: int, follow: bool) -> None:
        self._api, self._tail, self._follow = api, tail, follow
        self._told: asyncio.Queue[LogLine | AksInferenceError | None] = asyncio.Queue(MOST_WAITING)
        """None: one of the readers has ended."""
        self._readers: dict[tuple[str, str, int, str], asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._open = 0

    def begin(self, one: _Log, *, ended: bool = False) -> None:
        """Reads a log, once; `ended`: also of its container before the last restart."""
        if one.key in self._readers:
            return
        # What a container writes that started while it is followed is new as a whole.
        again = any((name, of) == one.key[:2] for name, of, _, waits in self._readers if not waits)
        tail = None if again else self._tail
        self._readers[one.key] = asyncio.create_task(self._read(one, tail, ended and one.restarts > 0))
        self._open += 1

    def watch(self, look: Callable[[], Awaitable[Sequence[_Log]]]) -> None:
        """Reads those that come, too."""
        self._watch = asyncio.create_task(self._look(look))

    async def lines(self) -> AsyncIterator[LogLine]:
        """Until all have ended; while it is watched for new ones, without an end."""
        while self._open or self._watch is not None:
            told = await self._told.get()
            if isinstance(told, AksInferenceError):
                raise told
            if told is None:
                self._open -= 1
            else:
                yield told

    async def close(self) -> None:
        """Ends all."""
        tasks = [*self._readers.values(), *([self._watch] if self._watch is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, look: Callable[[], Awaitable[Sequence[_Log]]]) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for one in await look():
                    self.begin(one)
            except RuntimeUnavailable:
                continue  # what is read goes on
            except AksInferenceError as error:
                await self._told.put(error)

    async def _read(self, one: _Log, tail: int | None, ended: bool) -> None:
        query = {"container": one.container, "timestamps": "true"} | ({} if tail is None else {"tailLines": str(tail)})
        try:
            if one.waits:
                line = f"[{one.container}] has no log: {one.waits}"
                await self._told.put(LogLine(one.version, one.name, None, line))
            else:
                if ended:
                    # The kubelet keeps the log of a container that ended for a while only.
                    with contextlib.suppress(AksInferenceError):
                        await self._pass_on(one, {**query, "previous": "true"})
                await self._pass_on(one, {**query, "follow": "true"} if self._follow else query)
        except NotFound:
            pass  # gone meanwhile
        except AksInferenceError as error:
            await self._told.put(error)
        await self._told.put(None)

    async def _pass_on(self, one: _Log, query: Mapping[str, str]) -> None:
        async with aclosing(self._api.lines(one.path, **query)) as lines:
            async for raw in lines:
                await self._told.put(one.line(raw))


def view_of(found: Object, pods: Sequence[Object]) -> EndpointView:
    """An object with the pods of its replicas, as the local target tells an endpoint. Raises InvalidInput."""
    metadata, told = found["metadata"], _fresh(found)
    try:
        endpoint = ScoringEndpoint.model_validate(
            {
                "metadata": Metadata(name=metadata["name"], namespace=metadata["namespace"]).to_wire(),
                "spec": found["spec"],
            }
        )
        status = EndpointStatus.model_validate(
            {
                "state": ServiceState.TRANSITIONING,
                **{name: told[name] for name in ("state", "scoringUri", "swaggerUri", "message") if name in told},
                "name": metadata["name"],
                "generation": metadata.get("generation", 0),
                "observedGeneration": _served_generation(told, int(metadata.get("generation") or 0)),
                "versions": [_version(v, metadata, pods) for v in told.get("versions") or ()],
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(
            f"endpoint {metadata['name']}: {where}: {first['msg']}; is this command older than the cluster's runtime?"
        ) from None
    return EndpointView(endpoint=endpoint, status=status)


def _fresh(found: Object) -> Object:
    """The status; one of an older generation says of states and messages nothing that holds of what is declared now."""
    told, generation = found.get("status") or {}, int(found["metadata"].get("generation") or 0)
    seen = int(told.get("observedGeneration") or _ready(told).get("observedGeneration") or 0)
    if not told.get("state") or seen >= generation:
        return dict(told)
    stale: Object = {"state": ServiceState.TRANSITIONING, "message": ""}
    message = f"the autoscaler has not looked at generation {generation} yet: what it said is of {seen}"
    return {**told, **stale, "message": message, "versions": [{**v, **stale} for v in told.get("versions") or ()]}


def _ready(told: Object) -> Object:
    return next((c for c in told.get("conditions") or () if c.get("type") == READY_CONDITION), {})


def _served_generation(told: Object, generation: int) -> int:
    """The one that is served whole; else an older one that was, while any of its replicas are ready; else 0."""
    ready = _ready(told)
    if ready.get("status") == "True":
        return int(ready.get("observedGeneration") or 0)
    before = int(told.get("servedGeneration") or 0)
    serves = any(version.get("replicasReady") for version in told.get("versions") or ())
    return before if serves and before < generation else 0


def _version(told: Object, metadata: Object, pods: Sequence[Object]) -> Object:
    known = {(field.alias or name) for name, field in VersionStatus.model_fields.items()}
    own = (metadata["namespace"], metadata["name"], version_label(told["name"]))
    replicas = [_replica(pod) for pod in pods if _labels(pod) == own]
    kept = {name: value for name, value in told.items() if name in known}
    return {"state": ServiceState.TRANSITIONING, **kept, "replicas": [r for r in replicas if r is not None]}


def _labels(pod: Object) -> tuple[str, str, str]:
    labels = pod["metadata"].get("labels") or {}
    return pod["metadata"]["namespace"], labels.get(ENDPOINT_LABEL, ""), labels.get(VERSION_LABEL, "")


def _replica(found: Object) -> ReplicaStatus | None:
    pod = replica_pod(found)
    if pod is None:
        return None
    if found["metadata"].get("deletionTimestamp"):
        state = ReplicaState.DRAINING
    elif pod.ready:
        state = ReplicaState.READY
    elif pod.trouble.startswith("CrashLoop"):
        state = ReplicaState.BACK_OFF
    else:
        state = ReplicaState.UNREADY if pod.restarts else ReplicaState.STARTING
    return ReplicaStatus(
        id=pod.name,
        state=state,
        restarts=pod.restarts,
        address=str((found.get("status") or {}).get("podIP") or ""),
        reason=pod.unschedulable or pod.trouble,
    )


def _place(found: Object) -> tuple[str, str]:
    return found["metadata"]["name"], found["metadata"]["namespace"]
