"""The rules of a registered model (azureml-core 1.61, Model.register; reference: azureml-v1.md 4.1, 4.2)."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from aks_inference.findings import Finding, Severity, did_you_mean, under
from aks_inference.folder_findings import folder_findings
from aks_inference.names import MODEL
from aks_inference.service.code import absolute
from aks_inference.service.models import parse_model_id
from aks_inference.targets import TargetChoice, choose_target, model_store, model_target_findings
from aks_inference.values import Anys, Flag, Labels, Number, Object, Read, Spec, Text, Texts, Whole, is_late, read
from aks_inference_runtime.api.content import model_files
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.models import Framework, is_remote
from aks_inference_runtime.api.state_folder import unwritable

_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OTHER_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SOURCES = "give a path of this machine, https://…, az://account/container/path, oci://…, runs:/… or models:/…"
_SCHEME_MENDS = dict.fromkeys(("wasb", "wasbs", "abfs", "abfss", "adl"), "write az://account/container/path")
_SHOWN_PATH = 255


class RegisteredModelSpec(Spec):
    """The arguments, converted."""

    target: Any = None
    model_path: Text | None = None
    model_name: Text | None = None
    child_paths: Texts = ()
    tags: Labels
    properties: Labels
    description: Text | None = None
    model_framework: Text | None = None
    model_framework_version: Text | None = None
    store: Text | None = None
    job_outputs: Any = None
    unpack: Flag = False
    tracking_uri: Text | None = None
    run_id: Text | None = None
    experiment_name: Text | None = None
    datasets: Anys = ()
    parent_model: Text | None = None
    sample_input_dataset: Text | None = None
    sample_output_dataset: Text | None = None
    resource_configuration: Object | None = None


class DatasetSpec(Spec):
    """One of `datasets`."""

    relationship: Text | None = None
    dataset: Text | None = None


class ResourcesSpec(Spec):
    """The resource configuration."""

    cpu: Annotated[Number, Field(gt=0)] | None = None
    memory_in_gb: Annotated[Number, Field(gt=0)] | None = None
    gpu: Annotated[Whole, Field(ge=0)] | None = None


@dataclass(frozen=True)
class ModelPlan:
    """What will be registered."""

    target: TargetChoice | None
    """None: in a store of its own, which is among the inputs."""
    inputs: dict[str, Any]
    """Of the Model resource, without the target."""
    files: int | None
    """None: of a remote source, which the plugin looks at."""
    size_bytes: int
    resources: ResourcesSpec | None = None
    outputs: Any = None
    """The folder, known later, that the path is relative to: of a training job."""


def plan_model(resource_name: str, declared: Mapping[str, Any]) -> tuple[ModelPlan | None, list[Finding]]:
    """The plan, or what is wrong. Looks at the files of this machine."""
    got = read(RegisteredModelSpec, declared)
    spec, findings = got.spec, list(got.findings)
    target, wrong = choose_target(spec.target)
    findings += wrong + list(model_target_findings(target))
    findings += _place(got)
    name = resource_name if spec.model_name is None else spec.model_name
    findings += MODEL.check(("model_name",), name)
    findings += _framework(spec)
    resources, wrong = _resources(spec)
    findings += wrong + list(_datasets(spec)) + list(_lineage(spec))
    path, wrong = _path(got, name) if spec.job_outputs is None else _in_outputs(spec)
    findings += wrong
    findings += _empty(spec)
    if spec.model_path is not None and not spec.model_path.strip():
        # Below a folder it is the folder itself, and by itself the whole working directory.
        path = None
    files: dict[str, Path] = {}
    local = path is not None and not is_remote(path) and spec.job_outputs is None
    if path is not None and local:
        files, wrong = _files(got, path)
        findings += wrong
    if path is None or any(f.severity is Severity.ERROR for f in findings):
        return None, findings
    kept = None if target is None else model_store(target)
    inputs = {
        "store": spec.store or kept,
        "name": name,
        "path": str(absolute(path)) if local else path,
        "childPaths": list(spec.child_paths) or None,
        "tags": spec.tags or None,
        "properties": spec.properties or None,
        "description": spec.description,
        "framework": spec.model_framework,
        "frameworkVersion": spec.model_framework_version,
        "unpack": spec.unpack or None,
        "trackingUri": spec.tracking_uri,
        "facts": _facts(spec, resources) or None,
    }
    size = sum(file.stat().st_size for file in files.values())
    where = None if kept else target
    return ModelPlan(where, inputs, len(files) if local else None, size, resources, spec.job_outputs), findings


def _in_outputs(spec: RegisteredModelSpec) -> tuple[str, list[Finding]]:
    """The path in the outputs of a job, which are known when it has ended."""
    path = PurePosixPath(spec.model_path or ".")
    findings = []
    given = spec.job_outputs
    if not (isinstance(given, str) or is_late(given) or hasattr(given, "outputs_path")):
        rule = f"an object of type {type(given).__name__} is not a training job"
        findings.append(Finding(("job_outputs",), rule, "pass a TrainingJob, or its `@outputs_path`"))
    if path.is_absolute() or ".." in path.parts or is_remote(str(path)):
        rule = "lies outside of @job_outputs"
        findings.append(Finding(("model_path",), rule, "give a path in the outputs, or leave it out", spec.model_path))
    for argument in ("run_id", "unpack", "tracking_uri", "experiment_name"):
        if getattr(spec, argument):
            rule = "cannot be combined with @job_outputs"
            findings.append(Finding((argument,), rule, "leave it out", getattr(spec, argument)))
    return str(path), findings


def _empty(spec: RegisteredModelSpec) -> Iterator[Finding]:
    if spec.model_path is not None and not spec.model_path.strip():
        yield Finding(("model_path",), "is empty", "give a file or folder", spec.model_path)
    for index, child in enumerate(spec.child_paths):
        if not child.strip():
            yield Finding(("child_paths", index), "is empty", "name a file or folder inside @model_path", child)


def _place(got: Read[RegisteredModelSpec]) -> Iterator[Finding]:
    spec = got.spec
    if spec.target is None and spec.store is None and got.whole("target", "store"):
        yield Finding(("target",), "is required", "add `@target`, or `@store`")
    elif spec.target is not None and spec.store is not None:
        yield Finding(("store",), "is given beside @target", "give one of them", spec.store)
    if spec.store is not None:
        from aks_inference_runtime.models.stores import parse_store

        try:
            parse_store(spec.store)
        except InvalidInput as error:
            yield Finding(("store",), str(error), "", spec.store)
        else:
            if spec.store.startswith("/"):
                yield from folder_findings(("store",), Path(spec.store), spec.store, unwritable)


def _path(got: Read[RegisteredModelSpec], name: str) -> tuple[str | None, list[Finding]]:
    """The path that is meant, in one form."""
    spec = got.spec
    path = spec.model_path
    if spec.run_id is not None and not (path and is_remote(path)):
        path = f"runs:/{spec.run_id}/{path or name}"
    if path is None:
        missing = [] if "model_path" in got.broken else [Finding(("model_path",), "is required", "add `@model_path`")]
        return None, missing
    if spec.run_id is not None and not _RUN.fullmatch(spec.run_id):
        return None, [Finding(("run_id",), "is not the id of a run", "give letters, digits, - and _ only", spec.run_id)]
    if (scheme := _OTHER_SCHEME.match(path)) is not None and not is_remote(path):
        # Without the value: it may hold a secret.
        mend = _SCHEME_MENDS.get(scheme[1].lower(), _SOURCES)
        return None, [Finding(("model_path",), f"begins with {scheme[0]}, from where nothing is fetched", mend)]
    findings = []
    if is_remote(path):
        from aks_inference_runtime.models.sources.address import parse_address

        try:
            parse_address(path)
        except InvalidInput as error:
            # The text may hold the secret that it is refused for: it is not shown again.
            findings.append(Finding(("model_path",), str(error), ""))
    of_mlflow = path.startswith(("runs:", "models:"))
    for argument in ("tracking_uri", "experiment_name"):
        if getattr(spec, argument) is not None and not of_mlflow:
            rule = "is of an MLflow server; @model_path names none of its runs or models"
            findings.append(Finding((argument,), rule, "leave it out, or add @run_id", getattr(spec, argument)))
    findings += _tracking(spec.tracking_uri)
    if spec.unpack and not is_remote(path):
        rule = "is for remote archives; @model_path is on this machine"
        findings.append(Finding(("unpack",), rule, "leave it out and unpack the file", value=True))
    return path, findings


def _tracking(uri: str | None) -> Iterator[Finding]:
    """To MLflow's client every other text is a folder of this machine."""
    if uri is None or uri == "databricks":
        return
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme:
        yield Finding(("tracking_uri",), "is not the address of a server", "give http://… or https://…", uri)
    elif parts.password:
        rule = "holds a password, which would stand in state and logs"
        yield Finding(("tracking_uri",), rule, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")


def _datasets(spec: RegisteredModelSpec) -> Iterator[Finding]:
    for index, one in enumerate(spec.datasets):
        at = ("datasets", index)
        if not isinstance(one, Mapping):
            yield Finding(at, "must be an object", "give {relationship, dataset}")
        else:
            yield from under(at, read(DatasetSpec, one, required=("relationship", "dataset")).findings)


def _lineage(spec: RegisteredModelSpec) -> Iterator[Finding]:
    if spec.parent_model is not None and parse_model_id(spec.parent_model) is None:
        yield Finding(("parent_model",), "is not a model id `name:version`", "add the version", spec.parent_model)


def _resources(spec: RegisteredModelSpec) -> tuple[ResourcesSpec | None, list[Finding]]:
    if spec.resource_configuration is None:
        return None, []
    got = read(ResourcesSpec, spec.resource_configuration)
    return got.spec, list(under(("resource_configuration",), got.findings))


def _facts(spec: RegisteredModelSpec, resources: ResourcesSpec | None) -> dict[str, Any]:
    datasets = [read(DatasetSpec, one).spec for one in spec.datasets if isinstance(one, Mapping)]
    found = {
        "runId": spec.run_id,
        "experimentName": spec.experiment_name,
        "datasets": [{"relationship": one.relationship, "dataset": one.dataset} for one in datasets] or None,
        "parentModelId": spec.parent_model,
        "sampleInputDataset": spec.sample_input_dataset,
        "sampleOutputDataset": spec.sample_output_dataset,
        "resourceConfiguration": None
        if resources is None
        else {"cpu": resources.cpu, "memoryInGb": resources.memory_in_gb, "gpu": resources.gpu},
    }
    return {key: value for key, value in found.items() if value is not None}


def _framework(spec: RegisteredModelSpec) -> Iterator[Finding]:
    frameworks = [framework.value for framework in Framework]
    if spec.model_framework is None:
        if spec.model_framework_version is not None:
            rule = "is given without @model_framework"
            yield Finding(("model_framework_version",), rule, "add the framework", spec.model_framework_version)
    elif spec.model_framework not in frameworks:
        mend = did_you_mean(spec.model_framework, frameworks).replace("@", "")
        yield Finding(("model_framework",), "is not a framework", mend, spec.model_framework)
    elif spec.model_framework == Framework.TF_KERAS:
        rule = "is deprecated"
        yield Finding(("model_framework",), rule, "use TensorFlow", spec.model_framework, Severity.WARNING)


def _of_files(line: str, children: Sequence[str], given: str) -> Finding:
    """What `model_files` says, at the argument that it is about."""
    for index, child in enumerate(children):
        if line.startswith(start := f"childPaths: {child!r} "):
            return Finding(("child_paths", index), line.removeprefix(start), "", child)
    return Finding(("model_path",), line.removeprefix("path: "), "", given)


def _files(got: Read[RegisteredModelSpec], given: str) -> tuple[dict[str, Path], list[Finding]]:
    source = absolute(given)
    path = ("model_path",)
    if not os.path.exists(source):  # noqa: PTH110 - Path.exists() raises where a name is too long
        where = f" ({source})" if len(given) <= _SHOWN_PATH else ""
        return {}, [Finding(path, f"does not exist{where}", "give an existing file or folder", given)]
    children = got.spec.child_paths
    # Else it is not known which files are meant, and there is nothing to say about the others.
    chosen = "child_paths" not in got.broken and all(child.strip() for child in children)
    findings: list[Finding] = []
    for index, child in enumerate(children):
        at = ("child_paths", index)
        if not child.strip():
            continue  # See `_empty`.
        if source.is_file():
            findings.append(
                Finding(at, "chooses among the files of a folder; @model_path is a file", "leave it out", child)
            )
        elif not absolute(str(source / child)).is_relative_to(source):
            findings.append(Finding(at, "lies outside of @model_path", "name a file or folder inside it", child))
        elif not (source / child).exists():
            findings.append(Finding(at, f"does not exist in {source}", "name a file or folder inside it", child))
    if findings or not chosen:
        return {}, findings
    try:
        files = model_files(source, children)
    except (InvalidInput, OSError) as error:
        return {}, [_of_files(line, children, given) for line in str(error).splitlines()]
    root = source.resolve()
    for name, file in files.items():
        inside = root if source.is_dir() else root.parent
        if file.is_symlink() and not file.resolve().is_relative_to(inside):
            rule = f"{name} is a link that leads outside of the model ({file.resolve()})"
            findings.append(Finding(path, rule, "put the file itself there", given))
    return files, findings
