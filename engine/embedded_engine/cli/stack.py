"""`stack`: the stacks of a project and their state."""

import dataclasses
import datetime
import json
import sys
from pathlib import Path

import click

from embedded_engine.backend import StackName, check_version, checked, intact
from embedded_engine.backend.files import write_atomically
from embedded_engine.cli.group import Group
from embedded_engine.cli.invocation import Invocation, common, json_option, print_json, stack_option
from embedded_engine.cli.tables import print_table
from embedded_engine.errors import StackNotFoundError, StateError, UsageError
from embedded_engine.model import CHECKPOINT_VERSION, Json, Snapshot, Value
from embedded_engine.secrets import show_secrets
from embedded_engine.session import StackSession, outputs_of
from embedded_engine.values import redact, unwrap
from embedded_engine.wirejson import dumps

_EXPORT_INDENT = 4


@click.group(cls=Group, invoke_without_command=True)
@stack_option
@common
def stack(call: Invocation, stack: str | None) -> None:
    """Create, list, select, show, export, import and remove stacks."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    session = call.session(stack)
    snapshot = session.load()
    click.echo(f"Current stack is {session.stack}:\n    Managed by {session.backend.url}")
    click.echo(f"    Last updated: {_ago(session.backend.modified(session.name))}")
    click.echo(f"Current stack resources ({len(snapshot.resources)}):")
    for resource in snapshot.resources:
        click.echo(f"    {resource.type:<48} {resource.name}")
    click.echo()
    _print_outputs(outputs_of(snapshot), show=False)


@stack.command()
@click.argument("name", required=False)
@stack_option
@click.option("--no-select", is_flag=True, help="Leave the selected stack as it is.")
@click.option("--secrets-provider", default="default", help="Only `passphrase` is supported.")
@common
def init(call: Invocation, name: str | None, stack: str | None, no_select: bool, secrets_provider: str) -> None:
    """Create an empty stack."""
    text = name or stack
    if not text:
        raise UsageError("missing stack name")
    if secrets_provider not in ("default", "passphrase"):
        raise UsageError(f"--secrets-provider {secrets_provider}: only `passphrase` is supported")
    found = call.name(text)
    if found.project != call.project.name:
        raise UsageError(f"stack {text!r} is of another project than this one, {call.project.name}")
    session = StackSession(call.project, found, call.backend, call.environment, call.ask_passphrase)
    if call.backend.exists(found):
        raise StateError(f"stack '{found}' already exists")
    session.ensure_salt()
    call.backend.create(found)
    if not no_select:
        call.select(found)
    click.echo(f"Created stack '{found.stack}'")


@stack.command()
@click.argument("name", required=False)
@stack_option
@click.option("--create", "-c", is_flag=True, help="Create the stack where it does not exist.")
@common
def select(call: Invocation, name: str | None, stack: str | None, create: bool) -> None:
    """Select the stack that later commands work on."""
    text = name or stack
    if not text:
        raise UsageError("missing stack name")
    found = call.name(text)
    if create and not call.backend.exists(found):
        session = StackSession(call.project, found, call.backend, call.environment, call.ask_passphrase)
        session.ensure_salt()
        call.backend.create(found)
    call.select(call.require(found))


@stack.command()
@json_option
@click.option("--all", "-a", "everything", is_flag=True, help="Stacks of all projects.")
@common
def ls(call: Invocation, json_output: bool, everything: bool) -> None:
    """List the stacks."""
    selected = call.selected()
    rows: list[Json] = []
    for name in call.backend.list(None if everything else call.project.name):
        row: Json = {"name": str(name) if everything else name.stack, "current": str(name) == selected}
        try:
            deployment = call.backend.read(name).deployment
            intact(Snapshot.from_deployment(deployment or {}), call.backend.path(name))
        except StackNotFoundError:
            # Removed since the folder was looked at.
            continue
        except StateError as error:
            click.echo(f"warning: {error}", err=True)
            rows.append({**row, "updateInProgress": call.backend.is_locked(name), "error": str(error)})
            continue
        resources = len(deployment.get("resources") or []) if deployment else None
        if deployment is not None:
            row["lastUpdate"] = call.backend.modified(name).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        row["updateInProgress"] = call.backend.is_locked(name)
        if resources is not None:
            row["resourceCount"] = resources
        rows.append(row)
    if json_output:
        print_json(rows)
        return
    table = [("NAME", "LAST UPDATE", "RESOURCE COUNT")]
    for row in rows:
        when = "in progress" if row["updateInProgress"] else row.get("lastUpdate", "n/a")
        count = "cannot be read" if "error" in row else str(row.get("resourceCount", "n/a"))
        table.append((f"{row['name']}{'*' if row['current'] else ''}", when, count))
    print_table(table)


@stack.command()
@click.argument("name", required=False)
@stack_option
@json_option
@click.option("--show-secrets", is_flag=True, help="Show what is secret.")
@common
def output(call: Invocation, name: str | None, stack: str | None, json_output: bool, show_secrets: bool) -> None:
    """Show the stack's outputs, or one of them."""
    outputs = outputs_of(call.session(stack).load())
    if name is None:
        if json_output:
            print_json(_shown(outputs, show_secrets))
        else:
            _print_outputs(outputs, show_secrets)
        return
    if name not in outputs:
        raise StateError(f"current stack does not have output property '{name}'")
    value = _shown(outputs[name], show_secrets)
    if json_output:
        print_json(value)
    else:
        click.echo(value if isinstance(value, str) else dumps(value))


