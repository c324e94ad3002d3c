"""ClusterKinds: whether the cluster has the kinds of objects that an argument of the runtime declares.

They are somebody else's (cert-manager's, the Prometheus operator's): without them the preview would pass and the apply
fail half-way.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.base import Caution, Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.resources.other_runtimes import there
from aks_inference_provider.wire import has_unknown, plain
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.kubernetes.client import connected

LOOK_S = 10.0
"""Of a cluster: one that does not answer refuses nothing."""
INPUTS = (
    Field("argument", Kind.STRING, "Required. What asks for them, as the program writes it.", required=True),
    Field("kinds", Kind.STRINGS, "Required. `group/version/kind` of each.", required=True),
    Field("brings", Kind.STRING, "Required. What brings them to a cluster.", required=True),
    Field(
        "later",
        Kind.BOOLEAN,
        "Optional. What the runtime depends on may bring them: in a preview their want is a warning. Default: false.",
    ),
    Field(
        "made",
        Kind.BOOLEAN,
        "Optional. The stack makes the cluster itself, on which nothing can be before: their want is a warning, also "
        "when it is applied. Default: false.",
    ),
    Field("kubeconfig", Kind.STRING, "Optional. Content or path. Default: that of the environment.", secret=True),
    Field("context", Kind.STRING, "Optional. Context of the kubeconfig. Default: its current one."),
)
_MADE_MEND = "what needs them fails where they come no sooner: apply without it, install it, then add it"


class ClusterKinds:
    """See the module. Its id is its name; nothing is made."""

    token = f"{PACKAGE}:index:ClusterKinds"
    description = "Whether a cluster has the kinds of objects that an argument of the runtime asks for."
    inputs = INPUTS
    outputs: tuple[Field, ...] = ()

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Looks at the cluster, where it is there already and answers."""
        given = plain(news)
        failures = check_fields(INPUTS, given)
        if failures:
            return Checked(news, failures)
        if has_unknown(given):
            if has_unknown({name: one for name, one in given.items() if name != "kubeconfig"}):
                return Checked(news)
            told = f"{given['argument']}: the cluster is to have {_names(given['kinds'])} (of {given['brings']}); "
            return Checked(news, (), [Caution(f"{told}not looked up, as it is not known yet")])
        try:
            missing = await _missing(given)
        except (AksInferenceError, TimeoutError) as error:
            return Checked(news, (), [f"{given['argument']}: not looked up what the cluster has: {_why(error)}"])
        if not missing:
            return Checked(news)
        if given.get("made"):
            return Checked(news, (), [Caution(f"{_lacking(given, missing)}; {_MADE_MEND}")])
        if given.get("later"):
            told = f"{_lacking(given, missing)}; what the runtime depends on must bring them"
            return Checked(news, (), [Caution(told)])
        return Checked(news, [Failure("", f"{_lacking(given, missing)}; {_mend(given)}")])

    async def diff(self, state: State, news: Raw) -> Diff:
        """Nothing was made, so nothing changes: the cluster is looked at in Check."""
        return Diff({})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """There are no outputs."""
        return {}

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Looks again: what it depends on has brought them by now. Raises ResourceFailed, but where the stack makes
        the cluster: Check has said it then."""
        given = plain(inputs)
        if given.get("made"):
            return Made(operation.urn.name, {})
        try:
            missing = await _missing(given)
        except (AksInferenceError, TimeoutError) as error:
            raise ResourceFailed(f"{given['argument']}: not known what the cluster has: {_why(error)}") from None
        if missing:
            raise ResourceFailed(f"{_lacking(given, missing)}; {_mend(given)}")
        return Made(operation.urn.name, {})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Nothing was made."""
        return {}

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Nothing was made."""


async def _missing(given: Mapping[str, Any]) -> list[str]:
    """Of the kinds, in their order."""
    connection = await asyncio.to_thread(connection_of, given.get("kubeconfig"), given.get("context"))
    wanted = [str(one) for one in given["kinds"]]
    has: set[str] = set()
    async with asyncio.timeout(LOOK_S), connected(connection) as api:
        for version in dict.fromkeys(one.rpartition("/")[0] for one in wanted):
            found = await there(api, f"/apis/{version}") or {}
            has |= {f"{version}/{one['kind']}" for one in found.get("resources") or ()}
    return [one for one in wanted if one not in has]


def _names(kinds: Iterable[str]) -> str:
    return ", ".join(kinds)


def _lacking(given: Mapping[str, Any], missing: Iterable[str]) -> str:
    return f"{given['argument']}: the cluster has no {_names(missing)}, which {given['brings']} brings"


def _mend(given: Mapping[str, Any]) -> str:
    return (
        f"install it first (where this program does, name that in dependsOn of what has the argument), or leave out "
        f"{given['argument']}"
    )


def _why(error: BaseException) -> str:
    return f"no answer within {LOOK_S:g} s" if isinstance(error, TimeoutError) else str(error)
