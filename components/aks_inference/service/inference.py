"""The inference configuration: an object, or an inferenceconfig.json as Azure ML's CLI v1 read it."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aks_inference.findings import Finding, Severity, in_file, under
from aks_inference.packages import completed
from aks_inference.service.code import absolute, read_content
from aks_inference.service.environment import (
    LOCAL_ONLY,
    ReadEnvironment,
    conda_file,
    read_environment,
)
from aks_inference.values import Most, Object, Spec, Text, is_late, read
from aks_inference_runtime.api.endpoint import Code, Environment
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits


class InferenceSpec(Spec):
    """Keys of inferenceconfig.json (reference: azureml-v1.md 5.1)."""

    entry_script: Text | None = None
    source_directory: Text | None = None
    environment: Object | None = None
    description: Text | None = None
    max_mb: Most | None = None
    max_files: Most | None = None
    runtime: Text | None = None
    conda_file: Text | None = None
    extra_docker_file_steps: Text | None = None
    enable_gpu: Any = None
    base_image: Text | None = None
    base_image_registry: Object | None = None
    cuda_version: Text | None = None


LEGACY = (
    "runtime",
    "conda_file",
    "extra_docker_file_steps",
    "enable_gpu",
    "base_image",
    "base_image_registry",
    "cuda_version",
)


_SPELLINGS = {"extraDockerfileSteps": "extraDockerFileSteps"}
"""As older drafts of Azure ML's documentation wrote it, and files of that time do."""


@dataclass(frozen=True)
class Inference:
    """What a version runs."""

    code: Code
    environment: ReadEnvironment
    code_bytes: int = 0
    """Of all files of the code; 0 where it is no user's own."""
    limits: ContextLimits = AZURE_ML


def read_json(path: Path, given: str) -> tuple[dict[str, object], list[Finding]]:
    """A JSON file that holds an object."""
    try:
        value = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        there = os.path.exists(path)  # noqa: PTH110 - Path.exists() raises where a name is too long
        rule = f"cannot be read ({error.strerror}: {path})" if there else f"does not exist ({path})"
        return {}, [Finding((), rule, "give the path of a JSON file", given)]
    except InvalidInput as error:
        return {}, [Finding((), str(error), "give it once", given)]
    except UnicodeDecodeError:
        return {}, [Finding((), "is not UTF-8", "save it as UTF-8", given)]
    except json.JSONDecodeError as error:
        return {}, [Finding((), f"is not JSON: line {error.lineno}: {error.msg}", "mend the file", given)]
    except RecursionError:
        return {}, [Finding((), "nests deeper than any configuration", "mend the file", given)]
    except ValueError as error:
        if "digits" in str(error):
            return {}, [Finding((), "holds a number of more digits than are read", "mend the file", given)]
        return {}, [Finding((), "is no path", "give the path of a JSON file", given)]
    if not isinstance(value, dict):
        return {}, [Finding((), "is not a JSON object", "begin it with {", given)]
    return value, []


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of a file; the parser alone would take the last of several values in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise InvalidInput(f"holds `{twice}` twice in one object")
    return found


def read_inference(config: object, file: object, *, built: bool = False) -> tuple[Inference | None, list[Finding]]:
    """The inference configuration of a version, from the argument or its file, of which one is given.

    `built`: its environment becomes an image, so that all of it counts; else it is one of packages alone.
    """
    if config is not None and file is not None:
        return None, [
            Finding(("inference_config_file",), "is given beside @inference_config", "give one of them", file)
        ]
    name = "inference_config_file" if config is None else "inference_config"
    path = file if config is None else config
    if isinstance(path, str):
        raw, findings = read_json(absolute(path), path)
        if findings:
            return None, list(under((name,), findings))
        inference, findings = _read(raw, built)
        return inference, list(in_file(path, name, findings))
    if not isinstance(config, Mapping):
        rule = "must be known at preview" if is_late(config) or is_late(file) else "must be an object or a path"
        return None, [Finding((name,), rule, "give @entry_script, @source_directory and @environment")]
    inference, findings = _read(config, built)
    return inference, list(under(("inference_config",), findings))


def _read(raw: Mapping[str, object], built: bool) -> tuple[Inference | None, list[Finding]]:
    got = read(InferenceSpec, {_SPELLINGS.get(key, key): value for key, value in raw.items()}, ("entry_script",))
    spec, findings = got.spec, list(got.findings)
    limits = ContextLimits.of(spec.max_mb, spec.max_files)
    environment, wrong = _image_environment(spec, limits) if built else _environment(spec)
    findings += wrong
    found = None
    # A text without a character is no script either, and told as one that does not exist.
    if spec.entry_script is not None and got.whole("source_directory"):
        found, wrong = read_content(spec.entry_script, spec.source_directory, limits)
        findings += wrong
    if found is None or any(f.severity is Severity.ERROR for f in findings):
        return None, findings
    code, content = found
    return Inference(code, environment, content.size_bytes, limits), findings


def _environment(spec: InferenceSpec) -> tuple[ReadEnvironment, list[Finding]]:
    """Of packages alone: what a process can have."""
    findings = [*_beside(spec), *_legacy(spec)]
    if spec.environment is None and not spec.conda_file:
        return ReadEnvironment(), findings
    base = absolute(spec.source_directory or ".")
    if spec.environment is not None:
        environment, wrong = read_environment(spec.environment, base)
        return environment, [*findings, *under(("environment",), wrong)]
    given = spec.conda_file or ""
    packages, wrong = conda_file(base / given, given)
    environment = ReadEnvironment(Environment(pip_packages=tuple(dict.fromkeys(packages))))
    return environment, [*findings, *under(("conda_file",), completed(wrong, packages))]


def _image_environment(spec: InferenceSpec, limits: ContextLimits) -> tuple[ReadEnvironment, list[Finding]]:
    """Of an image."""
    from aks_inference.images.environment import older_keys, read_image_environment

    findings = list(_beside(spec))
    base = absolute(spec.source_directory or ".")
    if spec.environment is not None:
        environment, wrong = read_image_environment(spec.environment, base, limits)
        return environment, [*findings, *under(("environment",), wrong)]
    meant, wrong = older_keys(spec, base)
    environment, found = read_image_environment(meant, base)
    return environment, [*findings, *wrong, *found]


def _beside(spec: InferenceSpec) -> Iterator[Finding]:
    """The settings of before environments never stand beside one."""
    for name in LEGACY:
        value = getattr(spec, name)
        if value and spec.environment is not None:
            yield Finding((name,), "cannot be combined with @environment", "leave it out", value)


def _legacy(spec: InferenceSpec) -> Iterator[Finding]:
    """Of the settings of before environments only what a process can have."""
    for name in LEGACY:
        value = getattr(spec, name)
        if not value or spec.environment is not None:
            continue
        if name == "runtime" and value != "python":
            yield Finding((name,), "the local target has the runtime python only", "use python", value)
        elif name not in ("runtime", "conda_file"):
            yield Finding((name,), LOCAL_ONLY, "leave it out")
