"""The flags that every command has; they may stand before the command, too."""

from pathlib import Path

import click

from embedded_engine.cli.group import Group

COLORS = ("always", "never", "raw", "auto")
EVERYWHERE = (
    click.option(
        "--cwd",
        "-C",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Run as if started in this folder.",
    ),
    click.option("--non-interactive", is_flag=True, help="Ask nothing."),
    click.option("--color", type=click.Choice(COLORS), default="auto", help="When to use colours."),
)


def before_commands(group: Group) -> Group:
    """Lets them stand before the group's commands, which are given them."""
    for option in reversed(EVERYWHERE):
        option(group)
    for parameter in group.params:
        parameter.expose_value = False
    return group
