"""ImageVolumes: whether the cluster of an endpoint mounts its models as images.

It is looked up in a preview, and again before any pod waits for one.
"""

import asyncio
from typing import Any

from aks_inference_provider import PACKAGE
from aks_inference_provider.differences import Diff
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure, Field, Kind, check_fields
from aks_inference_provider.resources.base import Checked, Computed, Made, Operation, Raw, State, Urn
from aks_inference_provider.wire import has_unknown, plain
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.image_volumes import MEND, Support, look

LOOK_S = 10.0
"""Of a cluster, in a preview: one that does not answer refuses nothing."""
INPUTS = (
    Field("kubeconfig", Kind.STRING, "Optional. Content or path. Default: that of the environment.", secret=True),
    Field("context", Kind.STRING, "Optional. Context of the kubeconfig. Default: its current one."),
)


class ImageVolumes:
    """See the module. Its id is its name; nothing is made."""

    token = f"{PACKAGE}:index:ImageVolumes"
    description = "Whether a cluster mounts OCI images as volumes, as the models of an endpoint are to be delivered."
    inputs = INPUTS
    outputs: tuple[Field, ...] = ()

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """Looks at the cluster, where it is there already and answers."""
        given = plain(news)
        failures = check_fields(INPUTS, given)
        if failures or has_unknown(given):
            return Checked(news, failures)
        try:
            found = await _look(given)
        except (AksInferenceError, TimeoutError) as error:
            return Checked(news, (), [f"not looked up whether the cluster mounts images: {_why(error)}"])
        if found.refused:
            return Checked(news, [Failure("", f"{found.refused}; {MEND.replace('@', '')}")])
        return Checked(news, (), list(found.notes))

    async def diff(self, state: State, news: Raw) -> Diff:
        """Nothing was made, so nothing changes: another way to the cluster is looked at in Check."""
        return Diff({})

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """There are no outputs."""
        return {}

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Looks again: in the preview of a new cluster there was none. Raises ResourceFailed."""
        operation.progress.status("looking whether the cluster mounts images")
        try:
            found = await _look(plain(inputs))
        except (AksInferenceError, TimeoutError) as error:
            raise ResourceFailed(f"not known whether the cluster mounts images: {_why(error)}") from None
        if found.refused:
            raise ResourceFailed(f"{found.refused}; {MEND.replace('@', '')}")
        for note in found.notes:
            operation.progress.warn(note)
        return Made(operation.urn.name, {})

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Nothing was made."""
        return {}

    async def read(self, operation: Operation, state: State) -> State | None:
        """The record is the truth."""
        return state

    async def delete(self, operation: Operation, state: State) -> None:
        """Nothing was made."""


async def _look(given: Any) -> Support:  # noqa: ANN401 - plain inputs
    connection = await asyncio.to_thread(connection_of, given.get("kubeconfig"), given.get("context"))
    async with asyncio.timeout(LOOK_S), connected(connection) as api:
        return await look(api)


def _why(error: BaseException) -> str:
    return f"no answer within {LOOK_S:g} s" if isinstance(error, TimeoutError) else str(error)
