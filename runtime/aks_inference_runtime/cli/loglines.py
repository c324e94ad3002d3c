"""Lines of replicas' logs: whose they are, when they were written, which are shown."""

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass

from aks_inference_runtime.api.status import EndpointStatus, ServiceState

_LABEL = re.compile(r"([^/\s]+)/([^/\s]+) (.*)", re.DOTALL)
_TIME = re.compile(r"\[?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?")
"""As the scoring server and gunicorn begin their lines."""


@dataclass(frozen=True)
class LogLine:
    """One line."""

    version: str
    replica: str
    time: str | None
    """As its writer tells it, or that of the line before; None before the first time. Sorts as text."""
    line: str

    def text(self, as_json: bool) -> str:
        """For people with whose it is; for pipelines in parts."""
        return json.dumps(asdict(self)) if as_json else f"{self.version}/{self.replica} {self.line}"


async def parsed(labelled: AsyncIterable[str]) -> AsyncIterator[LogLine]:
    """Lines `<version>/<replica> <text>`; what a script prints has no time, and takes that of the line before."""
    last: dict[tuple[str, str], str] = {}
    async for raw in labelled:
        match = _LABEL.fullmatch(raw)
        version, replica, line = match.groups() if match else ("", "", raw)
        if told := _TIME.match(line):
            day, second, part = told.groups()
            last[version, replica] = f"{day}T{second}.{(part or '').ljust(6, '0')}"
        yield LogLine(version, replica, last.get((version, replica)), line)


def whose(status: EndpointStatus | None) -> Callable[[LogLine], bool]:
    """Which lines are shown: of a healthy version those of the replicas that are there; of others all. None: all."""
    if status is None:
        return lambda _: True
    there = {
        version.name: {replica.id for replica in version.replicas}
        for version in status.versions
        if version.state is ServiceState.HEALTHY
    }
    return lambda line: line.version not in there or line.replica in there[line.version]


def newest(lines: Sequence[LogLine], count: int) -> Sequence[LogLine]:
    """The last lines of all replicas together, in order of time; lines of one replica keep theirs."""
    ordered = sorted(lines, key=lambda line: line.time or "")
    return ordered[max(0, len(ordered) - count) :]
