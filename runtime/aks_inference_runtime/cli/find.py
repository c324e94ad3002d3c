"""Which local cluster is meant."""

from collections.abc import Sequence
from pathlib import Path

from aks_inference_runtime.api.client import read_record
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, NotFound
from aks_inference_runtime.api.supervisor import state_root


def state_directory(given: Path | None, cluster: str | None) -> Path:
    """The state directory that is named, or that of the only cluster.

    Args:
        given: Required. A state directory, or None.
        cluster: Required. A local cluster's name (as `status` shows it) or its folder's below the root, or None.

    Raises:
        InvalidInput: both are given, or there are several clusters and none is named, or several have the name.
        NotFound: there is none, or none of that name.
    """
    if given is not None and cluster is not None:
        raise InvalidInput("give --state-directory or --cluster, not both")
    if given is not None:
        return given.absolute()
    found = sorted(path.parent for path in state_root().glob("*/supervisor.json"))
    if not found:
        raise NotFound(
            f"no local cluster under {state_root()}; `up` of a stack with a LocalInferenceCluster starts one, "
            f"and --state-directory names one that is elsewhere"
        )
    if cluster is not None:
        return _named(cluster, found)
    if len(found) > 1:
        raise InvalidInput(f"several local clusters ({_list(found)}); name one with --cluster")
    return found[0]


def _named(cluster: str, found: Sequence[Path]) -> Path:
    """A folder's name comes first: it is the only one that is never shared."""
    fitting = [path for path in found if path.name == cluster] or [path for path in found if _name(path) == cluster]
    if not fitting:
        raise NotFound(
            f"no local cluster {cluster!r} under {state_root()} (there are: {_list(found)}); "
            f"--state-directory names one that is elsewhere"
        )
    if len(fitting) > 1:
        folders = ", ".join(path.name for path in fitting)
        raise InvalidInput(f"several local clusters have the name {cluster!r}; name the folder: {folders}")
    return fitting[0]


def _list(found: Sequence[Path]) -> str:
    """The folders, each with the cluster's name where that is another."""
    names = [(path.name, _name(path)) for path in found]
    return ", ".join(folder if name in (None, folder) else f"{folder} (cluster {name})" for folder, name in names)


def _name(directory: Path) -> str | None:
    """The name of the cluster, or None for a record that cannot be read."""
    try:
        record = read_record(directory, missing_ok=True)
    except AksInferenceError:
        return None
    return record.settings.name if record is not None else None
