"""Becomes a command that ends with its parent: `tether.py <parent's process id> <command> …`.

Run as a file of its own with a bare interpreter, since it costs time at every start of a plugin. Linux has the means;
elsewhere it only becomes the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # Holds across the exec.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit("the engine has ended")
    try:
        os.execvp(command[0], command)  # noqa: S606 - a process in place of this one, without a shell
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


main()
