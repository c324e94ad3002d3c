"""The rules for folders that are written to: the state directory of a local cluster, which a supervisor has for itself,
and others. Changes nothing."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

RECORD_FILE = "supervisor.json"
FIRST_FILES = frozenset({"supervisor.log", "supervisor.lock"})
"""What a start leaves that did not get far."""
Problem = tuple[str, str]
"""The broken rule and the mend."""
_KERNELS_OWN = (Path("/proc"), Path("/sys"))
"""Folders in which even root can make no others, whatever their modes say."""


def folder_problem(directory: Path) -> Problem | None:
    """The broken rule and the mend; None for a folder that can be taken, made, or is a cluster's already.

    Raises OSError where it cannot be looked at.
    """
    return _problem(directory, _not_a_clusters)


def unwritable(directory: Path) -> Problem | None:
    """Why nothing can be put into a folder, which need not be there yet, and the mend; None where it can.

    Raises OSError where it cannot be looked at.
    """
    return _problem(directory, _closed)


def _problem(directory: Path, of_folder: Callable[[Path, os.stat_result], Problem | None]) -> Problem | None:
    """What is wrong with something that is a folder, says `of_folder`; with anything else it is the same for all."""
    try:
        found = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _cannot_be_made(directory)
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder", "give a folder"
    return of_folder(directory, found)


def _not_a_clusters(directory: Path, found: os.stat_result) -> Problem | None:
    if _of_kernel(directory):
        return "is the kernel's own", "give a folder of your own"
    if found.st_uid != os.getuid():
        return f"belongs to user {found.st_uid}", "give a folder of your own"
    content = {path.name for path in directory.iterdir()} - FIRST_FILES
    if content and RECORD_FILE not in content:
        some = ", ".join(sorted(content)[:3])
        rule = f"holds other files ({some}); destroying the cluster removes its state directory"
        return rule, "give an empty or a new folder"
    return None


def _closed(directory: Path, _found: os.stat_result) -> Problem | None:
    if _of_kernel(directory) or not os.access(directory, os.W_OK | os.X_OK):
        return "cannot be written", "give another folder"
    return None


def _cannot_be_made(directory: Path) -> Problem | None:
    parent = next((each for each in directory.parents if os.path.lexists(each)), Path("/"))
    if not parent.is_dir():
        return f"cannot be made: {parent} is not a folder", "give another folder"
    if _of_kernel(parent) or not os.access(parent, os.W_OK | os.X_OK):
        return f"cannot be made: {parent} cannot be written", "give another folder"
    if os.path.lexists(directory):
        return "is a link that leads nowhere", "remove the link, or give another folder"
    return None


def _of_kernel(folder: Path) -> bool:
    resolved = folder.resolve()
    return any(resolved.is_relative_to(each) for each in _KERNELS_OWN)
