"""What runs on a Kubernetes cluster, for the same commands as on this machine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aks_inference_runtime.api.endpoint import API_VERSION, Metadata, ScoringEndpoint
from aks_inference_runtime.api.errors import (
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
from aks_inference_runtime.cli.cluster_logs import MOST_FOLLOWED, Log, Streams, logs_of
from aks_inference_runtime.cli.loglines import LogLine
from aks_inference_runtime.kubernetes.client import Api, Object
from aks_inference_runtime.kubernetes.connection import Connection, from_kubeconfig
from aks_inference_runtime.kubernetes.kubeconfig import of_environment
from aks_inference_runtime.kubernetes.log_in import by_program
from aks_inference_runtime.kubernetes.workloads import replica_pod

POLL_S = 1.0
CONNECTIONS = MOST_FOLLOWED + 10
"""As many as logs can be followed, and some to look meanwhile."""


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
        found, pods = await asyncio.gather(
            self._listed(), self._pods(f"{COMPONENT_LABEL}={REPLICA_COMPONENT}", self._namespace)
        )
        return [view_of(one, pods) for one in sorted(found, key=_place)]

    async def endpoint(self, name: str) -> EndpointView:
        """See `Source`."""
        found = await self._found(name)
        return view_of(found, await self._pods_of(found))

    async def declared(self, name: str) -> ScoringEndpoint:
        """See `Source`."""
        return view_of(await self._found(name), ()).endpoint

    async def logs(
        self,
        status: EndpointStatus,
        version: str | None,
        replica: str | None,
        tail: int,
        follow: bool,
        dead: bool,
        missed: Callable[[str], None],
    ) -> AsyncIterator[LogLine]:
        """See `Source`."""
        found = await self._chosen(status.name, version, replica)
        if not found and (version or replica) and not follow:
            raise NotFound(f"endpoint {status.name} has no replica {replica or 'any'} of version {version or 'any'}")
        streams = Streams(self._api, tail, follow, missed)
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

    async def _chosen(self, name: str, version: str | None, replica: str | None) -> list[Log]:
        found = await self._found(name)
        versions = {version_label(v["name"]): str(v["name"]) for v in found["spec"]["versions"]}
        logs: list[Log] = []
        for pod in await self._pods_of(found):
            label = pod["metadata"]["labels"].get(VERSION_LABEL, "")
            of = versions.get(label, label)
            if version in (None, of) and replica in (None, pod["metadata"]["name"]):
                logs += logs_of(pod, of)
        return logs

    async def _listed(self) -> list[Object]:
        inside = f"/namespaces/{self._namespace}" if self._namespace else ""
        try:
            return (await self._api.list(f"/apis/{API_VERSION}{inside}/scoringendpoints"))[0]
        except NotFound:
            raise RuntimeUnavailable(
                f"{self._server} does not know ScoringEndpoints: the inference runtime is not on this cluster"
            ) from None

    async def _found(self, name: str) -> Object:
        """By name; of those with one name in several namespaces the one that is served: the oldest."""
        every = await self._listed()
        fitting = [one for one in every if one["metadata"]["name"] == name]
        if not fitting:
            present = ", ".join(sorted(one["metadata"]["name"] for one in every)) or "none"
            inside = f" in the namespace {self._namespace}" if self._namespace else ""
            mend = "; --all-namespaces looks in all" if inside else ""
            raise NotFound(f"no endpoint {name}{inside} (endpoints: {present}){mend}")
        return min(fitting, key=lambda one: (one["metadata"].get("creationTimestamp", ""), one["metadata"]["uid"]))

    async def _pods_of(self, endpoint: Object) -> list[Object]:
        """Of its own namespace: another endpoint of this name may be in another one."""
        metadata = endpoint["metadata"]
        return await self._pods(f"{ENDPOINT_LABEL}={metadata['name']}", metadata["namespace"])

    async def _pods(self, labels: str, namespace: str | None) -> list[Object]:
        inside = f"/namespaces/{namespace}" if namespace else ""
        return (await self._api.list(f"/api/v1{inside}/pods", labels))[0]


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
