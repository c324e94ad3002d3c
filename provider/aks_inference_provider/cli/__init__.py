"""`aks-inference`: the runtime's commands, and those that know the components.

`check` is called by editors and hooks on every save: it takes a short way that loads nothing of the others.
"""

import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import takewhile
from typing import NoReturn, TextIO

_OWN = {
    "check": "Check declarations in files, without a stack.",
    "report": "A preview as Markdown for a pull request.",
    "doctor": "Whether the hosts that a cluster needs can be reached.",
}


CLOSED_PIPE = 141
"""As a shell says it of one that SIGPIPE ended."""
INTERRUPTED = 130
"""And of one that SIGINT ended."""
_MANY_OBJECTS = 200_000
"""Five times what a check of hundreds of services makes."""


def main() -> None:
    """The console script."""
    stdout = sys.stdout
    try:
        try:
            _run(sys.argv[1:])
        finally:
            _flush()
    except KeyboardInterrupt:
        # While modules are loaded: the commands have answers of their own.
        with suppress(OSError):
            os.write(2, b"error: interrupted\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _closed()
    except OSError as error:
        _failed(error)
    except SystemExit:
        # Click puts another stream there when it meets a closed pipe, and ends with 1.
        if sys.stdout is not stdout:
            _closed()
        raise


def _flush() -> None:
    # None: the caller closed it (`>&-`).
    if sys.stdout is not None:
        sys.stdout.flush()


def _closed() -> NoReturn:
    """Who reads has enough (`| head`)."""
    _discard(sys.stdout)
    sys.exit(CLOSED_PIPE)


def _failed(error: OSError) -> NoReturn:
    """A full disk or the like under the output, or under a file that no command expected to fail."""
    text = str(error)
    try:
        _flush()
    except OSError:
        # What could not be written is still held back.
        text = f"the output cannot be written: {error.strerror}"
        _discard(sys.stdout)
    try:
        print(f"error: {text}", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)
    sys.exit(1)


def _discard(stream: TextIO) -> None:
    """What is held back must not be tried again at the end of the interpreter."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: list[str]) -> None:
    flags = list(takewhile("--json".__eq__, arguments))
    rest = arguments[len(flags) :]
    if rest and rest[0] in _OWN:
        if rest[0] == "check":
            _short()
        sys.exit(_command(rest[0])([*flags, *rest[1:]]))
    import click

    from aks_inference_runtime.cli import main as runtime

    def own(name: str) -> Callable[[], None]:
        def refuse() -> None:
            # Reached only with options in front that say which cluster is meant.
            text = (
                f"`{name}` looks at no running cluster: leave out the options in front of it; its own stand behind it"
            )
            raise click.UsageError(text)

        return refuse

    anything = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    for name, text in _OWN.items():
        runtime.add_command(click.Command(name, help=text, callback=own(name), context_settings=anything))
    runtime()


def _short() -> None:
    """For a command that is over before its garbage would count."""
    # Nearly all that is loaded stays: to look through it takes a tenth of the time, half of that at the end.
    gc.set_threshold(_MANY_OBJECTS)
    atexit.register(gc.freeze)
    # They would watch how a program validates; to find them the metadata of all that is installed is read.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _command(name: str) -> Callable[[Sequence[str]], int]:
    run: Callable[[Sequence[str]], int] = import_module(f"aks_inference_provider.cli.{name}").run
    return run
