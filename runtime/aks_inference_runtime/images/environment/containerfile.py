"""The generated build file, for builders with a build tool: the same environment as our own builder makes."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from aks_inference_runtime.images.environment.conda import spec_name, spec_version
from aks_inference_runtime.images.environment.key import image_key
from aks_inference_runtime.images.environment.model import BuildContext, Dockerfile, EnvironmentDefinition
from aks_inference_runtime.images.reference import ImageReference

VENV = "/opt/aks-inference/environment"
FILES = "/opt/aks-inference"
APP_ROOT = "/var/azureml-app"
"""Where Azure ML's images keep the application (reference: azureml-v1.md 4.7)."""
USER = "10001:10001"
"""A user without a name, home or rights: numeric, so that Kubernetes can check `runAsNonRoot`."""
KEY_LABEL = "dev.aks-inference.image-key"
DEFAULT_PYTHON = "3.11"
CONDA_BASE = "docker.io/condaforge/miniforge3:25.3.0-3"
CONDA_FILE = f"{FILES}/environment.yml"
FOLDER = ".aks-inference"
"""Where the generated files are in the build context."""


@dataclass(frozen=True)
class BuildFiles:
    """What a build tool gets: `Containerfile` and what it copies, by names in the build context."""

    containerfile: str
    files: Mapping[str, str]


def python_version(definition: EnvironmentDefinition) -> str | None:
    """The Python version that the definition names (`3.10`, `3.10.18`), None when it names none exactly."""
    for spec in definition.conda.dependencies:
        version = spec_version(spec).lstrip("=")
        if spec_name(spec) == "python" and version and not set(version) & set("<>!~,|*"):
            return version
    return None


def needs_conda(definition: EnvironmentDefinition) -> bool:
    """Whether something is installed that only conda has: more than an interpreter."""
    return any(spec_name(spec) != "python" or "::" in spec for spec in definition.conda.dependencies)


def with_default_base(definition: EnvironmentDefinition, small: ImageReference | None = None) -> EnvironmentDefinition:
    """The definition with a base: a small Python image (`small`, where one is given), or one with conda where conda is
    needed."""
    if definition.base is not None:
        return definition
    if small is not None and not needs_conda(definition):
        return replace(definition, base=small)
    if needs_conda(definition) and not definition.user_managed:
        return replace(definition, base=ImageReference.parse(CONDA_BASE))
    minor = ".".join((python_version(definition) or DEFAULT_PYTHON).split(".")[:2])
    return replace(definition, base=ImageReference.parse(f"docker.io/library/python:{minor}-slim-bookworm"))


def build_files(definition: EnvironmentDefinition, pins: Mapping[str, str] | None = None) -> BuildFiles:
    """The build file of a definition. `pins`: digests of base images, by reference."""
    files: dict[str, str] = {}
    lines = [*_base(definition, pins or {}), "USER 0:0"]
    if definition.docker_steps:
        lines.append(definition.docker_steps.strip("\n"))
    installs = not definition.user_managed and (definition.conda.dependencies or definition.pip)
    if installs and definition.conda.dependencies and (needs_conda(definition) or not _is_python_image(definition)):
        files[f"{FOLDER}/environment.yml"] = conda_file(definition)
        minor = None if needs_conda(definition) else ".".join((python_version(definition) or "3").split(".")[:2])
        if minor:
            files[f"{FOLDER}/requirements.txt"] = requirements_file(definition)
        lines += _conda_steps(minor)
    elif installs:
        files[f"{FOLDER}/requirements.txt"] = requirements_file(definition)
        lines += _pip_steps()
    if installs:
        lines.append(f'ENV PATH="{VENV}/bin:$PATH" VIRTUAL_ENV="{VENV}"')
    lines += [
        f'LABEL {KEY_LABEL}="{image_key(definition, pins)}"',
        f"ENV AML_APP_ROOT={APP_ROOT} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
        f"WORKDIR {APP_ROOT}",
        f"USER {USER}",
    ]
    return BuildFiles("\n".join(lines) + "\n", files)


def requirements_file(definition: EnvironmentDefinition) -> str:
    """A requirements file of the canonical requirements."""
    return "".join(f"{line}\n" for line in (*definition.pip_options, *definition.pip))


def conda_file(definition: EnvironmentDefinition) -> str:
    """A conda environment file of the canonical definition. JSON is YAML, and leaves nothing to quoting."""
    dependencies: list[object] = list(definition.conda.dependencies)
    if definition.pip:
        dependencies += ["pip", {"pip": [*definition.pip_options, *definition.pip]}]
    # Without channels conda would ask the defaults, which have terms of their own.
    channels = list(definition.conda.channels) or ["conda-forge"]
    return json.dumps({"channels": channels, "dependencies": dependencies}, indent=2) + "\n"


def _is_python_image(definition: EnvironmentDefinition) -> bool:
    return isinstance(definition.base, ImageReference) and definition.base.repository == "library/python"


def _base(definition: EnvironmentDefinition, pins: Mapping[str, str]) -> list[str]:
    base = definition.base
    if isinstance(base, Dockerfile):
        return [base.text.strip("\n")]
    if isinstance(base, BuildContext):
        text = (base.folder / base.dockerfile_path).read_text("utf-8") if base.folder else ""
        return [text.strip("\n")]
    if base is None:
        base = with_default_base(definition).base
    pinned = base.at(pins[str(base)]) if isinstance(base, ImageReference) and str(base) in pins else base
    return [f"FROM --platform={definition.platform} {pinned}"]


def _conda_steps(minor: str | None) -> list[str]:
    """With conda, mamba or micromamba, whichever the base has. `minor`: only this Python and pip packages are wanted,
    so that a base without any of them will do when it has that Python."""
    without = "echo 'the base image has no conda or mamba on PATH' >&2; exit 1"
    if minor:
        # Not `&&`: a list that fails before its last command does not end a shell with `set -e`.
        without = f"python{minor} -m venv {VENV}; {_pip_install()}"
    run = (
        "set -e; tool=; for one in micromamba mamba conda; do "
        "if command -v $one >/dev/null; then tool=$one; break; fi; done; "
        f'if [ -z "$tool" ]; then {without}; '
        f'elif [ "$tool" = micromamba ]; then micromamba create --yes --prefix {VENV} --file {CONDA_FILE}; '
        f"else $tool env create --prefix {VENV} --file {CONDA_FILE}; fi; "
        'if [ -n "$tool" ]; then $tool clean --all --yes; fi'
    )
    return [f"COPY {FOLDER}/ {FILES}/", f"RUN {run}"]


def _pip_steps() -> list[str]:
    return [f"COPY {FOLDER}/ {FILES}/", f"RUN python3 -m venv {VENV} && {_pip_install()}"]


def _pip_install() -> str:
    listed = f"{FILES}/requirements.txt"
    return shlex.join([f"{VENV}/bin/python", "-m", "pip", "install", "--no-cache-dir", "--requirement", listed])
