"""What is to be asked of pip's index about an environment.

Reading it leaves questions among its findings, so that they get the right path; a component takes them out
(`package_index`). Without Pulumi: files are checked without it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aks_inference.findings import Finding, Path, Severity

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SWITCH = "AKS_INFERENCE_PACKAGE_CHECK"
"""`off`: no index is asked."""


@dataclass(frozen=True)
class Wanted:
    """A requirement of an environment of this machine."""

    requirement: str
    options: tuple[str, ...] = ()
    """Lines such as `--extra-index-url https://…` beside it."""


def is_off() -> bool:
    """Whether no index is to be asked."""
    return os.environ.get(SWITCH, "").lower() == "off"


def question(at: Path, requirement: "Requirement", written: str) -> Iterator[Finding]:
    """What is to be asked about a valid requirement, if anything."""
    if requirement.url is not None:
        return
    from packaging.markers import UndefinedEnvironmentName

    try:
        if requirement.marker is not None and not requirement.marker.evaluate():
            return
    except UndefinedEnvironmentName:
        return
    yield Finding(at, "", "", Wanted(written), Severity.ASKED)


def completed(findings: Iterable[Finding], packages: Sequence[str]) -> list[Finding]:
    """The findings of an environment with all its packages: questions get its options, and go where it is built."""
    found = list(findings)
    if not any(finding.severity is Severity.ASKED for finding in found):
        return found
    if is_off() or _is_built(packages):
        return without(found)
    options = tuple(package for package in packages if package.startswith("-"))
    return [replace(f, value=replace(f.value, options=options)) if isinstance(f.value, Wanted) else f for f in found]


def without(findings: Iterable[Finding]) -> list[Finding]:
    """The findings without questions."""
    return [finding for finding in findings if finding.severity is not Severity.ASKED]


def _is_built(packages: Sequence[str]) -> bool:
    from aks_inference_runtime.packages.built import is_built

    return is_built(packages)
