"""Arguments of LocalInferenceCluster, as they come over the wire."""

from typing import NotRequired, TypedDict


class LocalInferenceClusterArgs(TypedDict):
    """Where the runtime listens and keeps its state."""

    port: NotRequired[int | None]
    """Optional. Port of the router on 127.0.0.1, 1 to 65,535. Default: 8890, the example port of Azure ML's
    documentation for local services."""
    state_directory: NotRequired[str | None]
    """Optional. Folder for models, logs, keys and sockets; relative to the working directory of the program or
    absolute. Default: `${XDG_STATE_HOME:-~/.local/state}/aks-inference/<project>-<stack>-<name>`."""
    haproxy: NotRequired[str | None]
    """Optional. Path of an `haproxy` binary, 2.8 or newer. Default: the one that is installed with the package, else
    the one on PATH."""
