"""Reading environment definitions: Azure ML's environment object, inferenceconfig.json, conda files, requirement lists.

Shapes: azureml-core 1.61 (Environment, InferenceConfig; reference: azureml-v1.md 5.1 and 6).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits
from aks_inference_runtime.images.environment import curated, pip
from aks_inference_runtime.images.environment.conda import canonical_spec, spec_name
from aks_inference_runtime.images.environment.containerfile import with_default_base
from aks_inference_runtime.images.environment.docker import read_docker, read_login, read_reference
from aks_inference_runtime.images.environment.fields import Fields
from aks_inference_runtime.images.environment.model import CondaDefinition, EnvironmentDefinition
from aks_inference_runtime.images.findings import Findings
from aks_inference_runtime.images.reference import ImageReference

Pip = tuple[tuple[str, ...], tuple[str, ...]]


def read_file(
    path: Path, limits: ContextLimits = AZURE_ML, default_base: ImageReference | None = None
) -> EnvironmentDefinition:
    """A definition from a file: `.json` (inference configuration or environment object), `.yml`/`.yaml` (conda), else
    a list of requirements. `limits`: of a build context; `default_base`: where it names none. Raises InvalidInput with
    all that is wrong."""
    text = _text(path)
    if path.suffix == ".json":
        return _from_json(text, path, limits, default_base)
    findings = Findings()
    if path.suffix in {".yml", ".yaml"}:
        conda, listed = _conda_text(text, path, path.name, findings)
    else:
        conda = CondaDefinition()
        listed = pip.read_requirements(text.splitlines(), path.name, path.parent, findings)
    findings.raise_if_any()
    definition = EnvironmentDefinition(conda=conda, pip=listed[0], pip_options=listed[1])
    return with_default_base(definition, default_base)


def read_environment(
    raw: Mapping[str, object],
    base: Path,
    at: str = "environment",
    limits: ContextLimits = AZURE_ML,
    default_base: ImageReference | None = None,
) -> EnvironmentDefinition:
    """A definition from an environment object. `base`: what its file names are relative to; `limits`: of a build
    context; `default_base`: where it names none. Raises InvalidInput."""
    findings = Findings()
    definition = _environment(Fields(raw, at, findings), base, limits)
    findings.raise_if_any()
    return with_default_base(definition, default_base)


def _from_json(
    text: str, path: Path, limits: ContextLimits, default_base: ImageReference | None
) -> EnvironmentDefinition:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{path}: is not JSON: {error}; mend the file") from None
    if not isinstance(raw, dict):
        raise InvalidInput(f"{path}: is not an object; give an inference configuration or an environment object")
    if "python" in raw or "docker" in raw or "pipPackages" in raw or set(raw) <= {"name", "version"}:
        return read_environment(raw, path.parent, limits=limits, default_base=default_base)
    return read_inference_config(raw, path.parent, limits, default_base)


def read_inference_config(
    raw: Mapping[str, object], base: Path, limits: ContextLimits = AZURE_ML, default_base: ImageReference | None = None
) -> EnvironmentDefinition:
    """The environment of an inference configuration, as a service has it: with the scoring server. Its older keys are
    read where `environment` is not set; files are relative to `sourceDirectory`."""
    findings = Findings()
    fields = Fields(raw, "", findings)
    directory = fields.text("sourceDirectory")
    root = base / directory if directory else base
    nested = fields.part("environment")
    if nested.raw:
        definition = _environment(nested, root, limits)
        fields.ignore("condaFile", "extraDockerFileSteps", "extraDockerfileSteps", "baseImage", "baseImageRegistry")
    else:
        definition = _older_keys(fields, root)
    fields.ignore("entryScript", "description", "runtime", "enableGpu", "cudaVersion", "maxMb", "maxFiles")
    fields.done()
    findings.raise_if_any()
    return curated.with_server(with_default_base(definition, default_base))


def _older_keys(fields: Fields, root: Path) -> EnvironmentDefinition:
    conda_file, at = fields.text("condaFile"), fields.path("condaFile")
    conda, listed = _conda_file(root, conda_file, at, fields.findings) if conda_file else (CondaDefinition(), ((), ()))
    # Both spellings are in the documentation.
    steps_file = fields.text("extraDockerFileSteps") or fields.text("extraDockerfileSteps")
    steps = None
    if steps_file:
        steps = _referenced(root / steps_file, fields.path("extraDockerFileSteps"), steps_file, fields.findings)
    image, image_at = fields.text("baseImage"), fields.path("baseImage")
    base = read_reference(image, image_at, fields.findings) if image else None
    login = read_login(fields.part("baseImageRegistry"))
    return EnvironmentDefinition(
        base=base, docker_steps=steps, conda=conda, pip=listed[0], pip_options=listed[1], base_login=login
    )


def _environment(fields: Fields, base: Path, limits: ContextLimits) -> EnvironmentDefinition:
    findings = fields.findings
    name, version = fields.text("name"), fields.text("version")
    if set(fields.raw) <= {"name", "version"} and name:
        fields.ignore("name", "version")
        return curated.get(name, fields.path("name"), findings)
    if name and curated.is_reserved(name):
        rule = f"is the name of a curated environment ({', '.join(curated.RESERVED)}), which cannot be changed in place"
        findings.add(fields.path("name"), rule, "clone it under another name", name)
    cloned = fields.text("cloneOf")
    start = curated.get(cloned, fields.path("cloneOf"), findings) if cloned else EnvironmentDefinition()
    python, docker = fields.part("python"), fields.part("docker")
    short, at = fields.items("pipPackages")
    direct = pip.read_requirements(_lines(short, at, findings), at, base, findings)
    conda, listed = _python(python, base)
    options = pip.merged_options((start.pip_options, direct[1], listed[1]), at, findings)
    packages = _merge(start.pip, direct[0], listed[0])
    for one, other in pip.contradictions(packages):
        rule = f"asks for {one} and {other}, and no version is both"
        mend = "keep one of them, or list all without a clone" if cloned else "keep one of them"
        findings.add(at, rule, mend)
    definition = replace(
        start,
        name=name,
        version=version,
        conda=conda if conda.dependencies else start.conda,
        pip=packages,
        pip_options=options,
        user_managed=python.flag("userManagedDependencies"),
        interpreter_path=python.text("interpreterPath") or "python",
        environment_variables=_variables(fields.part("environmentVariables")),
    )
    python.done()
    definition = read_docker(docker, base, definition, limits)
    _refuse_others(fields)
    fields.ignore("inferencingStackVersion", "assetId")
    fields.done()
    return definition


def _merge(*lists: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({item for one in lists for item in one}))


def _python(fields: Fields, base: Path) -> tuple[CondaDefinition, Pip]:
    inline = fields.part("condaDependencies")
    file, at = fields.text("condaDependenciesFile"), fields.path("condaDependenciesFile")
    named = fields.text("baseCondaEnvironment")
    if named:
        rule = "names an environment inside the base image, which nobody can know here"
        fields.findings.add(fields.path("baseCondaEnvironment"), rule, "list the packages in condaDependencies", named)
    if inline.raw and file:
        fields.findings.add(at, "cannot stand beside condaDependencies", "keep one of the two", file)
    if inline.raw:
        return _conda(inline, base)
    return _conda_file(base, file, at, fields.findings) if file else (CondaDefinition(), ((), ()))


def _conda_file(base: Path, name: str, at: str, findings: Findings) -> tuple[CondaDefinition, Pip]:
    path = base / name
    text = _referenced(path, at, name, findings)
    return _conda_text(text, path, at, findings) if text is not None else (CondaDefinition(), ((), ()))


def _conda_text(text: str, path: Path, at: str, findings: Findings) -> tuple[CondaDefinition, Pip]:
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date that is none, or endless digits.
        findings.add(at, f"is not YAML: {' '.join(str(error).split())}", "mend the file", str(path.name))
        return CondaDefinition(), ((), ())
    if not isinstance(raw, dict):
        findings.add(at, "is not a conda definition", "give a file with `dependencies`", str(path.name))
        return CondaDefinition(), ((), ())
    return _conda(Fields(raw, at, findings), path.parent)


def _conda(fields: Fields, base: Path) -> tuple[CondaDefinition, Pip]:
    """conda's `pip` without a version says nothing: conda takes it as soon as there is a list under pip."""
    findings = fields.findings
    channels, at = fields.items("channels")
    texts = tuple(item.strip() for item in _lines(channels, at, findings))
    items, at = fields.items("dependencies")
    specs: set[str] = set()
    lists: list[Pip] = []
    for index, item in enumerate(items):
        place = f"{at}[{index}]"
        if isinstance(item, Mapping) and set(item) == {"pip"} and isinstance(item["pip"], list | tuple):
            lines = _lines(item["pip"], f"{place}.pip", findings)
            lists.append(pip.read_requirements(lines, f"{place}.pip", base, findings))
        elif isinstance(item, str):
            try:
                specs.add(canonical_spec(item))
            except ValueError as error:
                findings.add(place, str(error), "write a specification such as numpy=1.21", item)
        else:
            findings.add(place, "is neither a package nor a list under pip", "write a text, or {pip: […]}", item)
    fields.ignore("name", "prefix", "variables", "platforms")
    fields.done()
    specs.discard("pip")
    _one_python(specs, at, findings)
    packages = _merge(*(one for one, _ in lists))
    options = pip.merged_options([one for _, one in lists], at, findings)
    return CondaDefinition(texts, tuple(sorted(specs))), (packages, options)


