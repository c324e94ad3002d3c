"""The commands. Exit codes: 0 done · 1 it did not work · 2 wrong usage · 3 no such thing · 4 no runtime answers."""

import asyncio
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import Console

from aks_inference_runtime.api.client import SupervisorClient, launch, read_record
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, NotFound, RuntimeUnavailable
from aks_inference_runtime.api.status import EndpointStatus
from aks_inference_runtime.cli import show
from aks_inference_runtime.cli.find import state_directory
from aks_inference_runtime.cli.loglines import newest, parsed, whose
from aks_inference_runtime.cli.scoring import score_once

EXIT_CODES: dict[type[AksInferenceError], int] = {InvalidInput: 2, NotFound: 3, RuntimeUnavailable: 4}


@dataclass(frozen=True)
class Context:
    """What the options in front of a command say."""

    directory: Path | None
    cluster: str | None
    as_json: bool

    def client(self) -> SupervisorClient:
        """Raises NotFound or InvalidInput when it is not clear which cluster is meant."""
        return SupervisorClient(self.state())

    def state(self) -> Path:
        """The state directory that is meant."""
        return state_directory(self.directory, self.cluster)


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
        except BrokenPipeError:
            # Who reads has enough (`| head`); nothing more can be said, also not at the end of the interpreter.
            sys.stdout = sys.stderr
            code = 0
        sys.exit(code)

    return run


@click.group(epilog="Exit codes: 0 done, 1 it did not work, 2 wrong usage, 3 no such thing, 4 no runtime answers.")
@click.option("--state-directory", type=click.Path(path_type=Path), help="Of the local cluster that is meant.")
@click.option("--cluster", help="Name of the local cluster, where there are several.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object or one JSON line per event, for pipelines.")
@click.version_option(package_name="pulumi-aks-inference")
@click.pass_context
def main(context: click.Context, state_directory: Path | None, cluster: str | None, as_json: bool) -> None:
    """Look at the inference runtime on this machine and try what it serves."""
    context.obj = Context(state_directory, cluster, as_json)
    if as_json:
        context.default_map = _json_below(main)


def take_json(group: click.Group) -> None:
    """Lets `--json` stand behind a group's name, too: `aks-inference models --json list`."""

    def given(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.obj = dataclasses.replace(context.obj, as_json=True)
            context.default_map = _json_below(group)

    text = "The same as in front of the command."
    group.params.append(click.Option(["--json"], is_flag=True, expose_value=False, callback=given, help=text))


def _json_below(group: click.Group) -> dict[str, Any]:
    """Makes `--json` the default of commands with an option of their own for it."""
    return {
        name: _json_below(one) if isinstance(one, click.Group) else {"as_json": True}
        for name, one in group.commands.items()
    }


@main.command()
@click.argument("name", required=False)
@command
async def status(context: Context, name: str | None) -> int:
    """All endpoints, or one with its replicas."""
    client = context.client()
    if name is not None:
        one = (await client.get_endpoint(name)).status
        _out(context, one) if context.as_json else show.details(_console(), one)
        return 0
    info = await client.info()
    statuses = [view.status for view in await client.endpoints()]
    if context.as_json:
        endpoints = [s.to_wire() for s in statuses]
        click.echo(json.dumps({"cluster": info.to_wire(), "endpoints": endpoints}))
    else:
        show.overview(_console(), info, statuses)
    return 0


@main.command()
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted.")
@click.option("--version", help="Only of this version.")
@click.option("--replica", help="Only of this replica.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Lines in all; with --follow of each replica.",
)
@click.option("--all", "dead", is_flag=True, help="Also of replicas that are gone, where a version is healthy.")
@command
async def logs(
    context: Context, name: str, follow: bool, version: str | None, replica: str | None, tail: int, dead: bool
) -> int:
    """What the replicas of an endpoint wrote: the last lines, in order of time.

    Of a healthy version the replicas that are there; of others also those that are gone, for they may say why.
    """
    client = context.client()
    shown = whose(None if dead or replica else (await client.get_endpoint(name)).status)
    lines = parsed(client.logs(name, version, replica, tail, follow, labelled=True))
    if follow:
        async for line in lines:
            click.echo(line.text(context.as_json))
        return 0
    for line in newest([line async for line in lines if shown(line)], tail):
        click.echo(line.text(context.as_json))
    return 0


@main.command()
@click.argument("name")
@click.option("--data", required=True, type=click.File("rb"), help="The request's body; - is standard input.")
@click.option("--version", help="Ask for this version.")
@click.option(
    "--key",
    help="Instead of the stored key (it stands in the process list: better AKS_INFERENCE_KEY).",
    envvar="AKS_INFERENCE_KEY",
    show_envvar=True,
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True, help="Seconds."
)
@command
async def score(
    context: Context,
    name: str,
    data: BinaryIO,
    version: str | None,
    key: str | None,
    timeout: float,  # noqa: ASYNC109
) -> int:
    """Send one request through the router; exit code 0 for an answer below 400."""
    client = context.client()
    answer = await score_once(client, name, data.read(), version, key, timeout)
    if context.as_json:
        click.echo(json.dumps(answer.as_json()))
    else:
        click.echo(answer.text)
        click.echo(f"{answer.status}{answer.note()} in {answer.seconds * 1_000:.1f} ms", err=True)
    return 0 if answer.status < 400 else 1


@main.command()
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(min=0), default=600.0, show_default=True, help="Seconds.")
@command
async def wait(context: Context, name: str, timeout: float) -> int:  # noqa: ASYNC109 - the user's word
    """Wait until what is declared is served whole."""
    client = context.client()
    present = (await client.get_endpoint(name)).status

    def progress(now: EndpointStatus) -> None:
        ready = ", ".join(f"{v.name} {v.replicas_ready}/{v.replicas_desired}" for v in now.versions)
        if not context.as_json:
            click.echo(f"{now.state}: {ready}", err=True)

    done = await client.wait_endpoint(name, present.generation, timeout, progress)
    if context.as_json:
        _out(context, done)
    else:
        click.echo(f"{done.state}: {done.scoring_uri}")
    return 0


@main.command()
@command
async def start(context: Context) -> int:
    """Start the supervisor again after it was killed; what it left running goes on under the new one."""
    record = read_record(context.state())
    assert record is not None  # noqa: S101 - a missing one raises
    info = await launch(record.settings)
    click.echo(json.dumps(info.to_wire()) if context.as_json else f"{info.url} (pid {info.pid})")
    return 0


@main.command()
@click.argument("name")
@click.option("--show", "reveal", is_flag=True, help="Print the keys themselves.")
@command
async def keys(context: Context, name: str, reveal: bool) -> int:
    """Where the keys of an endpoint are kept."""
    found = await context.client().keys(name)
    path = context.state() / "keys" / f"{name}.json"
    if context.as_json:
        click.echo(json.dumps({"file": str(path)} | (found.to_wire() if reveal else {})))
    elif reveal:
        click.echo(f"primary    {found.primary_key}\nsecondary  {found.secondary_key}")
    else:
        click.echo(f"{path} (readable by you only; --show prints them)")
    return 0


def _out(_: Context, value: EndpointStatus) -> None:
    click.echo(json.dumps(value.to_wire()))


def _console() -> Console:
    return Console(highlight=False)
