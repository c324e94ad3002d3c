"""Where the commands look: the supervisor of this machine, or a cluster. Both say the same."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from aks_inference_runtime.api.client import SupervisorClient
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.status import EndpointStatus, EndpointView
from aks_inference_runtime.cli.loglines import LogLine, parsed, whose


class Source(Protocol):
    """What runs, as it is told."""

    async def heading(self) -> tuple[str, dict[str, Any]]:
        """Of what runs where: a line for people, an object for pipelines."""

    async def endpoints(self) -> list[EndpointView]:
        """All, by name."""

    async def endpoint(self, name: str) -> EndpointView:
        """One. Raises NotFound."""

    async def declared(self, name: str) -> ScoringEndpoint:
        """What is declared of one alone: its replicas need not be readable. Raises NotFound."""

    def logs(
        self,
        status: EndpointStatus,
        version: str | None,
        replica: str | None,
        tail: int,
        follow: bool,
        dead: bool,
        missed: Callable[[str], None],
    ) -> AsyncIterator[LogLine]:
        """Lines of its replicas' logs, the last `tail` of each. Raises NotFound, and where none of them can be read.

        `dead`: also of replicas that are gone, where a version is healthy. `missed`: is told of what cannot be read.
        """

    async def key(self, name: str) -> str:
        """The primary key. Raises InvalidInput where it is not known."""

    async def wait(self, name: str, timeout_s: float, progress: Callable[[EndpointStatus], None]) -> EndpointStatus:
        """Until what is declared is served whole. Raises NotFound; OperationFailed when it failed or took longer."""


class LocalSource:
    """This machine's."""

    def __init__(self, client: SupervisorClient) -> None:
        self._client = client

    async def heading(self) -> tuple[str, dict[str, Any]]:
        """See `Source`."""
        info = await self._client.info()
        line = f"local cluster {info.name}: {info.url}, pid {info.pid}, state in {info.state_directory}"
        return line, info.to_wire()

    async def endpoints(self) -> list[EndpointView]:
        """See `Source`."""
        return await self._client.endpoints()

    async def endpoint(self, name: str) -> EndpointView:
        """See `Source`."""
        return await self._client.get_endpoint(name)

    async def declared(self, name: str) -> ScoringEndpoint:
        """See `Source`."""
        return (await self.endpoint(name)).endpoint

    async def logs(
        self,
        status: EndpointStatus,
        version: str | None,
        replica: str | None,
        tail: int,
        follow: bool,
        dead: bool,
        missed: Callable[[str], None],
    ) -> AsyncIterator[LogLine]:
        """See `Source`."""
        shown = whose(None if dead or replica or follow else status)
        async for line in parsed(self._client.logs(status.name, version, replica, tail, follow, labelled=True)):
            if shown(line):
                yield line

    async def key(self, name: str) -> str:
        """See `Source`."""
        return (await self._client.keys(name)).primary_key

    async def wait(self, name: str, timeout_s: float, progress: Callable[[EndpointStatus], None]) -> EndpointStatus:
        """See `Source`."""
        present = (await self._client.get_endpoint(name)).status
        return await self._client.wait_endpoint(name, present.generation, timeout_s, progress)
