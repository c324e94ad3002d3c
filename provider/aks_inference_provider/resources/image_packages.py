"""Whether the packages of an image that will be built are to be had, as pip would find them."""

import os
import sys
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from aks_inference.packages import is_off
from aks_inference_provider.fields import Failure
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.packages.kept import Kept, kept_folder
from aks_inference_runtime.packages.lookup import Lookups, Question, Unasked
from aks_inference_runtime.packages.settings import machine_settings, with_options
from aks_inference_runtime.packages.verdict import Refusal


def missing_packages(definition: EnvironmentDefinition) -> tuple[list[Failure], list[str]]:
    """What would not be found, and which packages could not be asked for. Takes seconds at most.

    Only for images whose wheels are chosen on this machine: a build tool asks from within its container.
    """
    if is_off() or definition.user_managed:
        return [], []
    # The image has an interpreter of its own, so that any release counts; pip's settings are those of this environment.
    settings = with_options(machine_settings(os.environ, Path(sys.prefix)), definition.pip_options, os.environ)
    asked = [Question(name, settings, here=False) for line in definition.pip if (name := _by_name(line))]
    lookups = Lookups(Kept(kept_folder()))
    for question in asked:
        lookups.ask(question)
    failures, notes = [], []
    for question in asked:
        answer = lookups.answer(question)
        if isinstance(answer, Refusal):
            failures.append(Failure("environment", f"{question.requirement!r}: {answer.rule}; {answer.mend}"))
        elif isinstance(answer, Unasked):
            notes.append(f"not checked whether {answer.name} is to be had ({answer.place} {answer.reason})")
    return failures, notes


def _by_name(line: str) -> str | None:
    """A canonical requirement without its hashes; None where it depends on the image, or names its source."""
    text = line.partition(" --hash=")[0]
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None
    return None if requirement.url or requirement.marker else text
