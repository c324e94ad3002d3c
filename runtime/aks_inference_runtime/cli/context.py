"""What all commands have in common: which cluster is meant, JSON or not, errors and exit codes."""

import asyncio
import dataclasses
import functools
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from aks_inference_runtime.api.client import SupervisorClient
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, NotFound, RuntimeUnavailable
from aks_inference_runtime.cli.find import state_directory
from aks_inference_runtime.cli.sources import LocalSource, Source

EXIT_CODES: dict[type[AksInferenceError], int] = {InvalidInput: 2, NotFound: 3, RuntimeUnavailable: 4}


@dataclass(frozen=True)
class Context:
    """What the options in front of a command say."""

    directory: Path | None
    cluster: str | None
    as_json: bool
    kubeconfig: Path | None = None
    kube_context: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False

    def with_json(self) -> "Context":
        """The same, for a pipeline."""
        return dataclasses.replace(self, as_json=True)

    @property
    def remote(self) -> bool:
        """Whether a Kubernetes cluster is meant. Raises InvalidInput where a local one is, too."""
        asked = (self.kubeconfig, self.kube_context, self.namespace) != (None, None, None) or self.all_namespaces
        if asked and (self.directory or self.cluster):
            raise InvalidInput(
                "--state-directory and --cluster name a local cluster; --kubeconfig, --context, --namespace and "
                "--all-namespaces one of Kubernetes: give options of one kind"
            )
        if self.namespace is not None and self.all_namespaces:
            raise InvalidInput("give --namespace or --all-namespaces, not both")
        return asked

    def client(self) -> SupervisorClient:
        """Raises NotFound or InvalidInput when it is not clear which local cluster is meant."""
        return SupervisorClient(self.state())

    def state(self) -> Path:
        """The state directory that is meant. Raises as `client`."""
        if self.remote:
            raise InvalidInput("this command is for a local cluster: leave out --kubeconfig, --context and --namespace")
        return state_directory(self.directory, self.cluster)

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        """Where to look. Raises NotFound or InvalidInput when it is not clear which cluster is meant."""
        if not self.remote:
            yield LocalSource(self.client())
            return
        from aks_inference_runtime.cli.cluster import CONNECTIONS, ClusterSource, connection
        from aks_inference_runtime.kubernetes.client import connected

        where = connection(self.kubeconfig, self.kube_context)
        async with connected(where, CONNECTIONS) as api:
            yield ClusterSource(api, where, None if self.all_namespaces else self.namespace or where.namespace)


def command(work: Callable[..., Coroutine[None, None, int]]) -> Callable[..., None]:
    """Runs a command; errors become one text on standard error (with --json an object) and an exit code."""

    @click.option("--json", "json_here", is_flag=True, help="The same as in front of the command.")
    @functools.wraps(work)
    def run(*arguments: object, json_here: bool, **options: object) -> None:
        context = click.get_current_context().find_object(Context)
        assert context is not None  # noqa: S101 - made by the group
        context = dataclasses.replace(context, as_json=context.as_json or json_here)
        try:
            code = asyncio.run(work(context, *arguments, **options))
        except AksInferenceError as error:
            if context.as_json:
                click.echo(json.dumps({"error": type(error).__name__, "message": str(error)}))
            else:
                click.echo(f"error: {error}", err=True)
            code = next((number for kind, number in EXIT_CODES.items() if isinstance(error, kind)), 1)
        except KeyboardInterrupt:
            code = 130  # as a shell says it of one that SIGINT ended
        sys.exit(code)

    return run
