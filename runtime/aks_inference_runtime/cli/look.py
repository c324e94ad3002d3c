"""Commands that look: `status`, `logs`, `top`. On this machine and on a Kubernetes cluster they say the same."""

import asyncio
import json
import sys

import click

from aks_inference_runtime.cli import show
from aks_inference_runtime.cli.context import Context, command
from aks_inference_runtime.cli.loglines import newest
from aks_inference_runtime.cli.numbers import NumberRange
from aks_inference_runtime.cli.terminal import console


@click.command()
@click.argument("name", required=False)
@command
async def status(context: Context, name: str | None) -> int:
    """All endpoints, or one with its replicas."""
    async with context.source() as source:
        if name is not None:
            one = (await source.endpoint(name)).status
            if context.as_json:
                click.echo(json.dumps(show.as_json(one)))
            else:
                show.details(console(), one)
            return 0
        line, about = await source.heading()
        statuses = [view.status for view in await source.endpoints()]
    if context.as_json:
        click.echo(json.dumps({"cluster": about, "endpoints": [show.as_json(one) for one in statuses]}))
    else:
        show.overview(console(), line, statuses)
    return 0


@click.command()
@click.argument("name")
@click.option(
    "--follow", "-f", is_flag=True, help="Go on until interrupted; on a cluster at most 200 replicas at once."
)
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
    async with context.source() as source:
        present = (await source.endpoint(name)).status
        lines = source.logs(present, version, replica, tail, follow, dead, _missed)
        if follow:
            async for line in lines:
                click.echo(line.text(context.as_json))
            return 0
        for line in newest([line async for line in lines], tail):
            click.echo(line.text(context.as_json))
    return 0


def _missed(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


@click.command()
@click.argument("name", required=False)
@click.option(
    "--interval", type=NumberRange(min=0.1), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option(
    "--count", type=click.IntRange(min=1), help="Looks. Default: until interrupted; as a table into a file or a pipe 1."
)
@command
async def top(context: Context, name: str | None, interval: float, count: int | None) -> int:
    """What is busy, what waits, and what the autoscaler did last; again and again."""
    terminal = console()
    if count is None and not terminal.is_terminal and not context.as_json:
        count = 1
    looks = 0
    async with context.source() as source:
        while True:
            views = [await source.endpoint(name)] if name is not None else await source.endpoints()
            statuses = [view.status for view in views]
            if context.as_json:
                click.echo(json.dumps({"endpoints": [show.load(one) for one in statuses]}))
                sys.stdout.flush()
            else:
                if terminal.is_terminal:
                    terminal.clear()
                show.busiest(terminal, statuses)
            looks += 1
            if looks == count:
                return 0
            await asyncio.sleep(interval)
