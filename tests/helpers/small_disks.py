"""Small file systems for tests that fill them; what a killed run left mounted is taken away by the next."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest

# The name of the mount's source, which says whose it is.
MARK = "aks-inference-tests"


class SmallDisks:
    """Mounts that end with the test."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []
        unmount_left_over()

    def mount(self, folder: Path, kilobytes: int) -> None:
        """An empty file system of so many kB on a folder that is there; skips where nothing can be mounted."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", f"{MARK}-{os.getpid()}", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        self._mounted.append(folder)

    def unmount(self) -> None:
        """All of them, also where processes still have files open."""
        while self._mounted:
            subprocess.run(["umount", "--lazy", str(self._mounted.pop())], check=True)


def mounts() -> list[tuple[int, Path]]:
    """All that tests have mounted: by which process, and where."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        source, place, *_ = line.split(" ")
        if match := re.fullmatch(rf"{MARK}-(\d+)", source):
            # Blanks and the like are written as octal numbers.
            name = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place)
            found.append((int(match[1]), Path(name)))
    return found


def unmount_left_over() -> None:
    """Those whose process is no more. Another run may do the same at the same moment."""
    for pid, place in mounts():
        if not psutil.pid_exists(pid):
            subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)
            with contextlib.suppress(OSError):
                place.rmdir()
