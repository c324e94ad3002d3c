"""What is wrong with a folder that is named for being written to."""

from collections.abc import Callable, Iterator
from pathlib import Path

from aks_inference.findings import Finding
from aks_inference.findings import Path as PropertyPath
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
