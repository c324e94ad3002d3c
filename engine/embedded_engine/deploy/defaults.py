"""Default providers: those of packages for which a program names none, made from the stack's configuration."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from embedded_engine import values
from embedded_engine.deploy.cells import package_of
from embedded_engine.deploy.goals import Goal
from embedded_engine.deploy.options import Options
from embedded_engine.errors import EngineError
from embedded_engine.model import Properties, Resource


class DefaultProviders:
    """`register` makes a provider resource like any other and returns its state."""

    def __init__(self, options: Options, register: Callable[[Goal], Awaitable[Resource]]) -> None:
        self.options = options
        self._register = register
        self._made: dict[tuple[str, str, str], asyncio.Task[str]] = {}

    async def reference(self, token: str, version: str = "", url: str = "") -> str:
        """The reference of the package's default provider, made when it is first asked for. Raises `EngineError`."""
        package = package_of(token)
        denied = self.options.config.get("pulumi:disable-default-providers")
        if denied and package != "pulumi" and {"*", package} & _names(denied):
            raise EngineError(f"Default provider for '{package}' disabled. '{token}' must use an explicit provider.")
        key = (package, version, url)
        task = self._made.get(key)
        if task is None:
            task = self._made[key] = asyncio.ensure_future(self._make(package, version, url))
        return await asyncio.shield(task)

    async def _make(self, package: str, version: str, url: str) -> str:
        inputs: Properties = {}
        for key, value in self.options.config.items():
            namespace, _, name = key.partition(":")
            if namespace == package:
                inputs[name] = values.secret(value) if key in self.options.secret_keys else value
        name = "default"
        if version:
            inputs["version"] = version
            name += "_" + version.translate(str.maketrans(".-+", "___"))
        if url:
            inputs["__internal"] = {"pluginDownloadURL": url}
            name += "_" + "".join(c if c.isalnum() else "_" for c in url)
        goal = Goal(type=f"pulumi:providers:{package}", name=name, custom=True, properties=inputs)
        state = await self._register(goal)
        return f"{state.urn}::{state.id}"


def _names(text: str) -> set[str]:
    """The packages of `pulumi:disable-default-providers`. Raises `EngineError`."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise EngineError(f"pulumi:disable-default-providers must be a JSON list of package names, not {text!r}")
    return {name.strip() for name in found}
