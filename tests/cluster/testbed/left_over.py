"""Ends what a run of the tests leaves behind, also when the run was killed in the middle.

Every process that a run starts, at whatever depth, has the run's mark in its environment, or, where what starts it
gives it an environment of its own, names a folder of the run's. A process beside the run (this file) waits for its end,
then ends those, and undoes what was noted. Linux: elsewhere no process can read the environment of another.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

MARK = "AKS_INFERENCE_TEST_RUN"
"""Its value is the folder of the run's notes."""
LIMIT_S = 30.0
_QUIET_S = 0.3
"""What is started anew by one that has ended comes within that."""


class Watch:
    """Over this process; a run within a run has that of the outer one."""

    def __init__(self) -> None:
        self._watcher: subprocess.Popen[str] | None = None
        if sys.platform != "linux" or MARK in os.environ:
            return
        notes = tempfile.mkdtemp(prefix="tests-")
        # Ctrl-C reaches a session; its end of the pipe is closed also when this process is killed.
        self._watcher = subprocess.Popen(
            [sys.executable, __file__, notes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        os.environ[MARK] = notes

    def end(self) -> list[str]:
        """The commands of what had to be ended."""
        if self._watcher is None:
            return []
        os.environ.pop(MARK, None)
        told, _ = self._watcher.communicate(timeout=2 * LIMIT_S)
        return told.splitlines()


def note(folder: Path, *commands: Sequence[str]) -> Path | None:
    """Where the run ends while the file that is returned is there: commands to run, and a folder to remove with all
    that is mounted in it. None: nobody watches."""
    notes = os.environ.get(MARK)
    if notes is None:
        return None
    path = Path(notes) / f"{folder.name}.json"
    path.write_text(json.dumps({"folder": str(folder), "commands": commands}))
    return path


def claim(folder: Path) -> None:
    """What names this folder, or a run directory of a local cluster in it, is the run's."""
    if (notes := os.environ.get(MARK)) is not None:
        (Path(notes) / f"{uuid.uuid4()}.claim").write_text(str(folder))


def names(process: psutil.Process, *texts: str) -> bool:
    """Whether one of these stands in what it was started with."""
    said = "\n".join([*process.cmdline(), *_environment(process).values()])
    return any(text in said for text in texts)


def unmount_below(folder: Path) -> None:
    """The deepest first; also where processes still have files open."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        place = Path(line.split(" ")[1])
        if place.is_relative_to(folder):
            subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


def _claimed(notes: str) -> list[str]:
    """Folders that only processes of the run name."""
    folders = [Path(path.read_text()) for path in Path(notes).glob("*.claim")]
    found = [str(folder) for folder in folders]
    for record in (record for folder in folders for record in folder.rglob("supervisor.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found.append(json.loads(record.read_text())["runDirectory"])
    # Not those whose names only begin so.
    return [f"{folder}/" for folder in found]


def _marked(notes: str, claimed: Sequence[str]) -> Iterator[psutil.Process]:
    """The processes of a run, and theirs: what runs in a container has its own environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_other = process.pid != os.getpid()
            if _environment(process).get(MARK) == notes or (is_other and names(process, *claimed)):
                yield process
                yield from process.children(recursive=True)


def _environment(process: psutil.Process) -> Mapping[str, str]:
    return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()


def _end(notes: str) -> list[str]:
    """Until none is left: what is watched over is started anew by who watches over it."""
    told: dict[int, str] = {}
    claimed = _claimed(notes)
    deadline = time.monotonic() + LIMIT_S
    quiet_since = time.monotonic()
    while time.monotonic() < min(deadline, quiet_since + _QUIET_S):
        for process in list(_marked(notes, claimed)):
            with contextlib.suppress(psutil.Error):
                told.setdefault(process.pid, f"{process.pid} {' '.join(process.cmdline())[:200]}")
                process.kill()
                quiet_since = time.monotonic()
        time.sleep(0.05)
    return list(told.values())


def main(notes: str) -> None:
    """Until stdin ends, and then."""
    sys.stdin.read()
    told = _end(notes)
    for path in Path(notes).glob("*.json"):
        noted = json.loads(path.read_text())
        for command in noted["commands"]:
            subprocess.run(command, capture_output=True, check=False)
        unmount_below(Path(noted["folder"]))
        shutil.rmtree(noted["folder"], ignore_errors=True)
    shutil.rmtree(notes, ignore_errors=True)
    with contextlib.suppress(BrokenPipeError):
        print(*told, sep="\n", end="\n" if told else "", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
