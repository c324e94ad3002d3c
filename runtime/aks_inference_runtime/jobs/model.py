"""What a job is and what came of it. Frozen; no effects."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.output import printable

SAVED = ("outputs", "logs", "models")
"""Folders of the working directory that are kept (source document 003: logs, models and ./outputs)."""
LOG = "log.txt"
RECORD = "job.json"
TAIL_LINES = 30
LONGEST_S = 24 * 3600.0
"""Where nothing else is said: a job that hangs ends by itself."""
Say = Callable[[str], None]


class JobFailed(OperationFailed):
    """The script ended with another code than 0, or was ended; the text carries the tail of its log."""

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def command_text(script: str, arguments: Sequence[str]) -> str:
    """What runs, on one line, as a shell would take it."""
    return printable(shlex.join(["python", script, *arguments]))


@dataclass(frozen=True)
class Job:
    """A run to be made."""

    run_id: str
    entry_script: str
    """Relative to the project's folder."""
    project: str
    """The name of the project's folder."""
    files: Mapping[str, Path]
    """Of the project, by names under its folder; ignored ones are none."""
    results: Path
    """Folder that gets a folder of the run's."""
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of the script's environment; values may be secret."""
    longest_s: float = LONGEST_S

    @property
    def place(self) -> Path:
        """Where its log and its outputs are once it has ended, however it did."""
        return self.results / self.run_id

    @property
    def command(self) -> str:
        """For people."""
        return command_text(self.entry_script, self.arguments)

    @property
    def told(self) -> dict[str, str]:
        """The script's own variables."""
        return {"PYTHONUNBUFFERED": "1", "AZUREML_RUN_ID": self.run_id, **self.variables}


@dataclass(frozen=True)
class Result:
    """A run that ended well."""

    place: Path
    seconds: float

    @property
    def outputs(self) -> Path:
        """What the script wrote into ./outputs."""
        return self.place / SAVED[0]


def failure(job: Job, exit_code: int | None, why: str, lines: list[str]) -> JobFailed:
    """With the end of the log and where all of it is."""
    tail = "\n".join(lines[-TAIL_LINES:]) or "(it wrote nothing)"
    return JobFailed(f"{why}; the end of its log ({job.place / LOG}):\n{tail}", exit_code)


def ended(job: Job, exit_code: int, lines: list[str]) -> JobFailed | None:
    """What an exit code means; None: well."""
    if exit_code == 0:
        return None
    signal_number = exit_code - 128 if exit_code > 128 else -exit_code if exit_code < 0 else 0
    by = f" (signal {signal_number}{', out of memory perhaps' * (signal_number == 9)})" if signal_number else ""
    return failure(job, exit_code, f"`{job.command}` ended with code {exit_code}{by}", lines)
