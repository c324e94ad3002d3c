"""Whose a router on this machine is: told by the folder that its configuration is in."""

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

OWNER_FILE = "state-directory"
"""In the folder of the sockets: which state directory it belongs to."""


def private(folder: Path) -> bool:
    """Whether it is a folder of this user that nobody else can look into."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700


def state_of_router(command: Sequence[str]) -> Path | None:
    """The state directory of the local cluster of this user whose HAProxy has this command line."""
    for part in command:
        path = Path(part)
        if path.suffix == ".cfg" and path.parent.name == "router" and private(path.parents[1]):
            with contextlib.suppress(OSError):
                return Path((path.parents[1] / OWNER_FILE).read_text())
    return None


def of_another(port: int, host: str, directory: Path) -> str:
    """What is said of a port that another local cluster has, with the mend."""
    return (
        f"{port} on {host} is that of another local cluster of yours, whose state is in {directory}; give another "
        f"port, or destroy the stack of that cluster first"
    )
