"""The Python environment of a version, from Azure ML's environment object or its short form.

Taken: pip packages, conda dependencies that are only Python and pip, environment variables. What only an image can
give (docker settings, Spark, another interpreter) is refused on the local target by name, never ignored
(reference: azureml-v1.md 5.1 and 6).
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aks_inference.findings import Finding, Severity, under
from aks_inference.findings import Path as PropertyPath
from aks_inference.names import ENVIRONMENT_RESERVED
from aks_inference.packages import completed, question
from aks_inference.service.shared_memory import read_size
from aks_inference.values import Anys, Flag, Leaves, Object, Part, Spec, Text, Texts, is_late, read
from aks_inference_runtime.api.endpoint import Environment
from aks_inference_runtime.api.variables import variable_problem

DEFAULT_BASE_IMAGES = "mcr.microsoft.com/azureml/"
"""Azure ML's own images: an operating system and conda, nothing that a script would miss in a process."""
LOCAL_ONLY = "the local target runs processes of this machine, not images"
SET_BY_RUNTIME = {
    "WORKER_COUNT": "@replica_max_concurrent_requests",
    "WORKER_TIMEOUT": "@scoring_timeout_ms",
    "SCORING_TIMEOUT_MS": "@scoring_timeout_ms",
    "SERVER_PORT": "@port of the service",
    "HEALTH_PORT": "the probe settings",
    "SEPERATE_HEALTH_ENDPOINT": "the probe settings",
    "AML_APP_ROOT": "AML_APP_ROOT as the script finds it",
    "AZUREML_MODEL_DIR": "@models",
    "SERVICE_NAME": "the name of the service",
    "SERVICE_PATH_PREFIX": "the name of the service",
    "AML_APP_INSIGHTS_ENABLED": "@enable_app_insights",
}
"""Variables of the scoring server that the runtime sets itself (serving depends on them)."""
_VARIABLE = re.compile(r"(?!\.\.|\.\Z)[-._A-Za-z][-._A-Za-z0-9]*")
"""As Kubernetes has it; digits at the front, spaces and other alphabets no shell takes either."""


class EnvironmentSpec(Spec):
    """Azure ML's environment object, and `pip_packages`, its short form."""

    name: Text | None = None
    version: Text | None = None
    clone_of: Text | None = None
    pip_packages: Texts = ()
    environment_variables: Leaves
    python: Part
    docker: Part
    spark: Part
    databricks: Part
    r: Part
    inferencing_stack_version: Text | None = None
    asset_id: Text | None = None


class PythonSpec(Spec):
    """The `python` part."""

    user_managed_dependencies: Flag = False
    interpreter_path: Text = "python"
    conda_dependencies_file: Text | None = None
    base_conda_environment: Text | None = None
    conda_dependencies: Object | None = None


class CondaSpec(Spec):
    """A conda definition."""

    name: Text | None = None
    channels: Texts = ()
    dependencies: Anys = ()


class DockerSpec(Spec):
    """The `docker` part."""

    enabled: Flag = True
    base_image: Text | None = None
    base_dockerfile: Text | None = None
    build_context: Object | None = None
    shared_volumes: Flag = True
    shm_size: Text | None = None
    arguments: Texts = ()
    base_image_registry: Part
    platform: Part


class PlatformSpec(Spec):
    """The `docker.platform` part."""

    os: Text = "Linux"
    architecture: Text = "amd64"


class SparkSpec(Spec):
    """The `spark` part."""

    repositories: Anys = ()
    packages: Anys = ()
    precache_packages: Flag = True


class DatabricksSpec(Spec):
    """The `databricks` part."""

    maven_libraries: Anys = ()
    pypi_libraries: Anys = ()
    rcran_libraries: Anys = ()
    jar_libraries: Anys = ()
    egg_libraries: Anys = ()


PIP_OPTIONS = ("--index-url", "--extra-index-url", "--find-links", "--no-index", "--pre", "--prefer-binary")
"""Options of a requirements file that mean the same wherever they are read; no paths of other files."""


@dataclass(frozen=True)
class ReadEnvironment:
    """An environment; variables known only later stand beside it."""

    environment: Environment = field(default_factory=Environment)
    late_variables: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    image: Mapping[str, Any] | None = None
    """Of an environment that becomes an image: what the image holds, as an Image's inputs."""
    shared_memory: int | None = None
    """MiB, of pods; None: the node's own."""


