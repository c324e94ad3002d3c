"""Arguments of LocalInferenceCluster, as they come over the wire."""

from typing import NotRequired, TypedDict

import pulumi


class LocalInferenceClusterArgs(TypedDict):
    """Where the runtime listens and keeps its state, and who is told what goes on."""

    port: NotRequired[int | None]
    """Optional. Port of the router on 127.0.0.1, 1 to 65,535. Default: 8890, the example port of Azure ML's
    documentation for local services."""
    state_directory: NotRequired[str | None]
    """Optional. Folder for models, logs, keys and sockets, for this cluster alone: new, empty or its own already;
    relative to the working directory of the program or absolute, `~` is the home folder. Default:
    `${XDG_STATE_HOME:-~/.local/state}/aks-inference/<project>-<stack>-<name>`."""
    haproxy: NotRequired[str | None]
    """Optional. Path of an `haproxy` binary, 2.8 or newer. Default: the one that is installed with the package, else
    the one on PATH."""
    state_webhook: NotRequired[pulumi.Input[str] | None]
    """Optional. Secret. Where each changed state of an endpoint is told to (a POST of JSON; chat systems show its
    `text`). Default: none."""
    otlp_endpoint: NotRequired[str | None]
    """Optional. OpenTelemetry collector (OTLP over HTTP, such as `http://127.0.0.1:4318`) that gets the requests'
    traces. Default: none, nothing is traced."""
    trace_ratio: NotRequired[float | None]
    """Optional. Share of the requests whose caller does not decide it that are traced, 0 to 1. Default: 0.1."""
    access_log: NotRequired[bool | None]
    """Optional. A line of JSON for each request in the log of its replica, as on clusters. Default: false."""
    metrics_port: NotRequired[int | None]
    """Optional. Port on 127.0.0.1 of `/metrics`, for Prometheus: of the router, the autoscaler and every replica's
    gate. Default: none."""
