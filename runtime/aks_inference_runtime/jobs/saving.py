"""What is kept of a run: its folders, its log, a record. Whole or not at all: a folder gets its name last."""

import json
import os
import shutil
from pathlib import Path

from aks_inference_runtime.jobs.model import LOG, RECORD, SAVED, Job


def begin(job: Job) -> Path:
    """A folder for the run beside its final place; what a killed run of the same name left goes."""
    part = job.place.with_name(f".{job.run_id}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / LOG).touch(mode=0o600)
    return part


def take(working: Path, part: Path) -> None:
    """The kept folders of a working directory. A link to outside of it is left out: it would not be a result."""
    root = working.resolve()
    for name in SAVED:
        source = working / name
        if source.is_dir() and source.resolve().is_relative_to(root):
            shutil.copytree(source, part / name, ignore=lambda folder, names: _outside(root, folder, names))


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


def _outside(root: Path, folder: str, names: list[str]) -> set[str]:
    paths = {name: Path(folder) / name for name in names}
    return {
        name
        for name, path in paths.items()
        if (path.is_symlink() and not path.resolve().is_relative_to(root)) or not (path.is_file() or path.is_dir())
    }
