"""ClusterObjects: what a runtime applies that may be in the cluster already, its namespace and the definition.

What was there before it stays when the runtime goes, without what was applied to it. What was not is removed here, once
everything else is gone: only this record knows which is which, so Pulumi itself keeps both (`retainOnDelete`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Field, Kind, check_fields
from aks_inference_provider.progress import Progress
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.api.crd import CRD_NAME, PLURAL
from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.kubernetes import ACME_ACCOUNT_NAME, AUTOSCALER_NAME, ISSUED_TLS_NAME, ROUTER_NAME
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.kubernetes.client import Api, connected

INPUTS = (
    Field("namespace", Kind.STRING, "Required. The runtime's.", required=True, replaces=True),
    Field("kubeconfig", Kind.STRING, "Optional. Content or path. Default: that of the environment.", secret=True),
    Field("context", Kind.STRING, "Optional. Context of the kubeconfig. Default: its current one."),
)
OUTPUTS = (
    Field("found", Kind.STRINGS, "Paths of what was there before.", required=True),
    Field("managers", Kind.STRINGS, "Who else of Pulumi had applied it: path and field manager.", required=True),
)
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}"
MANAGER = "pulumi-kubernetes"
"""Field managers of Pulumi's begin with it, each resource's its own."""
LOOK_S = 10.0
"""Of a cluster, in a preview: one that does not answer is told by what is applied there."""
LONGEST_S = 600.0
"""As long as Pulumi's own provider waits for a namespace to go."""
POLL_S = 0.5

Object = Mapping[str, Any]


def whose(live: Object) -> str:
    """Since when an object is there, and who applied it."""
    metadata = live.get("metadata") or {}
    fields = [one for one in metadata.get("managedFields") or () if not one.get("subresource")]
    managers = sorted({str(one.get("manager")) for one in fields})
    labels = metadata.get("labels") or {}
    said = [f"{key}={labels[key]}" for key in sorted(labels) if key != "kubernetes.io/metadata.name"]
    parts = [f"since {str(metadata.get('creationTimestamp', ''))[:10]}"]
    parts += [f"applied by {', '.join(managers)}"] if managers else []
    parts += [f"labels {', '.join(said[:5])}"] if said else []
    return "; ".join(parts)


def told(namespace: str, found: Mapping[str, Object]) -> Iterator[Caution]:
    """What somebody should know before it is taken into use."""
    for path, live in found.items():
        if path == DEFINITION:
            yield Caution(
                f"the definition {CRD_NAME} is in the cluster already ({whose(live)}): it becomes the one of this "
                "version, and stays when the runtime is destroyed; if another runtime serves there, name that one as "
                "the target of services"
            )
        else:
            yield Caution(
                f"namespace: {namespace!r} is in the cluster already ({whose(live)}): its pods are held to Pod "
                "Security restricted, routers may read its Secrets, and it stays when the runtime is destroyed; give "
                "the runtime a namespace of its own if that is not meant"
            )


def pulumis(path: str, live: Object) -> Iterator[str]:
    """Path and field manager of each resource of Pulumi's that has applied something to an object."""
    for one in (live.get("metadata") or {}).get("managedFields") or ():
        manager = str(one.get("manager"))
        if manager.startswith(MANAGER) and one.get("operation") == "Apply" and not one.get("subresource"):
            yield f"{path} {manager}"


