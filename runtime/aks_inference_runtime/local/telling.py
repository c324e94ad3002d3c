"""Changed states of a local cluster's endpoints, told to its webhook."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.status import EndpointStatus, EndpointView
from aks_inference_runtime.local.files import read_wire, write_wire
from aks_inference_runtime.local.records import ToldRecord
from aks_inference_runtime.observability.changes import Hook, StateChange

END_S = 2.0
"""At its end what is being told has so long."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """What is known of the states."""

    told: Mapping[str, str]
    """The last that was told of each endpoint."""
    last: Mapping[str, str]
    """At the last look: what lasts for less than the time between two is not told."""


def look(seen: Seen, views: Sequence[EndpointView], at: datetime) -> tuple[Seen, list[StateChange]]:
    """What is known after a look, and what is to be told."""
    last = {view.endpoint.metadata.name: str(view.status.state) for view in views}
    steady = {name: state for name, state in last.items() if seen.last.get(name) == state}
    changes = [
        StateChange(
            namespace=view.endpoint.metadata.namespace,
            name=name,
            generation=view.status.generation,
            before=seen.told.get(name),
            after=steady[name],
            message=_message(view.status),
            scoring_uri=view.status.scoring_uri,
            at=at,
        )
        for view in views
        if (name := view.endpoint.metadata.name) in steady and seen.told.get(name) != steady[name]
    ]
    told = {name: state for name, state in seen.told.items() if name in last}
    return Seen({**told, **steady}, last), changes


def _message(status: EndpointStatus) -> str:
    """As the status of a cluster's object has it."""
    of_versions = (f"{v.name}: {v.message}" for v in status.versions if v.message and v.state is status.state)
    return status.message or next(of_versions, "")


class StateTeller:
    """Looks and tells; what it told is known to the next supervisor, too."""

    def __init__(self, address: Path, told: Path) -> None:
        """`address`: the file with the webhook's; `told`: the file of a ToldRecord."""
        self._hook = Hook(address)
        self._file = told
        self._seen: Seen | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def load(self) -> None:
        """What a supervisor before this one told."""
        if not self._file.exists():
            return
        try:
            self._seen = Seen(read_wire(self._file, ToldRecord).states, {})
        except AksInferenceError as error:
            # It declares nothing: from now on changes are told.
            _log.warning("%s", error)

    def forget(self) -> None:
        """There is no webhook any more: a later one is told of what changes from then on."""
        self._seen = None
        self._file.unlink(missing_ok=True)

    async def look(self, views: Sequence[EndpointView]) -> None:
        """Tells what has changed; the first look ever tells nothing."""
        if self._seen is None:
            states = {view.endpoint.metadata.name: str(view.status.state) for view in views}
            self._seen = Seen(states, states)
            await self._keep()
            return
        before = self._seen
        self._seen, changes = look(before, views, datetime.now(UTC))
        if self._seen.told != before.told:
            await self._keep()
        for change in changes:
            task = asyncio.create_task(self._hook.tell(change), name=f"tell {change.name}")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Ends what is under way."""
        if self._telling:
            _, late = await asyncio.wait(self._telling, timeout=END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _keep(self) -> None:
        assert self._seen is not None  # noqa: S101 - both callers have just set it
        try:
            await asyncio.to_thread(write_wire, self._file, ToldRecord(states=dict(self._seen.told)), "")
        except AksInferenceError as error:
            # The next supervisor may tell it again.
            _log.warning("%s", error)
