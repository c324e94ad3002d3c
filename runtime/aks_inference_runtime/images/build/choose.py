"""Which builder makes an image: as configured, else by what the definition needs and what this machine has. Pure."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.environment.containerfile import needs_conda
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.reference import ImageReference


class Builder(StrEnum):
    """Ways to build."""

    AUTO = "auto"
    ASSEMBLE = "assemble"
    BUILDAH = "buildah"
    PODMAN = "podman"
    BUILDX = "buildx"
    ACR_TASKS = "acr-tasks"


PROGRAMS = {Builder.BUILDAH: "buildah", Builder.PODMAN: "podman", Builder.BUILDX: "docker"}
"""In the order of preference: those without a daemon first."""


NOT_AZURE = "the registry is none of Azure's (…azurecr.io); for another name of one give its resource id"


@dataclass(frozen=True)
class Choice:
    """A builder and why."""

    builder: Builder
    reason: str


def needs_tool(definition: EnvironmentDefinition) -> str:
    """Why our own builder cannot make it; empty when it can."""
    if not isinstance(definition.base, ImageReference):
        return "its base is a Dockerfile or a build context"
    if definition.docker_steps:
        return "it has Docker steps of its own"
    if definition.user_managed:
        return ""
    return "it has conda packages" if needs_conda(definition) else ""


def choose(
    definition: EnvironmentDefinition,
    wanted: Builder = Builder.AUTO,
    which: Callable[[str], str | None] = shutil.which,
    no_tasks: str = NOT_AZURE,
) -> Choice:
    """The builder. Raises InvalidInput when the wanted one cannot do it or none is there.

    `no_tasks`: why ACR Tasks cannot build for the registry; empty when they can.
    """
    why = needs_tool(definition)
    if wanted == Builder.ASSEMBLE and why:
        raise InvalidInput(
            f"builder: 'assemble' puts wheels on a base image, but {why}; choose buildah, podman, buildx or acr-tasks"
        )
    if wanted == Builder.ACR_TASKS:
        if no_tasks:
            raise InvalidInput(f"builder: 'acr-tasks' builds in Azure, but {no_tasks}; or choose another builder")
        return Choice(wanted, "as configured")
    if wanted in PROGRAMS:
        program = PROGRAMS[wanted]
        if which(program) is None:
            raise InvalidInput(f"builder: {wanted.value!r} needs the program {program}; install it or choose another")
        return Choice(wanted, "as configured")
    if not why:
        return Choice(Builder.ASSEMBLE, "as configured" if wanted == Builder.ASSEMBLE else "wheels on a base image")
    for builder, program in PROGRAMS.items():
        if which(program) is not None:
            return Choice(builder, why)
    if not no_tasks:
        return Choice(Builder.ACR_TASKS, f"{why}, and no build tool is here")
    programs = ", ".join(PROGRAMS.values())
    raise InvalidInput(
        f"builder: the environment needs a build tool, as {why}, and none is there; install one of {programs}, "
        "or build with acr-tasks in a registry of Azure's"
    )