class ClusterObjects:
    """See the module. Its id is the namespace."""

    token = f"{PACKAGE}:index:ClusterObjects"
    description = "What a runtime applies that may be in the cluster already; the rest of it is removed at the end."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Nothing is looked up."""
        return Checked(news, check_fields(INPUTS, plain(news)))

    async def diff(self, state: State, news: Raw) -> Diff:
        """Another namespace, or another cluster, is another one; another way to the same is kept for later."""
        old, new = plain(state.inputs), plain(news)
        moved = not has_unknown(new) and await asyncio.to_thread(_server, old) != await asyncio.to_thread(_server, new)
        found = changes(old, new)
        return Diff({path: Difference(change, replaces=moved or path == "namespace") for path, change in found.items()})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """Known once it is looked up for good."""
        return {one.name: UNKNOWN if state is None else state.outputs.get(one.name, UNKNOWN) for one in OUTPUTS}

    async def notes(self, inputs: Raw, state: State | None) -> Sequence[str]:
        """What is there already, and whose it is."""
        given = plain(inputs)
        if state is not None or has_unknown(given):
            return []
        try:
            async with asyncio.timeout(LOOK_S), _api(given) as api:
                return [*told(given["namespace"], await _before(api, given["namespace"]))]
        except (AksInferenceError, TimeoutError):
            return []

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Notes what is there; makes nothing. Raises ResourceFailed."""
        given = plain(inputs)
        try:
            async with _api(given) as api:
                found = await _before(api, given["namespace"])
        except AksInferenceError as error:
            raise ResourceFailed(f"not known what is in the cluster already: {error}") from None
        for note in told(given["namespace"], found):
            operation.progress.warn(note)
        others = [one for path, live in found.items() for one in pulumis(path, live)]
        return Made(str(given["namespace"]), {"found": [*found], "managers": others})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """What was there stays what it was."""
        kept = plain(state.outputs)
        return {one.name: kept.get(one.name) or [] for one in OUTPUTS}

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Removes what was not there before, and waits until it is gone. Raises ResourceFailed."""
        kept, given = plain(state.outputs), plain(state.inputs)
        found, others = kept.get("found") or [], kept.get("managers") or []
        paths = (f"/api/v1/namespaces/{given['namespace']}", DEFINITION)
        try:
            async with _api(given) as api:
                for path in paths:
                    if path in found:
                        await _let_go(api, path, others, operation.progress)
                if paths[0] in found:
                    for path in _left_behind(given["namespace"]):
                        await api.delete(path)
                gone = [path for path in paths if path not in found and await _removed(api, path, operation.progress)]
                await _until_gone(api, gone, operation)
        except AksInferenceError as error:
            raise ResourceFailed(
                f"namespace {given['namespace']}: not removed: {error}; if the cluster is gone: "
                f"pulumi state delete '{operation.urn.text}'"
            ) from None


@asynccontextmanager
async def _api(given: Mapping[str, Any]) -> AsyncIterator[Api]:
    connection = await asyncio.to_thread(connection_of, given.get("kubeconfig"), given.get("context"))
    async with connected(connection) as api:
        yield api


def _server(given: Mapping[str, Any]) -> str | None:
    try:
        return connection_of(given.get("kubeconfig"), given.get("context")).server
    except InvalidInput:
        return None


async def _there(api: Api, path: str) -> dict[str, Any] | None:
    try:
        return await api.get(path)
    except NotFound:
        return None


async def _before(api: Api, namespace: str) -> dict[str, Object]:
    """By path. A runtime that Pulumi has applied there is this one, from before there were records."""
    router = await _there(api, f"/apis/apps/v1/namespaces/{namespace}/deployments/{ROUTER_NAME}")
    if router is not None and any(pulumis("", router)):
        return {}
    found: dict[str, Object] = {}
    for path in (f"/api/v1/namespaces/{namespace}", DEFINITION):
        live = await _there(api, path)
        if live is not None and not live["metadata"].get("deletionTimestamp"):
            found[path] = live
    return found


async def _let_go(api: Api, path: str, others: Sequence[str], progress: Progress) -> None:
    """What was applied to it goes, as far as nobody else has applied the same."""
    live = await _there(api, path)
    if live is None:
        return
    bare = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": live["metadata"]["name"]}}
    for one in pulumis(path, live):
        if one not in others:
            try:
                await api.apply(path, bare, one.removeprefix(f"{path} "))
            except OperationFailed as error:
                progress.warn(f"stays as it was applied: {error}")
    progress.info(f"was there before, and stays: {path}")


def _left_behind(namespace: str) -> tuple[str, ...]:
    """What the autoscaler and cert-manager made for the runtime: else it goes with the namespace."""
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    return (
        f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{AUTOSCALER_NAME}",
        f"{secrets}/{ISSUED_TLS_NAME}",
        f"{secrets}/{ACME_ACCOUNT_NAME}",
    )


async def _removed(api: Api, path: str, progress: Progress) -> bool:
    """Whether it is on its way out."""
    if path == DEFINITION:
        try:
            endpoints, _ = await api.list(f"/apis/{API_VERSION}/{PLURAL}")
        except NotFound:
            endpoints = []
        left = [one["metadata"] for one in endpoints if not one["metadata"].get("deletionTimestamp")]
        if left:
            names = ", ".join(f"{one['namespace']}/{one['name']}" for one in left[:5])
            progress.warn(f"the definition {CRD_NAME} stays: others have endpoints by it ({names})")
            return False
    await api.delete(path)
    return True


async def _until_gone(api: Api, paths: Sequence[str], operation: Operation) -> None:
    deadline = time.monotonic() + (operation.timeout_s or LONGEST_S)
    for path in paths:
        while (live := await _there(api, path)) is not None:
            conditions = (live.get("status") or {}).get("conditions") or ()
            why = "; ".join(str(one.get("message")) for one in conditions if one.get("status") == "True")
            if time.monotonic() > deadline:
                raise ResourceFailed(f"{path}: not gone in time: {why}; see what holds it, and destroy again")
            operation.progress.status(f"waiting until it is gone: {path}")
            await asyncio.sleep(POLL_S)
