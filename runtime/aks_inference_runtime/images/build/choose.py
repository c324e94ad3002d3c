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


PROGRAMS = {Builder.BUILDAH: "buildah", Builder.PODMAN: "podman", Builder.BUILDX: "docker"}
"""In the order of preference: those without a daemon first."""


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
) -> Choice:
    """The builder. Raises InvalidInput when the wanted one cannot do it or none is there."""
    why = needs_tool(definition)
    if wanted == Builder.ASSEMBLE and why:
        raise InvalidInput(
            f"builder: 'assemble' puts wheels on a base image, but {why}; choose buildah, podman or buildx"
        )
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
    programs = ", ".join(PROGRAMS.values())
    raise InvalidInput(
        f"builder: the environment needs a build tool, as {why}, and none is there; install one of {programs}"
    )
