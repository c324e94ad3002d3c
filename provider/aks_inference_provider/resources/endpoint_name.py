"""EndpointName: that no other resource, of this stack or another one, has the endpoint of a name.

An apply takes over what is there without a word, and whoever goes first removes the endpoint for both. So each endpoint
says on itself who declares it; it is looked up in a preview, and again before anything is applied.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff, Difference, changes
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.other_runtimes import there
from aks_inference_provider.wire import has_unknown, plain
from aks_inference_runtime.api.crd import PLURAL
from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.errors import AksInferenceError, NotFound, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.api.kubernetes import DECLARER_ANNOTATION, ENDPOINT_LABEL, declarer, stack_mark
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.kubernetes.client import Api, connected

LOOK_S = 10.0
"""Of a cluster: in a preview one that does not answer refuses nothing."""
POLL_S = 0.2
INPUTS = (
    Field("name", Kind.STRING, "Required. The endpoint's.", required=True),
    Field("namespace", Kind.STRING, "Required. The endpoint's.", required=True),
    Field("kubeconfig", Kind.STRING, "Optional. Content or path. Default: that of the environment.", secret=True),
    Field("context", Kind.STRING, "Optional. Context of the kubeconfig. Default: its current one."),
)

Object = Mapping[str, Any]


class EndpointName:
    """See the module. Its id is its name; nothing is made."""

    token = f"{PACKAGE}:index:EndpointName"
    description = "The name of an endpoint on a cluster, which no other resource and no other stack may have."
    inputs = INPUTS
    outputs: tuple[Field, ...] = ()

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Refuses a name that others have, as far as the cluster can be asked; nobody asks where nothing begins."""
        old, new = plain(olds), plain(news)
        failures = check_fields(INPUTS, new)
        begins = any(old.get(one.name) != new.get(one.name) for one in INPUTS)
        if not begins or failures or has_unknown(new):
            return Checked(news, failures)
        try:
            why = await _looked(new, urn)
        except (AksInferenceError, TimeoutError) as error:
            return Checked(news, (), [f"not looked up whether {new['name']!r} is served already: {_why(error)}"])
        return Checked(news, [] if why is None else [Failure("name", why)])

    async def diff(self, state: State, news: Raw) -> Diff:
        """Nothing was made, so nothing is replaced."""
        return Diff({path: Difference(change) for path, change in changes(plain(state.inputs), plain(news)).items()})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """There are no outputs."""
        return {}

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Looks, too: in Check the cluster may not have answered. Raises ResourceFailed."""
        await _free(operation.urn, inputs)
        return Made(operation.urn.name, {})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """As `create`."""
        await _free(operation.urn, inputs)
        return {}

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Nothing was made."""


async def _free(urn: Urn, inputs: Raw) -> None:
    """Raises ResourceFailed where the name is not, or that is not known."""
    given, deadline = plain(inputs), time.monotonic() + LOOK_S
    while True:
        try:
            why = await _looked(given, urn)
            break
        except (AksInferenceError, TimeoutError) as error:
            # A definition that was applied just now is not served at once.
            if not isinstance(error, RuntimeUnavailable) or time.monotonic() > deadline:
                raise ResourceFailed(f"not known whether {given['name']!r} is served already: {_why(error)}") from None
        await asyncio.sleep(POLL_S)
    if why is not None:
        raise ResourceFailed(f"name: {why}")


async def _looked(given: Mapping[str, Any], urn: Urn) -> str | None:
    """Why the name cannot be had; None: it can."""
    connection = await asyncio.to_thread(connection_of, given.get("kubeconfig"), given.get("context"))
    async with asyncio.timeout(LOOK_S), connected(connection) as api:
        return refusal(await named(api, given["name"], given["namespace"]), urn)


def _why(error: BaseException) -> str:
    return f"no answer within {LOOK_S:g} s" if isinstance(error, TimeoutError) else str(error)


async def named(api: Api, name: str, namespace: str) -> list[Any]:
    """The endpoints of a name; who may not see all namespaces sees those of its own. Raises as `Api.get`."""
    try:
        found, _ = await api.list(f"/apis/{API_VERSION}/{PLURAL}", fields=f"metadata.name={name}")
    except NotFound:
        return []
    except OperationFailed:
        one = await there(api, f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}")
        return [] if one is None else [one]
    return found


def refusal(found: Iterable[Object], urn: Urn) -> str | None:
    """Why a resource cannot have the name of these endpoints. One without a mark is taken over: nobody would lose it.

    `urn`: of the EndpointName.
    """
    own = declarer(urn.text)
    for one in found:
        metadata = one["metadata"]
        mark = str((metadata.get("annotations") or {}).get(DECLARER_ANNOTATION, ""))
        if mark and mark != own and not metadata.get("deletionTimestamp"):
            return _told(metadata["name"], metadata["namespace"], Urn.parse(mark), Urn.parse(own))
    return None


def _told(name: str, namespace: str, theirs: Urn, own: Urn) -> str:
    rule = f"{name!r} is served already, in namespace {namespace!r}"
    who = f"{theirs.type.rpartition(':')[2]} {theirs.name!r}"
    another = "choose another service_name (of a rollout endpoint_name)"
    if (theirs.project, theirs.stack) == (own.project, own.stack):
        # Its type and its parents' stand in the URN alone.
        same = theirs.text.removesuffix(theirs.name) == own.text.removesuffix(own.name)
        alias = f"pulumi.Alias(name={theirs.name!r})" if same else repr(theirs.text)
        return (
            f"{rule}, by {who} of this stack, whose removal would remove it for both; {another}; if this is that "
            f"resource under another name, type or parent, give it the option aliases=[{alias}]; if that one is to go, "
            f"apply once without either of them"
        )
    stack = stack_mark(theirs.project, theirs.stack)
    return (
        f"{rule}, by {who} of the stack {stack}: whichever of the two stacks is destroyed first removes it for both; "
        f"{another}, or remove it from that stack first; if that stack is gone, delete what it left, after which there "
        f"are new keys: kubectl -n {namespace} delete scoringendpoint {name}, the NetworkPolicy {name}-replicas there, "
        f"and what has the label {ENDPOINT_LABEL}={name} there and in the runtime's namespace"
    )
