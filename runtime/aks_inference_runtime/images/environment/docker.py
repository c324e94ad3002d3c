"""The `docker` part of an environment object: base image, Dockerfile or build context, private registry, platform."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits
from aks_inference_runtime.images.context import content_digest
from aks_inference_runtime.images.environment.fields import Fields
from aks_inference_runtime.images.environment.model import (
    BuildContext,
    Dockerfile,
    EnvironmentDefinition,
    Platform,
    RegistryLogin,
)
from aks_inference_runtime.images.findings import Findings
from aks_inference_runtime.images.reference import ImageReference

ARCHITECTURES = ("amd64", "arm64")
FILE_PREFIX = "file:"


def read_docker(
    fields: Fields, root: Path, start: EnvironmentDefinition, limits: ContextLimits = AZURE_ML
) -> EnvironmentDefinition:
    """The definition with what the `docker` part says. `root`: what folders and files are relative to; `limits`: of a
    build context."""
    image, dockerfile, context = fields.text("baseImage"), fields.text("baseDockerfile"), fields.part("buildContext")
    given = [name for name, value in _choices(image, dockerfile, context.raw) if value]
    base = start.base
    if len(given) > 1:
        fields.findings.add(fields.at, f"gives {' and '.join(given)}, and an image has one base", "keep one of them")
    elif image:
        base = read_reference(image, fields.path("baseImage"), fields.findings)
    elif dockerfile:
        base = Dockerfile(_text(dockerfile, root, fields))
    elif context.raw:
        base = _context(context, root, limits)
    platform = fields.part("platform")
    system = (platform.text("os") or "linux").lower()
    architecture = (platform.text("architecture") or "amd64").lower()
    if system != "linux":
        platform.findings.add(platform.path("os"), "is not a system that images are built for", "write Linux", system)
    if architecture not in ARCHITECTURES:
        rule = "is not an architecture that images are built for"
        platform.findings.add(platform.path("architecture"), rule, f"write {' or '.join(ARCHITECTURES)}", architecture)
    platform.done()
    login = read_login(fields.part("baseImageRegistry"))
    steps = fields.text("extraDockerFileSteps") or start.docker_steps
    # How a container is started, not what an image holds.
    fields.ignore("enabled", "sharedVolumes", "shmSize", "arguments")
    fields.done()
    return replace(start, base=base, docker_steps=steps, platform=Platform(system, architecture), base_login=login)


def _choices(image: str | None, dockerfile: str | None, context: object) -> Sequence[tuple[str, object]]:
    return (("baseImage", image), ("baseDockerfile", dockerfile), ("buildContext", context))


def read_reference(text: str, at: str, findings: Findings) -> ImageReference | None:
    """An image's name; a problem when it is none."""
    try:
        return ImageReference.parse(text)
    except InvalidInput as error:
        findings.add(
            at,
            f"is not {str(error).partition(' is not ')[2].partition(';')[0]}",
            "write for example python:3.11-slim",
            text,
        )
        return None


def read_login(fields: Fields) -> RegistryLogin | None:
    """Address, user name and password of a private registry: all three or none."""
    address, username, password = fields.text("address"), fields.text("username"), fields.text("password")
    fields.ignore("registryIdentity")
    fields.done()
    if address and username and password:
        return RegistryLogin(address.removeprefix("https://").rstrip("/"), username, password)
    if address or username or password:
        names = zip(("address", "username", "password"), (address, username, password), strict=True)
        missing = ", ".join(name for name, value in names if not value)
        fields.findings.add(fields.at, f"lacks {missing}", "give address, username and password together")
    return None


def _text(given: str, root: Path, fields: Fields) -> str:
    """A Dockerfile's text, or the file that holds it: one line without an instruction is a name."""
    first = given.strip()
    if "\n" in first or first.upper().startswith(("FROM ", "ARG ", "#")):
        return given
    path = root / first.removeprefix(FILE_PREFIX)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        rule = f"is neither the text of a Dockerfile nor a file ({type(error).__name__}: {path})"
        fields.findings.add(fields.path("baseDockerfile"), rule, "give one of the two", given)
        return ""


def _context(fields: Fields, root: Path, limits: ContextLimits) -> BuildContext | None:
    kind, location = fields.text("locationType"), fields.text("location")
    dockerfile = PurePosixPath(fields.text("dockerfilePath") or "Dockerfile").as_posix()
    fields.done()
    if not location:
        fields.findings.add(fields.path("location"), "is missing", "give a folder or the URL of a git repository")
        return None
    if kind in {"git", "storageAccount"}:
        return BuildContext(location, dockerfile)
    folder = root / location
    if kind not in {None, "local"}:
        rule = "is not a kind of location"
        fields.findings.add(fields.path("locationType"), rule, "write git, storageAccount or local", kind)
        return None
    if not (folder / dockerfile).is_file():
        rule = f"has no file {dockerfile}"
        fields.findings.add(fields.path("location"), rule, "give a folder with a Dockerfile", location)
        return None
    try:
        return BuildContext(location, dockerfile, folder, content_digest(folder, limits, dockerfile))
    except InvalidInput as error:
        fields.findings.add(fields.path("location"), str(error), "mend the folder", location)
        return None
