"""The providers of a run: plugins that were started for the provider resources of the stack, by their reference.

A provider resource is checked and compared like any other; then its plugin is configured and serves the resources
that refer to it as `<urn>::<id>`.
"""

import asyncio
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from embedded_engine import values
from embedded_engine.deploy.builtin import Builtin
from embedded_engine.deploy.cells import package_of_urn
from embedded_engine.errors import EngineError
from embedded_engine.model import Properties, Resource
from embedded_engine.plugins.answers import Diff, Failure
from embedded_engine.plugins.client import Provider
from embedded_engine.plugins.find import Finder
from embedded_engine.plugins.process import PluginProcess

Told = Callable[[str, str], None]


class Registry:
    """`told(stream, line)` gets what plugins print. `engine_address` is where plugins reach the engine's services."""

    def __init__(self, finder: Finder, told: Told, builtin: Builtin, dry_run: bool) -> None:
        self.engine_address = ""
        self._finder = finder
        self._told = told
        self._builtin = builtin
        self._dry_run = dry_run
        self._providers: dict[str, Provider | Builtin] = {}
        # Checked, but not yet configured, by URN.
        self._checked: dict[str, Provider | Builtin] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._processes: list[PluginProcess] = []
        self._plugins: list[Provider] = []
        self._old: dict[str, Resource] = {}

    def use_state(self, old: Mapping[str, Resource]) -> None:
        """The provider resources of the state, by reference: what `ensure` can bring up."""
        self._old = dict(old)

    def get(self, reference: str) -> Provider | Builtin | None:
        return self._providers.get(reference)

    def require(self, reference: str, for_urn: str) -> Provider | Builtin:
        provider = self._providers.get(reference)
        if provider is None:
            raise EngineError(f"unknown provider '{reference}' for resource '{for_urn}'")
        return provider

    async def ensure(self, reference: str) -> None:
        """Brings up the provider of an old resource, if the program has not."""
        if not reference or reference in self._providers:
            return
        task = self._loading.get(reference)
        if task is None:
            task = self._loading[reference] = asyncio.ensure_future(self._load_old(reference))
        await asyncio.shield(task)

    async def _load_old(self, reference: str) -> None:
        state = self._old.get(reference)
        if state is None:
            raise EngineError(f"the state has no provider {reference}")
        await self.same(state)

    # the provider resources' own operations

    async def check(
        self, urn: str, olds: Properties, news: Properties, unknowns: bool
    ) -> tuple[Properties, list[Failure]]:
        provider = self._checked.get(urn)
        if provider is None:
            provider = self._checked[urn] = await self._start(urn, news)
        return await provider.check_config(urn, olds, news, unknowns)

    async def diff(self, urn: str, old_inputs: Properties, old_outputs: Properties, news: Properties) -> Diff:
        """What a provider cannot say itself is told from the inputs."""
        provider = self._checked.get(urn)
        if provider is None:
            return Diff(not values.equal(old_inputs, news))
        diff = await provider.diff_config(urn, old_inputs, old_outputs, news)
        if diff.changes is None:
            return Diff(not values.equal(old_inputs, news), diff.replaces, delete_before_replace=False)
        return diff

    async def same(self, state: Resource) -> None:
        """Nothing has changed: the plugin is configured as it was."""
        reference = f"{state.urn}::{state.id}"
        if reference not in self._providers:
            await self._configure(state.urn, state.id, state.inputs)

    async def create(self, urn: str, inputs: Properties) -> str:
        """The id of the new provider; in a preview it is not known."""
        identity = values.UNKNOWN if self._dry_run else str(uuid.uuid4())
        await self._configure(urn, identity, inputs)
        return identity

    async def update(self, urn: str, identity: str, inputs: Properties) -> None:
        await self._configure(urn, identity, inputs)

    async def _configure(self, urn: str, identity: str, inputs: Properties) -> None:
        provider = self._checked.pop(urn, None) or await self._start(urn, inputs)
        await provider.configure(urn, identity, inputs)
        self._providers[f"{urn}::{identity}"] = provider

    async def _start(self, urn: str, inputs: Properties) -> Provider | Builtin:
        package = package_of_urn(urn)
        if package == "pulumi":
            return self._builtin
        version = values.unwrap(inputs.get("version"))
        launch = self._finder.find(package, version if isinstance(version, str) else "")
        process = PluginProcess(package, self._told)
        self._processes.append(process)
        environment = {**os.environ, **self._finder.environment}
        await process.start(launch, self.engine_address, environment)
        provider = Provider(package, process.port)
        self._plugins.append(provider)
        await provider.handshake(self.engine_address, Path(launch.folder))
        return provider

    # the end

    async def cancel(self) -> None:
        """Asks every provider to give up what it is doing."""
        await asyncio.gather(*(provider.cancel() for provider in self._plugins))

    async def close(self) -> None:
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        await asyncio.gather(*(provider.close() for provider in self._plugins))
        await asyncio.gather(*(process.end() for process in self._processes))
        self._plugins.clear()
        self._processes.clear()

    def kill(self) -> None:
        """Ends the plugins at once."""
        for process in self._processes:
            process.kill()

    async def gone(self) -> None:
        """Ends what is left of the plugins, and waits for it: what outlives the event loop says so on stderr."""
        self.kill()
        await asyncio.gather(*(process.end() for process in self._processes))
