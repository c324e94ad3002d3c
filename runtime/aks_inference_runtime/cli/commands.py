"""The commands. Exit codes: 0 done · 1 it did not work · 2 wrong usage · 3 no such thing · 4 no runtime answers."""

import json
from pathlib import Path
from typing import BinaryIO

import click

from aks_inference_runtime.api.client import launch, read_record
from aks_inference_runtime.api.status import EndpointStatus
from aks_inference_runtime.cli.context import Context, command
from aks_inference_runtime.cli.lazy import LazyGroup, json_below
from aks_inference_runtime.cli.numbers import NumberRange
from aks_inference_runtime.cli.scoring import score_once


@click.group(
    cls=LazyGroup,
    lazy={
        "image": "aks_inference_runtime.images.cli:image_group",
        "logs": "aks_inference_runtime.cli.look:logs",
        "models": "aks_inference_runtime.cli.models:models_group",
        "simulate": "aks_inference_runtime.cli.simulate:simulate_command",
        "status": "aks_inference_runtime.cli.look:status",
        "token": "aks_inference_runtime.cli.token:token_command",
        "top": "aks_inference_runtime.cli.look:top",
    },
    epilog="Exit codes: 0 done, 1 it did not work, 2 wrong usage, 3 no such thing, 4 no runtime answers.",
)
@click.option("--state-directory", type=click.Path(path_type=Path), help="Of the local cluster that is meant.")
@click.option("--cluster", help="Name of the local cluster, where there are several.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="A Kubernetes cluster is meant: its kubeconfig.")
@click.option("--context", "kube_context", help="A Kubernetes cluster is meant: context of the kubeconfig.")
@click.option(
    "--namespace",
    "-n",
    help="A Kubernetes cluster is meant: only this namespace. Default: the context's, if it says one.",
)
@click.option(
    "--all-namespaces", "-A", is_flag=True, help="A Kubernetes cluster is meant: endpoints of all namespaces."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object or one JSON line per event, for pipelines.")
@click.version_option(package_name="pulumi-aks-inference")
@click.pass_context
def main(
    context: click.Context,
    state_directory: Path | None,
    cluster: str | None,
    kubeconfig: Path | None,
    kube_context: str | None,
    namespace: str | None,
    all_namespaces: bool,
    as_json: bool,
) -> None:
    """Look at the inference runtime on this machine or a Kubernetes cluster, and try what it serves."""
    context.obj = Context(state_directory, cluster, as_json, kubeconfig, kube_context, namespace, all_namespaces)
    if as_json:
        name = context.invoked_subcommand or ""
        context.default_map = {name: json_below(main.get_command(context, name))}


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
@click.option("--timeout", type=NumberRange(min=0, min_open=True), default=120.0, show_default=True, help="Seconds.")
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
    async with context.source() as source:
        answer = await score_once(source, name, data.read(), version, key, timeout)
    if context.as_json:
        click.echo(json.dumps(answer.as_json()))
    else:
        click.echo(answer.text)
        click.echo(f"{answer.status}{answer.note()} in {answer.seconds * 1_000:.1f} ms", err=True)
        if hint := answer.hint(name):
            click.echo(hint, err=True)
    return 0 if answer.status < 400 else 1


@main.command()
@click.argument("name")
@click.option("--timeout", type=NumberRange(min=0), default=600.0, show_default=True, help="Seconds.")
@command
async def wait(context: Context, name: str, timeout: float) -> int:  # noqa: ASYNC109 - the user's word
    """Wait until what is declared is served whole."""

    def progress(now: EndpointStatus) -> None:
        ready = ", ".join(f"{v.name} {v.replicas_ready}/{v.replicas_desired}" for v in now.versions)
        if not context.as_json:
            click.echo(f"{now.state}: {ready}" + (f" ({now.message.splitlines()[0]})" if now.message else ""), err=True)

    async with context.source() as source:
        done = await source.wait(name, timeout, progress)
    if context.as_json:
        click.echo(json.dumps(done.to_wire()))
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
