"""What people see: tables. Pipelines get JSON instead."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from aks_inference_runtime.api.status import EndpointStatus, ServiceState, VersionStatus

_COLOURS = {
    ServiceState.HEALTHY: "green",
    ServiceState.TRANSITIONING: "yellow",
    ServiceState.UNHEALTHY: "red",
    ServiceState.UNSCHEDULABLE: "red",
    ServiceState.FAILED: "bold red",
}

LOG_LINES = 10
"""Of a log in a table."""
_GAP = 2
"""Between two columns."""
_NARROWEST = 12
"""Of a last column that is broken into lines."""
_NOISE = ("Found extra keys in the config file", "Extra keys = [")
"""What azureml-inference-server-http 1.5 says at each start of the variables that it takes itself."""


def overview(console: Console, heading: str, statuses: Sequence[EndpointStatus]) -> None:
    """The cluster and one line per version."""
    console.print(heading, soft_wrap=True)
    if not statuses:
        console.print("no endpoint")
        return
    columns = ("endpoint", "version", "state", "traffic", "replicas", "busy", "queued")
    rows = [
        (
            status.name if number == 0 else "",
            version.name,
            _state(version.state),
            f"{version.traffic:g} %",
            f"{version.replicas_ready}/{version.replicas_desired}",
            _figure(version.busy),
            _figure(version.queued),
        )
        for status in statuses
        for number, version in enumerate(status.versions)
    ]
    _print(console, _rows(console, columns, rows))
    for status in statuses:
        for said in filter(None, (note(status), _own_message(status))):
            console.print(Text(f"{status.name}: {said}"), soft_wrap=True)


def _rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> RenderableType:
    """A table whose last column alone is broken into lines; on a terminal too narrow for that, a line a value."""
    widths = [max(cell_len(str(cell)) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    if sum(widths[:-1]) + _GAP * len(widths[:-1]) + min(widths[-1], _NARROWEST) <= console.width:
        table = Table(*(Column(name, no_wrap=True) for name in columns[:-1]), columns[-1], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        return table
    lines = []
    for row in rows:
        given = [(number, name, cell) for number, (name, cell) in enumerate(zip(columns, row, strict=True)) if cell]
        lines += [Text.assemble("  " * (number > 0), f"{name} ", cell) for number, name, cell in given]
    return Group(*lines)


def _print(console: Console, shown: RenderableType) -> None:
    # The terminal breaks a line that is too long for it; only a table breaks its last column by itself.
    console.print(shown, soft_wrap=not isinstance(shown, Table))


def note(status: EndpointStatus) -> str:
    """In few words what serves while what is declared does not; empty where nothing is to be said."""
    served = status.observed_generation
    if served in (0, status.generation):
        return ""
    failed = [version.name for version in status.versions if version.state is ServiceState.FAILED]
    if failed:
        return f"generation {served} still serves: {status.generation} failed ({', '.join(failed)})"
    return f"generation {served} still serves: {status.generation} is not ready yet"


def as_json(status: EndpointStatus) -> dict[str, object]:
    """The status for pipelines, with its note."""
    return {**status.to_wire(), "note": note(status)}


def busiest(console: Console, statuses: Sequence[EndpointStatus]) -> None:
    """One line per version, what is used most first."""
    columns = ("endpoint", "version", "utilization", "busy", "queued", "ready", "wanted", "last scaling")
    found = [(status.name, version) for status in statuses for version in status.versions]
    rows = []
    for name, version in sorted(found, key=_used_most):
        figures = (version.busy, version.queued, version.replicas_ready, version.replicas_desired)
        rows.append((name, version.name, _percent(version.utilization), *map(_figure, figures), version.last_scaling))
    _print(console, _rows(console, columns, rows) if rows else Text("no endpoint"))


def _used_most(row: tuple[str, VersionStatus]) -> tuple[float, int, str, str]:
    """What is not known comes last."""
    name, version = row
    return 1 if version.utilization is None else -version.utilization, -(version.queued or 0), name, version.name


def _figure(number: int | None) -> str:
    return "-" if number is None else str(number)


def _percent(number: float | None) -> str:
    return "-" if number is None else f"{number:g} %"


def load(status: EndpointStatus) -> dict[str, object]:
    """The same for pipelines."""
    names = {"name", "utilization", "busy", "queued", "replicas_ready", "replicas_desired", "last_scaling"}
    versions = [version.model_dump(mode="json", by_alias=True, include=names) for version in status.versions]
    return {"name": status.name, "state": status.state.value, "versions": versions}


def details(console: Console, status: EndpointStatus) -> None:
    """One endpoint, with its replicas."""
    parts: list[RenderableType] = [
        Text.assemble(f"endpoint {status.name}: ", _state(status.state), f" (generation {status.generation}", ")"),
        f"scoring URI  {status.scoring_uri}",
        *([f"swagger URI  {status.swagger_uri}"] if status.swagger_uri else []),
    ]
    if said := note(status):
        parts.append(said)
    elif status.observed_generation != status.generation:
        parts.append("no generation is served whole")
    if message := _own_message(status):
        parts.append(Text(message))
    for version in status.versions:
        parts += [
            "",
            Text.assemble(
                f"version {version.name}: ", _state(version.state), f", {version.traffic:g} % of the traffic"
            ),
            f"  {version.replicas_ready} of {version.replicas_desired} replicas ready, {_figure(version.busy)} busy, "
            f"{_figure(version.queued)} queued, utilization {_percent(version.utilization)}",
        ]
        if version.last_scaling:
            parts.append(f"  last scaling: {version.last_scaling}")
        if version.message:
            parts += [Text(f"  {line}") for line in brief(status.name, version.message)]
        if version.replicas:
            replicas = [(one.id, str(one.state), one.address, one.reason) for one in version.replicas]
            parts.append(_rows(console, ("replica", "state", "address", "reason"), replicas))
    console.print(Group(*parts), soft_wrap=True)


def brief(endpoint: str, message: str) -> list[str]:
    """A version's message for a person: what happened, the error itself, the end of the log before it, where more is.

    Args:
        endpoint: Required. Its name.
        message: Required. Of the version; for one that failed with the tail of its log.
    """
    lines = [line for line in message.splitlines() if line.strip() and not line.startswith(_NOISE)]
    if len(lines) <= LOG_LINES:
        return lines
    reason, log = lines[0], lines[1:]
    cause = _cause(log)
    shown = log[-LOG_LINES:] if cause is None else [log[cause], *log[max(0, cause - LOG_LINES) : cause]]
    more = f"more: `aks-inference logs {endpoint}`; the whole message: `aks-inference --json status {endpoint}`"
    return [reason, *shown, more]


def _cause(log: Sequence[str]) -> int | None:
    """Where the first traceback ends: with the error that the others follow from."""
    begin = next((number for number, line in enumerate(log) if "Traceback (most recent call last):" in line), None)
    if begin is None:
        return None
    return next((n for n in range(begin + 1, len(log)) if not log[n].startswith(" ")), None)


def _own_message(status: EndpointStatus) -> str:
    """What concerns the endpoint as a whole; in a cluster its message may be a version's, which is shown there."""
    return "" if status.message in {f"{v.name}: {v.message}" for v in status.versions} else status.message


def _state(state: ServiceState) -> Text:
    return Text(str(state), style=_COLOURS[state])
