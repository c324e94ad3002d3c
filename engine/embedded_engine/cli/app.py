"""The commands of `embedded-engine`: they and their flags are a subset of the pulumi CLI's."""

import sys
from typing import NoReturn

import click

from embedded_engine.cli.flags import before_commands
from embedded_engine.cli.group import Group
from embedded_engine.cli.output import INTERRUPTED, discard, flush
from embedded_engine.errors import EngineError

_HERE = "embedded_engine.cli"
CLOSED_PIPE = 141
"""As a shell says it of one that SIGPIPE ended."""


@before_commands
@click.group(
    cls=Group,
    lazy={
        "stack": f"{_HERE}.stack:stack",
        "config": f"{_HERE}.config:config",
        "preview": f"{_HERE}.operations:preview",
        "up": f"{_HERE}.operations:up",
        "refresh": f"{_HERE}.operations:refresh",
        "destroy": f"{_HERE}.operations:destroy",
        "cancel": f"{_HERE}.cancel:cancel",
    },
    aliases={"update": "up", "pre": "preview", "down": "destroy", "dn": "destroy"},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pulumi-aks-inference", prog_name="embedded-engine")
def cli() -> None:
    """Preview and apply a Pulumi program, with the state in a `file://` backend."""


def main() -> None:
    """Runs the command line; ends the process with the command's status. Errors are sentences on stderr."""
    stdout = sys.stdout
    try:
        status = cli.main(standalone_mode=False)
        flush()
    except EngineError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), EngineError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _closed()
    except SystemExit:
        # Click puts another stream there when it meets a closed pipe, and ends with 1.
        if sys.stdout is not stdout:
            _closed()
        raise
    except OSError as error:
        # A folder that may not be read or written, wherever it was met.
        _fail(_words(error), EngineError.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def _closed() -> NoReturn:
    """Who read the output has enough of it."""
    discard(sys.stdout)
    sys.exit(CLOSED_PIPE)


def _words(error: OSError) -> str:
    try:
        flush()
    except OSError:
        # What could not be written is still held back.
        discard(sys.stdout)
        return f"the output cannot be written: {error.strerror}"
    return str(error)


def _fail(text: str, code: int) -> NoReturn:
    try:
        click.echo(f"error: {text}", err=True)
    except OSError:
        discard(sys.stderr)
    sys.exit(code)
