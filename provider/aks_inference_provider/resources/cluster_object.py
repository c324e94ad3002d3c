"""ClusterObject: what a runtime applies that may be in the cluster already, its namespace or the definition.

What was there before it stays when the runtime goes, without what was applied to it. What was not is removed here, once
everything else is gone: only this record knows which it is, so Pulumi itself keeps it (`retainOnDelete`). One record
for each of the two: a runtime in another namespace has the same definition.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.progress import Progress
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.other_runtimes import is_own, pulumis, refusal, there
from aks_inference_provider.wire import UNKNOWN, has_unknown, plain
from aks_inference_runtime.api.crd import CRD_NAME, PLURAL
from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.errors import AksInferenceError, NotFound, OperationFailed
from aks_inference_runtime.api.kubernetes import (
    ACME_ACCOUNT_NAME,
    AUTOSCALER_NAME,
    ENDPOINT_LABEL,
    ISSUED_TLS_NAME,
    ROUTER_NAME,
)
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.kubernetes.client import Api, connected

NAMESPACE, CRD = "Namespace", "CustomResourceDefinition"
INPUTS = (
    Field("kind", Kind.STRING, f"Required. {NAMESPACE} or {CRD}.", required=True, replaces=True),
    Field("namespace", Kind.STRING, "Required. The runtime's.", required=True),
    Field("kubeconfig", Kind.STRING, "Optional. Content or path. Default: that of the environment.", secret=True),
    Field("context", Kind.STRING, "Optional. Context of the kubeconfig. Default: its current one."),
)
CLUSTER = ("kubeconfig", "context")
"""Inputs that say which cluster, each in more than one way."""
OUTPUTS = (
    Field("found", Kind.BOOLEAN, "Whether it was there before.", required=True),
    Field("managers", Kind.STRINGS, "Field managers of Pulumi's that had applied it before.", required=True),
    Field("cluster", Kind.STRING, "Which cluster: the uid of its namespace kube-system.", required=True),
)
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}"
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


def told(given: Mapping[str, Any], live: Object) -> Caution:
    """What somebody should know before it is taken into use."""
    if given["kind"] == CRD:
        return Caution(
            f"the definition {CRD_NAME} is in the cluster already ({whose(live)}): it becomes the one of this version, "
            "and stays when the runtime is destroyed; if another runtime serves there, name that one as the target of "
            "services"
        )
    return Caution(
        f"namespace: {given['namespace']!r} is in the cluster already ({whose(live)}): its pods are held to Pod "
        "Security restricted, routers may read its Secrets, and it stays when the runtime is destroyed; give the "
        "runtime a namespace of its own if that is not meant"
    )


def path_of(given: Mapping[str, Any]) -> str:
    """Of the object."""
    return DEFINITION if given["kind"] == CRD else f"/api/v1/namespaces/{given['namespace']}"


class ClusterObject:
    """See the module. Its id is the object's name."""

    token = f"{PACKAGE}:index:ClusterObject"
    description = "What a runtime applies that may be in the cluster already; removed at the end if it was not."
    inputs = INPUTS
    outputs = OUTPUTS

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Refuses a runtime where another one is, as far as the cluster can be asked."""
        old, new = plain(olds), plain(news)
        failures = check_fields(INPUTS, new)
        begins = any(old.get(name) != new.get(name) for name in ("namespace", *CLUSTER))
        if new.get("kind") == NAMESPACE and begins and not failures and not has_unknown(new):
            with suppress(AksInferenceError, TimeoutError):
                async with asyncio.timeout(LOOK_S), _api(new) as api:
                    why = await refusal(api, new["namespace"], urn, old.get("namespace"))
                    failures += [] if why is None else [Failure("namespace", why)]
        return Checked(news, failures)

    async def diff(self, state: State, news: Raw) -> Diff:
        """Another object is another record; whether another kubeconfig is another cluster is seen in the update."""
        found = changes(plain(state.inputs), plain(news))
        others = {"kind"} if plain(state.inputs).get("kind") == CRD else {"kind", "namespace"}
        return Diff({path: Difference(change, replaces=path in others) for path, change in found.items()})

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
                live = await _before(api, given, None)
        except (AksInferenceError, TimeoutError):
            return []
        return [] if live is None else [told(given, live)]

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Notes what is there; makes nothing. Raises ResourceFailed."""
        given = plain(inputs)
        return Made(path_of(given).rpartition("/")[2], await _looked(given, operation.urn, operation.progress))

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """What was there stays what it was; in another cluster it is looked up anew. Raises ResourceFailed."""
        given, before = plain(inputs), plain(state.inputs)
        kept = {one.name: plain(state.outputs).get(one.name) for one in OUTPUTS}
        if all(given.get(name) == before.get(name) for name in CLUSTER):
            return kept
        looked = await _looked(given, operation.urn, None)
        if looked["cluster"] == kept["cluster"]:
            return kept
        operation.progress.warn(f"this is another cluster: {path_of(before)} stays in the one before")
        return looked

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Removes it if it was not there before, and waits until it is gone. Raises ResourceFailed."""
        kept, given = plain(state.outputs), plain(state.inputs)
        path = path_of(given)
        try:
            async with _api(given) as api:
                if kept.get("found"):
                    await _let_go(api, given, kept.get("managers") or [], operation.progress)
                elif await _removed(api, given, operation.progress):
                    await _until_gone(api, path, operation)
        except AksInferenceError as error:
            raise ResourceFailed(
                f"{path}: not removed: {error}; if the cluster is gone: pulumi state delete '{operation.urn.text}'"
            ) from None


@asynccontextmanager
async def _api(given: Mapping[str, Any]) -> AsyncIterator[Api]:
    connection = await asyncio.to_thread(connection_of, given.get("kubeconfig"), given.get("context"))
    async with connected(connection) as api:
        yield api


async def _looked(given: Mapping[str, Any], urn: Urn, progress: Progress | None) -> dict[str, Any]:
    """The outputs; told where somebody listens. Raises ResourceFailed."""
    try:
        async with _api(given) as api:
            live, cluster = await _before(api, given, urn), await _cluster(api)
    except AksInferenceError as error:
        raise ResourceFailed(f"not known what is in the cluster already: {error}") from None
    if live is not None and progress is not None:
        progress.warn(told(given, live))
    return {"found": live is not None, "managers": [] if live is None else pulumis(live), "cluster": cluster}


async def _cluster(api: Api) -> str:
    return str((await api.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"])


async def _before(api: Api, given: Mapping[str, Any], urn: Urn | None) -> dict[str, Any] | None:
    """A runtime that this stack has applied there is this one, from before there were records; None: that is checked
    already."""
    router = await there(api, f"/apis/apps/v1/namespaces/{given['namespace']}/deployments/{ROUTER_NAME}")
    if router is not None and (is_own(router, urn) if urn is not None else pulumis(router)):
        return None
    live = await there(api, path_of(given))
    return None if live is None or live["metadata"].get("deletionTimestamp") else live


async def _let_go(api: Api, given: Mapping[str, Any], others: Sequence[str], progress: Progress) -> None:
    """What was applied to it goes, as far as nobody else has applied the same; and what was made for the runtime."""
    path = path_of(given)
    live = await there(api, path)
    if live is None:
        return
    bare = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": live["metadata"]["name"]}}
    for manager in pulumis(live):
        if manager not in others:
            try:
                await api.apply(path, bare, manager)
            except OperationFailed as error:
                progress.warn(f"stays as it was applied: {error}")
    for one in _left_behind(given["namespace"]) if given["kind"] == NAMESPACE else ():
        await api.delete(one)
    progress.info(f"was there before, and stays: {path}")


def _left_behind(namespace: str) -> tuple[str, ...]:
    """What the autoscaler and cert-manager made for the runtime: else it goes with the namespace."""
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    return (
        f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{AUTOSCALER_NAME}",
        f"{secrets}/{ISSUED_TLS_NAME}",
        f"{secrets}/{ACME_ACCOUNT_NAME}",
    )


async def _removed(api: Api, given: Mapping[str, Any], progress: Progress) -> bool:
    """Whether it is on its way out."""
    path, namespace = path_of(given), given["namespace"]
    if given["kind"] == CRD:
        if names := await _names(api, f"/apis/{API_VERSION}/{PLURAL}"):
            progress.warn(f"the definition {CRD_NAME} stays: others have endpoints by it ({names})")
            return False
    else:
        names = await _names(api, f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}")
        # Without them a later runtime answers 401 to who has a key of another stack's endpoint.
        keys = await _names(api, f"{path}/secrets", ENDPOINT_LABEL)
        if held := ", ".join(filter(None, (names, keys))):
            progress.warn(f"the namespace {namespace} stays: others have endpoints by this runtime ({held})")
            for one in _left_behind(namespace):
                await api.delete(one)
            return False
    await api.delete(path)
    return True


async def _names(api: Api, path: str, labels: str = "") -> str:
    """Of the first that stay."""
    try:
        found, _ = await api.list(path, labels)
    except NotFound:
        return ""
    left = [one["metadata"] for one in found if not one["metadata"].get("deletionTimestamp")]
    return ", ".join(f"{one['namespace']}/{one['name']}" for one in left[:5])


async def _until_gone(api: Api, path: str, operation: Operation) -> None:
    deadline = time.monotonic() + (operation.timeout_s or LONGEST_S)
    while (live := await there(api, path)) is not None:
        conditions = (live.get("status") or {}).get("conditions") or ()
        why = "; ".join(str(one.get("message")) for one in conditions if one.get("status") == "True")
        if time.monotonic() > deadline:
            raise ResourceFailed(f"{path}: not gone in time: {why}; see what holds it, and destroy again")
        operation.progress.status(f"waiting until it is gone: {path}")
        await asyncio.sleep(POLL_S)
