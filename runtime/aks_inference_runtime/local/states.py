"""Azure ML's five states, from what there is. Pure."""

from collections.abc import Sequence

from aks_inference_runtime.api.status import ServiceState

_WORST_FIRST = (
    ServiceState.FAILED,
    ServiceState.UNSCHEDULABLE,
    ServiceState.UNHEALTHY,
    ServiceState.TRANSITIONING,
    ServiceState.HEALTHY,
)


def version_state(
    *, failed: bool, unschedulable: bool, ready: int, wanted: int, settled: bool, troubled: bool
) -> ServiceState:
    """The state of one version.

    Args:
        failed: Required. It was given up.
        unschedulable: Required. A replica that is wanted does not fit.
        ready: Required. Replicas that take requests.
        wanted: Required. Replicas that there should be.
        settled: Required. What is declared was served whole since it was declared.
        troubled: Required. A replica died or could not start, and none was ready since. Without it one that has no
            replica ready starts its first: scaled to zero and woken, or after the machine was off.
    """
    if failed:
        return ServiceState.FAILED
    if unschedulable and (ready == 0 or not settled):
        return ServiceState.UNSCHEDULABLE
    if not settled:
        return ServiceState.TRANSITIONING
    if ready > 0 or wanted == 0:
        return ServiceState.HEALTHY
    return ServiceState.UNHEALTHY if troubled else ServiceState.TRANSITIONING


def endpoint_state(versions: Sequence[ServiceState]) -> ServiceState:
    """The worst of its versions'."""
    return next((state for state in _WORST_FIRST if state in versions), ServiceState.TRANSITIONING)
