"""The help of `aks-inference` on narrow and wide terminals: no sentence is cut."""

import re

import click
import pytest

from aks_inference_runtime.cli import main


@pytest.mark.parametrize("width", [50, 80, 200])
@pytest.mark.parametrize("group", ["", "models", "image"])
def test_every_command_is_told_in_a_whole_sentence(group: str, width: int) -> None:
    above = click.Context(main, info_name="aks-inference", terminal_width=width)
    command = main.get_command(above, group) if group else main
    assert isinstance(command, click.Group)
    context = click.Context(command, terminal_width=width)
    told = command.get_help(context)
    assert "..." not in told.replace("[ARGS]...", "")
    words = " ".join(re.split(r"\s+", told.partition("Commands:")[2]))
    for name in command.list_commands(context):
        one = command.get_command(context, name)
        assert one is not None
        assert f" {name} {one.get_short_help_str(1_000)}" in words