def read_environment(raw: Mapping[str, object], base: Path) -> tuple[ReadEnvironment, list[Finding]]:
    """The environment, and what is wrong with it. `base`: what a conda file's path is relative to."""
    got = read(EnvironmentSpec, raw)
    spec, findings = got.spec, list(got.findings)
    curated, wrong = _curated(raw, spec)
    findings += wrong
    if spec.name and spec.name.startswith(ENVIRONMENT_RESERVED) and not _name_alone(raw):
        rule = f"begins with a reserved prefix ({', '.join(ENVIRONMENT_RESERVED)})"
        findings.append(Finding(("name",), rule, "choose another name; the content is what counts", spec.name))
    packages, python_findings = _python_packages(spec.python, base)
    findings += under(("python",), python_findings)
    notes, shared_memory, docker_findings = _docker(spec.docker)
    findings += under(("docker",), docker_findings)
    findings += _other_parts(spec)
    for index, package in enumerate(spec.pip_packages):
        findings += _requirement(("pip_packages", index), package)
    findings += variable_findings(spec.environment_variables)
    plain = {key: value for key, value in spec.environment_variables.items() if not is_late(value)}
    late = {key: value for key, value in spec.environment_variables.items() if is_late(value)}
    all_packages = tuple(dict.fromkeys([*curated, *spec.pip_packages, *packages]))
    if not any(finding.severity is Severity.ERROR for finding in findings):
        findings += _contradictions(all_packages, cloned=bool(curated))
    environment = Environment(name=spec.name, pip_packages=all_packages, environment_variables=plain)
    read_one = ReadEnvironment(environment, late, tuple(notes), shared_memory=shared_memory)
    return read_one, completed(findings, all_packages)


def _contradictions(packages: Sequence[str], *, cloned: bool) -> Iterator[Finding]:
    """Of packages each of which is sound."""
    named = [package for package in packages if not package.startswith("-")]
    if len(named) > 1:
        from aks_inference_runtime.images.environment.pip import contradictions

        mend = "keep one of them, or list all without a clone" if cloned else "keep one of them"
        for one, other in contradictions(named):
            yield Finding(("pip_packages",), f"asks for {one} and {other}, and no version is both", mend)


def _name_alone(raw: Mapping[str, object]) -> bool:
    return set(raw) <= {"name", "version"}


def _curated(raw: Mapping[str, object], spec: EnvironmentSpec) -> tuple[tuple[str, ...], list[Finding]]:
    """The packages of a curated environment that is named alone, or cloned."""
    reserved = spec.name is not None and spec.name.startswith(ENVIRONMENT_RESERVED)
    name = spec.name if reserved and _name_alone(raw) else spec.clone_of
    if name is None:
        return (), []
    from aks_inference_runtime.images.environment import curated

    if name not in curated.NAMES:
        mend = f"choose one of {', '.join(curated.NAMES)}, or list packages"
        at = "clone_of" if spec.clone_of else "name"
        return (), [Finding((at,), "is not a curated environment", mend, name)]
    return curated.packages(name), []


