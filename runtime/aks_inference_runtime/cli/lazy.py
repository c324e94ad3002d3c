"""A group of commands whose modules are imported when one of them is run: `score` need not wait for the others'."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

_SENTENCE = 1_000
"""Characters, which no first sentence has."""


class WholeHelp(click.Group):
    """Its help says the whole first sentence of each command, on as many lines as it takes; click's own cuts it."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_SENTENCE)) for name, one in found if one is not None and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyGroup(WholeHelp):
    """`lazy`: by command, `module:attribute`. An attribute that is a group takes `--json` behind its name, too."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **options: Any) -> None:  # noqa: ANN401 - as click has it
        super().__init__(*args, **options)
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._lazy:
            module, _, attribute = self._lazy.pop(cmd_name).partition(":")
            command = getattr(importlib.import_module(module), attribute)
            if not isinstance(command, click.Command):
                raise TypeError(f"{module}:{attribute} is no command")
            if isinstance(command, click.Group):
                _take_json(command)
            self.add_command(command, cmd_name)
        return super().get_command(ctx, cmd_name)


def json_below(command: click.Command | None) -> dict[str, Any]:
    """Defaults that turn `--json` on in a command, or in those of a group that have an option of that name."""
    if isinstance(command, click.Group):
        return {name: json_below(one) for name, one in command.commands.items()}
    return {"as_json": True}


def _take_json(group: click.Group) -> None:
    """Lets `--json` stand behind a group's name: `aks-inference models --json list`."""

    def given(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.obj = context.obj.with_json()
            context.default_map = json_below(group)

    if not any(parameter.name == "json" for parameter in group.params):
        text = "The same as in front of the command."
        group.params.append(click.Option(["--json"], is_flag=True, expose_value=False, callback=given, help=text))
