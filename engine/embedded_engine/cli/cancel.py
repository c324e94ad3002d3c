"""`cancel`: takes the locks off a stack."""

import click

from embedded_engine.cli.group import NamedFlags
from embedded_engine.cli.invocation import Invocation, common, stack_option
from embedded_engine.errors import UsageError


@click.command(cls=NamedFlags)
@click.argument("name", required=False)
@stack_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@common
def cancel(call: Invocation, name: str | None, stack: str | None, yes: bool) -> None:
    """Remove the locks of a stack on which nothing works any more; it stops no process."""
    found = call.require(call.chosen(name or stack))
    if not yes and not call.confirm(f"This will irreversibly remove the locks of '{found}'! Remove them?"):
        raise UsageError("confirmation declined")
    count = call.backend.cancel(found)
    click.echo(f"The currently running update for '{found}' has been canceled!" if count else "no lock was found")
