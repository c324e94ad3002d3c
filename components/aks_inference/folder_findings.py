"""What is wrong with a folder that is named for being written to, or for being packed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from aks_inference.findings import Finding
from aks_inference.findings import Path as PropertyPath
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.state_folder import Problem


def folder_findings(
    at: PropertyPath, folder: Path, given: str, judge: Callable[[Path], Problem | None]
) -> Iterator[Finding]:
    """At most one. `judge`: a rule of `state_folder`."""
    try:
        problem = judge(folder)
    except OSError as error:
        problem = f"cannot be looked at: {error.strerror}", "give another folder"
    except ValueError:
        problem = None  # Characters that no path has are found wherever they stand.
    if problem:
        yield Finding(at, *problem, given)


def context_findings(at: PropertyPath, error: InvalidInput) -> Iterator[Finding]:
    """What `context_files` says of a folder, each line of it."""
    for line in str(error).splitlines():
        rule, _, mend = line.rpartition("; ")
        yield Finding(at, rule or line, re.sub(r"\b(?=max_(mb|files)\b)", "@", mend) if rule else "")
