"""What the resources of a target share: reading it, comparing it, reaching its supervisor."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.fields import Failure
from aks_inference_provider.resources.base import Operation
from aks_inference_provider.wire import UNKNOWN, Value
from aks_inference_runtime.api.client import SupervisorClient, launch, read_record
from aks_inference_runtime.api.errors import InvalidInput, RuntimeUnavailable
from aks_inference_runtime.api.target import LocalTarget, parse_target

LAUNCH_TIMEOUT_S = 30.0


def check_target(text: Value) -> list[Failure]:
    """What is wrong with a plain `target`."""
    if not isinstance(text, str) or text == UNKNOWN:
        return []
    try:
        target = parse_target(text)
    except InvalidInput as error:
        return [Failure("target", str(error))]
    if not isinstance(target, LocalTarget):
        return [Failure("target", f"{target.name!r} is no local cluster; this needs a LocalInferenceCluster")]
    return []


def local_target(text: str) -> LocalTarget:
    """The local cluster that a checked target names."""
    target = parse_target(text)
    if not isinstance(target, LocalTarget):
        raise InvalidInput(f"target: {target.name!r} is no local cluster")
    return target


def same_target(old: Value, new: Value) -> bool:
    """Whether two texts name the same place, however they are written."""
    try:
        return parse_target(str(old)) == parse_target(str(new))
    except InvalidInput:
        return False


@asynccontextmanager
async def supervisor(
    target: str, operation: Operation, *, needed: bool = False
) -> AsyncIterator[SupervisorClient | None]:
    """The supervisor of a target, started again where it was killed; None where the cluster is gone.

    Args:
        target: Required. The target.
        operation: Required. For whom.
        needed: Optional. Raise ResourceFailed instead of giving None. Default False.
    """
    directory = Path(local_target(target).state_directory)
    client = SupervisorClient(directory)
    try:
        await client.info()
    except RuntimeUnavailable:
        record = await asyncio.to_thread(read_record, directory, missing_ok=True)
        if record is None:
            if needed:
                raise ResourceFailed(
                    f"the local cluster in {directory} is gone; `pulumi refresh`, then `pulumi up` makes it again"
                ) from None
            yield None
            return
        operation.progress.status("starting the local cluster again")
        await launch(record.settings, LAUNCH_TIMEOUT_S)
    yield client