def conda_file(path: Path, given: str) -> tuple[list[str], list[Finding]]:
    """The pip packages of a conda definition file. Their questions have no options yet."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        return [], [Finding((), f"is not YAML: {error}", "mend the file", given)]
    except (OSError, ValueError):
        # The second: a path that none can be.
        return [], [Finding((), f"does not exist ({path})", "give the path of a conda definition", given)]
    import yaml

    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date that is none, or endless digits.
        return [], [Finding((), f"is not YAML: {error}", "mend the file", given)]
    if not isinstance(raw, Mapping):
        return [], [Finding((), "is not a conda definition", "give a file with `dependencies`", given)]
    return _conda(raw)


def _python_packages(raw: Mapping[str, object], base: Path) -> tuple[list[str], list[Finding]]:
    got = read(PythonSpec, raw)
    spec, findings = got.spec, list(got.findings)
    if spec.user_managed_dependencies:
        rule = f"true means that the image holds the packages; {LOCAL_ONLY}"
        findings.append(Finding(("user_managed_dependencies",), rule, "list the packages in @pip_packages"))
    if spec.interpreter_path != "python":
        rule = f"{LOCAL_ONLY}; the interpreter is this one"
        findings.append(Finding(("interpreter_path",), rule, "leave it out", spec.interpreter_path))
    if spec.base_conda_environment:
        path: PropertyPath = ("base_conda_environment",)
        findings.append(Finding(path, LOCAL_ONLY, "list the packages instead", spec.base_conda_environment))
    packages: list[str] = []
    if spec.conda_dependencies_file:
        given = spec.conda_dependencies_file
        packages, wrong = conda_file(Path(os.path.normpath(base / given)), given)
        findings += under(("conda_dependencies_file",), wrong)
    if spec.conda_dependencies is not None:
        listed, wrong = _conda(spec.conda_dependencies)
        packages += listed
        findings += under(("conda_dependencies",), wrong)
    return packages, findings


def _conda(raw: Mapping[str, object]) -> tuple[list[str], list[Finding]]:
    got = read(CondaSpec, raw)
    findings = list(got.findings)
    packages: list[str] = []
    for index, item in enumerate(got.spec.dependencies):
        at: PropertyPath = ("dependencies", index)
        if isinstance(item, str):
            findings += _conda_package(at, item)
        elif isinstance(item, Mapping) and set(item) == {"pip"} and isinstance(item["pip"], list | tuple):
            for number, package in enumerate(item["pip"]):
                findings += _requirement((*at, "pip", number), package)
                packages += [package] if isinstance(package, str) else []
        else:
            rule = "is neither the name of a package nor a list under pip"
            findings.append(Finding(at, rule, "write a text, or {pip: [...]}", item))
    return packages, findings


def _conda_package(at: PropertyPath, item: str) -> Iterator[Finding]:
    name, _, wanted = (part.strip(" =<>~!") for part in item.partition("="))
    version = wanted.replace("*", "").strip(". =")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if name == "pip":
        return
    if name == "python":
        if version and not f"{version}.".startswith(f"{here}.") and not f"{here}.".startswith(f"{version}."):
            rule = f"Python {version}; the local target runs this machine's Python {here}"
            yield Finding(at, rule, f"leave the version out, or write python={here}", item)
        return
    rule = "is a conda package; the local target installs packages of pip only"
    yield Finding(at, rule, f"move it under pip, for example {name}{'==' + version if version else ''}", item)


def _requirement(at: PropertyPath, package: object) -> Iterator[Finding]:
    # Loaded here, as yaml above: most declarations name an image and neither list packages nor have a conda file.
    from packaging.requirements import InvalidRequirement, Requirement

    mend = "write a requirement such as scikit-learn==1.9.0"
    if not isinstance(package, str):
        yield Finding(at, "must be a text", mend, package)
    elif package.startswith("-"):
        if package.split("=")[0].split()[0] not in PIP_OPTIONS:
            rule = "is not an option for every environment"
            yield Finding(at, rule, f"known are {', '.join(PIP_OPTIONS)}", package)
    else:
        try:
            requirement = Requirement(package)
        except InvalidRequirement as error:
            yield Finding(at, f"is not a requirement: {str(error).splitlines()[0]}", mend, package)
        else:
            yield from question(at, requirement, package)


def _docker(raw: Mapping[str, object]) -> tuple[list[str], int | None, list[Finding]]:
    """Notes, the shared memory of pods in MiB, and what is wrong."""
    got = read(DockerSpec, raw)
    spec, findings = got.spec, list(got.findings)
    notes = []
    image = spec.base_image or ""
    if image.startswith(DEFAULT_BASE_IMAGES) and "cuda" not in image:
        notes.append(f"base image {image}: not used, {LOCAL_ONLY}")
    elif image:
        findings.append(Finding(("base_image",), LOCAL_ONLY, "leave it out", image))
    for name in ("base_dockerfile", "build_context", "arguments"):
        if getattr(spec, name):
            findings.append(Finding((name,), LOCAL_ONLY, "leave it out"))
    if any(spec.base_image_registry.values()):
        findings.append(Finding(("base_image_registry",), LOCAL_ONLY, "leave it out"))
    platform = read(PlatformSpec, spec.platform)
    findings += under(("platform",), platform.findings)
    if platform.spec.os.lower() != "linux":
        rule = "is not a system that replicas run on"
        findings.append(Finding(("platform", "os"), rule, "write Linux, or leave it out", platform.spec.os))
    shared_memory, wrong = read_size(spec.shm_size)
    return notes, shared_memory, [*findings, *under(("shm_size",), wrong)]


def _other_parts(spec: EnvironmentSpec) -> Iterator[Finding]:
    """What a process has not. Serialised environments carry every part, mostly empty."""
    parts: tuple[tuple[str, str, type[Spec]], ...] = (
        ("spark", "Spark packages", SparkSpec),
        ("databricks", "Databricks libraries", DatabricksSpec),
    )
    asked = [("r", "R packages")] if any(spec.r.values()) else []
    for name, what, kind in parts:
        got = read(kind, getattr(spec, name))
        yield from under((name,), got.findings)
        if any(value for key, value in got.spec if isinstance(value, tuple) and key != "repositories"):
            asked.append((name, what))
    for name, what in asked:
        yield Finding((name,), f"asks for {what}; the local target has none", "leave it out")


def variable_findings(variables: Mapping[str, object]) -> Iterator[Finding]:
    """Names that are none, those that the runtime sets itself, and what no process can be given."""
    for name, value in variables.items():
        at: PropertyPath = ("environment_variables", name)
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            yield Finding(at, "is not the name of a variable", "use letters, digits and _")
        elif name in SET_BY_RUNTIME:
            yield Finding(at, "is set by the runtime", f"leave it out; use {SET_BY_RUNTIME[name]}")
        elif isinstance(value, str) and (problem := variable_problem(name, value)):
            yield Finding(at, *problem)
