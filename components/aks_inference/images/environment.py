"""An environment that becomes an image: everything of Azure ML's object counts, as the images part reads it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel, to_snake

from aks_inference.findings import Finding, under
from aks_inference.findings import Path as PropertyPath
from aks_inference.service.environment import ReadEnvironment, variable_findings
from aks_inference.service.shared_memory import read_size
from aks_inference.values import is_late
from aks_inference_runtime.api.endpoint import Environment
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits

VARIABLES = "environment_variables"
_PART = re.compile(r"[^.\[\]]+|\[\d+\]")


def read_image_environment(
    raw: Mapping[str, object], base: Path, limits: ContextLimits = AZURE_ML
) -> tuple[ReadEnvironment, list[Finding]]:
    """The environment, and what is wrong; paths begin below it. `base`: what its files are relative to; `limits`: of a
    build context.

    Variables belong to the replicas, not to the image, and may be known only later.
    """
    from aks_inference_runtime.images.environment.read import read_environment

    given = _camel(raw)
    variables = given.pop(to_camel(VARIABLES), None) or {}
    findings = []
    if not isinstance(variables, Mapping):
        findings.append(Finding((VARIABLES,), "must be an object", "give names and texts"))
        variables = {}
    findings += variable_findings(variables)
    if (late := next(_late(given), None)) is not None:
        findings.append(Finding(late, "must be known at preview, not an output of a resource", "give a plain value"))
        return ReadEnvironment(), findings
    shared_memory, wrong = _container(given.get("docker"))
    findings += wrong
    try:
        definition = read_environment(given, base, limits=limits)
    except InvalidInput as error:
        return ReadEnvironment(), [*findings, *(_finding(line) for line in str(error).splitlines())]
    plain = {name: value for name, value in variables.items() if not is_late(value)}
    late_variables = {name: value for name, value in variables.items() if is_late(value)}
    environment = Environment(
        name=definition.name, pip_packages=definition.pip, environment_variables=plain_texts(plain)
    )
    content = image_content(given, base)
    return ReadEnvironment(environment, late_variables, (), content, shared_memory), findings


def _container(docker: object) -> tuple[int | None, list[Finding]]:
    """How the container is started, which the image does not hold: its shared memory."""
    if not isinstance(docker, Mapping):
        return None, []
    findings = []
    if docker.get("arguments"):
        rule = "are of `docker run`, which starts no pods"
        findings.append(Finding(("docker", "arguments"), rule, "leave them out", docker["arguments"]))
    text = docker.get("shmSize")
    if text is not None and not isinstance(text, str):
        return None, [*findings, Finding(("docker", "shm_size"), "must be a text", "write for example 2g", text)]
    size, wrong = read_size(text)
    return size, [*findings, *under(("docker", "shm_size"), wrong)]


def image_content(environment: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Of an Image's inputs: the environment, with the login of a private base apart, which is secret."""
    docker = dict(environment.get("docker") or {})
    login = docker.pop("baseImageRegistry", None)
    bare = {**environment, "docker": docker} if docker else {k: v for k, v in environment.items() if k != "docker"}
    filled = {name: value for name, value in (login or {}).items() if value}
    return {"environment": bare, "baseDirectory": str(base), "baseLogin": filled or None}


def older_keys(spec: Any, base: Path) -> tuple[dict[str, Any], list[Finding]]:  # noqa: ANN401 - an InferenceSpec
    """The environment object that inferenceconfig.json's keys of before environments mean."""
    findings = [
        Finding((name,), "is no part of an image here: CUDA comes with the base image", "name a @base_image with it")
        for name in ("enable_gpu", "cuda_version")
        if getattr(spec, name)
    ]
    if spec.runtime not in (None, "python"):
        findings.append(Finding(("runtime",), "is not an environment that can be built", "use python", spec.runtime))
    environment: dict[str, Any] = {}
    if spec.conda_file:
        environment["python"] = {"condaDependenciesFile": spec.conda_file}
    docker = {"baseImage": spec.base_image, "baseImageRegistry": spec.base_image_registry}
    if spec.extra_docker_file_steps:
        try:
            docker["extraDockerFileSteps"] = (base / spec.extra_docker_file_steps).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            rule = f"cannot be read ({type(error).__name__}: {base / spec.extra_docker_file_steps})"
            mend = "give the path of a file with Docker steps"
            findings.append(Finding(("extra_docker_file_steps",), rule, mend, spec.extra_docker_file_steps))
    filled = {name: value for name, value in docker.items() if value}
    return {**environment, **({"docker": filled} if filled else {})}, findings


def plain_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Variables as texts: numbers and switches as they are written."""
    return {name: value if isinstance(value, str) else str(value) for name, value in values.items()}


def _camel(raw: Mapping[str, object]) -> dict[str, Any]:
    """Names of properties in camelCase at every depth; names of variables stay."""

    def convert(value: object) -> object:
        if isinstance(value, Mapping):
            return _camel(value)
        return [convert(item) for item in value] if isinstance(value, list | tuple) else value

    return {
        to_camel(name) if "_" in name else name: value if to_snake(name) == VARIABLES else convert(value)
        for name, value in raw.items()
    }


def _late(value: object, path: PropertyPath = ()) -> Iterator[PropertyPath]:
    if is_late(value):
        yield path
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _late(inner, (*path, to_snake(str(name))))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _late(inner, (*path, index))


def _finding(line: str) -> Finding:
    """`environment.docker.baseImage: 'x' is no …; mend` as a finding of the environment."""
    where, _, text = line.partition(": ")
    rule, _, mend = text.rpartition("; ")
    parts = [int(part[1:-1]) if part.startswith("[") else to_snake(part) for part in _PART.findall(where)]
    return Finding(tuple(parts[1:]), rule or text, mend if rule else "")