@stack.command()
@stack_option
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@click.option("--show-secrets", "show", is_flag=True, help="Show what is secret.")
@common
def export(call: Invocation, stack: str | None, file: Path | None, show: bool) -> None:
    """Print the stack's state."""
    session = call.session(stack)
    deployment = session.backend.read(session.name).deployment
    if deployment is None:
        deployment = {"manifest": session.manifest(), "metadata": {}}
        if session.secrets.to_state():
            deployment["secrets_providers"] = session.secrets.to_state()
    if show:
        deployment = session.load().to_deployment(show_secrets)
    text = dumps({"version": CHECKPOINT_VERSION, "deployment": deployment}, _EXPORT_INDENT) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        # Only the owner can read it: it may show secrets.
        write_atomically(file, text.encode())


@stack.command(name="import")
@stack_option
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Read from this file.")
@click.option("--force", "-f", is_flag=True, help="Import also what belongs to another stack or is damaged.")
@common
def import_(call: Invocation, stack: str | None, file: Path | None, force: bool) -> None:
    """Replace the stack's state with an export."""
    session = call.session(stack)
    text = file.read_bytes() if file else sys.stdin.buffer.read()
    what = str(file) if file else "the standard input"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{what} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("deployment"), dict):
        raise StateError(f"{what} is no export of a stack: it has no `deployment`")
    check_version(content.get("version"), what)
    session.ensure_salt()
    snapshot = session.decoded(content["deployment"])
    if not force:
        checked(snapshot, what)
        _refuse_strangers(snapshot, session.name)
    if snapshot.operations:
        click.echo(f"warning: removed {len(snapshot.operations)} pending operation(s)", err=True)
    with session.locked(lambda text: click.echo(f"warning: {text}", err=True)):
        session.persist(dataclasses.replace(snapshot, operations=()))
    click.echo("Import complete.")


def _refuse_strangers(snapshot: Snapshot, name: StackName) -> None:
    own = f"urn:pulumi:{name.stack}::{name.project}::"
    strangers = [r.urn for r in snapshot.resources if not r.urn.startswith(own)]
    if strangers:
        raise StateError(
            f"{len(strangers)} resource(s) belong to another stack or project, such as {strangers[0]}; "
            "`--force` imports them all the same"
        )


@stack.command()
@click.argument("name", required=False)
@stack_option
@click.option("--force", "-f", is_flag=True, help="Remove the stack though it still has resources.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--preserve-config", is_flag=True, help="Keep Pulumi.<stack>.yaml.")
@common
def rm(call: Invocation, name: str | None, stack: str | None, force: bool, yes: bool, preserve_config: bool) -> None:
    """Remove a stack, its state and its settings."""
    session = call.session(name or stack)
    found = session.name
    with session.locked(lambda text: click.echo(f"warning: {text}", err=True)):
        deployment = call.backend.read(found).deployment if not force else None
        if deployment and deployment.get("pending_operations") and not deployment.get("resources"):
            raise StateError(
                f"an interrupted run of '{found}' left operations of which the end is not known; removal rejected. "
                "Possible actions:\n"
                "- Run `refresh`, which names them; remove what they made, then `refresh --clear-pending-creates`\n"
                "- Run the command again with `--force`; what they made stays, and nothing knows of it any more"
            )
        if deployment and deployment.get("resources"):
            raise StateError(
                f"'{found}' still has resources; removal rejected. Possible actions:\n"
                "- Make sure that it is the right stack, then `destroy` it\n"
                "- Run the command again with `--force`; the resources stay, and nothing knows of them any more"
            )
        if not yes and not call.confirm(f"This will permanently remove the '{found}' stack! Remove it?"):
            raise UsageError("confirmation declined")
        call.backend.remove(found)
    if not preserve_config:
        session.settings.path.unlink(missing_ok=True)
    if call.selected() in (str(found), found.stack):
        call.select(None)
    click.echo(f"Stack '{found}' has been removed!")


def _shown(value: Value, show: bool) -> Value:
    return unwrap(value) if show else redact(value)


def _print_outputs(outputs: Json, show: bool) -> None:
    if not outputs:
        click.echo("No output values currently in this stack")
        return
    click.echo(f"Current stack outputs ({len(outputs)}):")
    rows = [("OUTPUT", "VALUE")]
    for key in sorted(outputs):
        value = _shown(outputs[key], show)
        rows.append((key, value if isinstance(value, str) else dumps(value)))
    print_table(rows, "    ")


def _ago(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
