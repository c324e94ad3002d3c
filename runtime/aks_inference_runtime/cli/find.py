"""Which local cluster is meant."""

from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput, NotFound
from aks_inference_runtime.api.supervisor import default_state_directory, state_root


def state_directory(given: Path | None, cluster: str | None) -> Path:
    """The state directory that is named, or that of the only cluster.

    Args:
        given: Required. A state directory, or None.
        cluster: Required. A local cluster's name, or None.

    Raises:
        InvalidInput: both are given, or there are several clusters and none is named.
        NotFound: there is none.
    """
    if given is not None and cluster is not None:
        raise InvalidInput("give --state-directory or --cluster, not both")
    if given is not None:
        return given.absolute()
    if cluster is not None:
        return default_state_directory(cluster)
    found = sorted(path.parent for path in state_root().glob("*/supervisor.json"))
    if not found:
        raise NotFound(
            f"no local cluster under {state_root()}; `pulumi up` of a stack with a LocalInferenceCluster starts one, "
            f"and --state-directory names one that is elsewhere"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InvalidInput(f"several local clusters ({names}); name one with --cluster")
    return found[0]