def _one_python(specs: set[str], at: str, findings: Findings) -> None:
    pythons = sorted(spec for spec in specs if spec_name(spec) == "python")
    if len(pythons) > 1:
        findings.add(at, f"names Python {len(pythons)} times ({', '.join(pythons)})", "keep one")


def _variables(fields: Fields) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for key, value in fields.raw.items():
        if not key or "=" in key or "\0" in key:
            fields.findings.add(fields.path(key), "is not the name of a variable", "use letters, digits and _")
        elif isinstance(value, dict | list) or value is None:
            fields.findings.add(fields.path(key), "is not a text", "write a text in quotes")
        else:
            found[key] = value if isinstance(value, str) else json.dumps(value)
    return tuple(sorted(found.items()))


def _refuse_others(fields: Fields) -> None:
    for name, what in (("spark", "packages"), ("databricks", "")):
        part = fields.part(name)
        wanted = part.raw.get(what) if what else [v for v in part.raw.values() if isinstance(v, list | dict) and v]
        if wanted:
            fields.findings.add(part.at, "asks for packages that an image of Python does not have", "leave it out")
    r = fields.part("r")
    if any(r.raw.values()):
        rule = "asks for R, which an image of Python does not have"
        fields.findings.add(r.at, rule, "leave it out, or install R by docker.baseDockerfile or docker.buildContext")


def _lines(items: Sequence[object], at: str, findings: Findings) -> list[str]:
    for index, item in enumerate(items):
        if not isinstance(item, str):
            findings.add(f"{at}[{index}]", "must be a text", "write it in quotes", item)
    return [item if isinstance(item, str) else "" for item in items]


def _referenced(path: Path, at: str, given: str, findings: Findings) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        findings.add(at, f"cannot be read ({type(error).__name__}: {path})", "give the path of a text file", given)
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read ({type(error).__name__}); give the path of a text file") from None
