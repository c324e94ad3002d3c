"""`aks-inference`: the runtime's commands, and those that know the components.

`check` is called by editors and hooks on every save: it takes a short way that loads nothing of the others.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

_OWN = {
    "check": "Check declarations in files, without a stack.",
    "report": "A preview as Markdown for a pull request.",
    "doctor": "Whether the hosts that a cluster needs can be reached.",
}


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in _OWN:
        sys.exit(_command(arguments[0])(arguments[1:]))
    import click

    from aks_inference_runtime.cli import main as runtime

    for name, text in _OWN.items():
        runtime.add_command(click.Command(name, help=text))
    runtime()


def _command(name: str) -> Callable[[Sequence[str]], int]:
    run: Callable[[Sequence[str]], int] = import_module(f"aks_inference_provider.cli.{name}").run
    return run
