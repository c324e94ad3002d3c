"""What people see: tables. Pipelines get JSON instead."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from aks_inference_runtime.api.status import EndpointStatus, ServiceState
from aks_inference_runtime.api.supervisor import SupervisorInfo

_COLOURS = {
    ServiceState.HEALTHY: "green",
    ServiceState.TRANSITIONING: "yellow",
    ServiceState.UNHEALTHY: "red",
    ServiceState.UNSCHEDULABLE: "red",
    ServiceState.FAILED: "bold red",
}


def overview(console: Console, info: SupervisorInfo, statuses: Sequence[EndpointStatus]) -> None:
    """The cluster and one line per version."""
    console.print(
        f"local cluster {info.name}: {info.url}, pid {info.pid}, state in {info.state_directory}", soft_wrap=True
    )
    if not statuses:
        console.print("no endpoint")
        return
    table = Table("endpoint", "version", "state", "traffic", "replicas", "busy", "queued", box=None, pad_edge=False)
    for status in statuses:
        for number, version in enumerate(status.versions):
            table.add_row(
                status.name if number == 0 else "",
                version.name,
                _state(version.state),
                f"{version.traffic:g} %",
                f"{version.replicas_ready}/{version.replicas_desired}",
                str(version.busy),
                str(version.queued),
            )
    console.print(table)


def details(console: Console, status: EndpointStatus) -> None:
    """One endpoint, with its replicas."""
    parts: list[RenderableType] = [
        Text.assemble(f"endpoint {status.name}: ", _state(status.state), f" (generation {status.generation}", ")"),
        f"scoring URI  {status.scoring_uri}",
        f"swagger URI  {status.swagger_uri}",
    ]
    if status.observed_generation != status.generation:
        parts.append(f"served whole is generation {status.observed_generation or 'none'}")
    for version in status.versions:
        parts += [
            "",
            Text.assemble(
                f"version {version.name}: ", _state(version.state), f", {version.traffic:g} % of the traffic"
            ),
            f"  {version.replicas_ready} of {version.replicas_desired} replicas ready, {version.busy} busy, "
            f"{version.queued} queued, utilization {version.utilization:g} %",
        ]
        if version.last_scaling:
            parts.append(f"  last scaling: {version.last_scaling}")
        if version.message:
            parts.append(Text(f"  {version.message}"))
        table = Table("replica", "state", "address", "reason", box=None, pad_edge=False)
        for replica in version.replicas:
            table.add_row(replica.id, str(replica.state), replica.address, replica.reason)
        if version.replicas:
            parts.append(table)
    console.print(Group(*parts), soft_wrap=True)


def _state(state: ServiceState) -> Text:
    return Text(str(state), style=_COLOURS[state])
