"""The console script `embedded-engine`. Ctrl-C while its modules are still loaded is no traceback either."""

import contextlib
import os
import sys

_INTERRUPTED = 130
"""As a shell says it of one that SIGINT ended; `output` has it too, and is among what is loaded."""


def main() -> None:
    """Runs the command line; ends the process with the command's status."""
    try:
        from embedded_engine.cli.app import main as run

        run()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            os.write(2, b"error: interrupted\n")
        sys.exit(_INTERRUPTED)
