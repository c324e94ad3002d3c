"""What is kept of a run: its folders, its log, a record. Whole or not at all: a folder gets its name last."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from aks_inference_runtime.jobs.model import LOG, RECORD, SAVED, Job


def begin(job: Job) -> Path:
    """A folder for the run beside its final place; what a killed run of the same name left goes."""
    part = job.place.with_name(f".{job.run_id}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / LOG).touch(mode=0o600)
    return part


def found(working: Path) -> Iterator[tuple[str, Path]]:
    """What is kept of a working directory, by its names there: folders, each before what is in it, and files.

    A link counts as what it leads to. Left out are those that lead outside of the working directory, as that would not
    be a result, those that lead back to a folder that they are in, and what is neither file nor folder.
    """
    root = _real(working)
    waiting: list[tuple[str, Path, tuple[Path, ...]]]
    waiting = [(name, working / name, ()) for name in reversed(SAVED) if (working / name).is_dir()]
    while waiting:
        name, path, above = waiting.pop()
        real = _real(path)
        if not real.is_relative_to(root) or any(one.is_relative_to(real) for one in above):
            continue
        if path.is_dir():
            yield name, path
            inside = sorted((one.name for one in path.iterdir()), reverse=True)
            waiting += [(f"{name}/{one}", path / one, (*above, real)) for one in inside]
        elif path.is_file():
            yield name, path


def take(working: Path, part: Path) -> None:
    """The kept folders of a working directory, see `found`. Raises OSError."""
    for name, path in found(working):
        if path.is_dir():
            (part / name).mkdir()
        else:
            shutil.copy2(path, part / name)


def finish(job: Job, part: Path, exit_code: int | None, seconds: float) -> None:
    """The record, and the final name."""
    (part / SAVED[0]).mkdir(exist_ok=True)
    record = {
        "runId": job.run_id,
        "entryScript": job.entry_script,
        "arguments": list(job.arguments),
        "exitCode": exit_code,
        "seconds": round(seconds, 3),
    }
    (part / RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    os.rename(part, job.place)  # noqa: PTH104 - pathlib's would not differ


def _real(path: Path) -> Path:
    # Not Path.resolve: it raises for links in a circle.
    return Path(os.path.realpath(path))
