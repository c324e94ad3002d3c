"""The standard output of a run, which must not end a run that is under way."""

import os
import sys
from typing import TextIO

import click

INTERRUPTED = 130
"""Of a command that Ctrl-C ended, or of a run that SIGTERM stopped: as a shell says it of one that SIGINT ended."""


class LastingOutput:
    """Writes to a stream; where nobody reads it any more, or its disk is full, the rest goes nowhere and is told once.

    A run that was interrupted by its own messages would leave things half done.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            discard(self._stream)
            click.echo(f"warning: the output ends here ({error.strerror}); the run goes on", err=True)


def discard(stream: TextIO) -> None:
    """What is in the stream's buffer would come up again at every flush, at the end of the process too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush() -> None:
    """Raises OSError where the standard output cannot be written."""
    # None: the caller closed it (`>&-`).
    if sys.stdout is not None:
        sys.stdout.flush()


def standard_output() -> LastingOutput:
    return LastingOutput(sys.stdout)
