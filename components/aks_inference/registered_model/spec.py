"""The rules of a registered model (azureml-core 1.61, Model.register; reference: azureml-v1.md 4.1, 4.2)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from aks_inference.findings import Finding, Severity, did_you_mean
from aks_inference.names import MODEL
from aks_inference.service.code import absolute
from aks_inference.targets import TargetChoice, choose_target, target_findings
from aks_inference.values import Labels, Read, Spec, Text, Texts, read
from aks_inference_runtime.api.content import model_files
from aks_inference_runtime.api.errors import InvalidInput

LATER = ("datasets", "sample_input_dataset", "sample_output_dataset", "resource_configuration")


class Framework(StrEnum):
    """Frameworks of Azure ML's registry."""

    CUSTOM = "Custom"
    TENSORFLOW = "TensorFlow"
    SCIKIT_LEARN = "ScikitLearn"
    ONNX = "Onnx"
    TF_KERAS = "TfKeras"
    PYTORCH = "PyTorch"
    MULTI = "Multi"


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
    datasets: Any = None
    sample_input_dataset: Any = None
    sample_output_dataset: Any = None
    resource_configuration: Any = None


@dataclass(frozen=True)
class ModelPlan:
    """What will be registered."""

    target: TargetChoice
    inputs: dict[str, Any]
    """Of the Model resource, without the target."""
    files: int
    size_bytes: int


def plan_model(resource_name: str, declared: Mapping[str, Any]) -> tuple[ModelPlan | None, list[Finding]]:
    """The plan, or what is wrong. Looks at the files."""
    got = read(RegisteredModelSpec, declared, required=("target", "model_path"))
    spec, findings = got.spec, list(got.findings)
    target, wrong = choose_target(spec.target)
    findings += wrong + list(target_findings(target))
    name = spec.model_name or resource_name
    findings += MODEL.check(("model_name",), name)
    findings += _framework(spec)
    findings += [
        Finding((later,), "is not supported yet", "leave it out") for later in LATER if getattr(spec, later) is not None
    ]
    files: dict[str, Path] = {}
    if spec.model_path is not None:
        files, wrong = _files(got, spec.model_path)
        findings += wrong
    if target is None or any(f.severity is Severity.ERROR for f in findings):
        return None, findings
    inputs = {
        "name": name,
        "path": str(absolute(spec.model_path or "")),
        "childPaths": list(spec.child_paths) or None,
        "tags": spec.tags or None,
        "properties": spec.properties or None,
        "description": spec.description,
        "framework": spec.model_framework,
        "frameworkVersion": spec.model_framework_version,
    }
    size = sum(path.stat().st_size for path in files.values())
    return ModelPlan(target, inputs, len(files), size), findings


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


def _files(got: Read[RegisteredModelSpec], given: str) -> tuple[dict[str, Path], list[Finding]]:
    source = absolute(given)
    path = ("model_path",)
    if not source.exists():
        return {}, [Finding(path, f"does not exist ({source})", "give an existing file or folder", given)]
    children = got.spec.child_paths
    findings: list[Finding] = []
    for index, child in enumerate(children):
        at = ("child_paths", index)
        if source.is_file():
            findings.append(
                Finding(at, "chooses among the files of a folder; @model_path is a file", "leave it out", child)
            )
        elif not absolute(str(source / child)).is_relative_to(source):
            findings.append(Finding(at, "lies outside of @model_path", "name a file or folder inside it", child))
        elif not (source / child).exists():
            findings.append(Finding(at, f"does not exist in {source}", "name a file or folder inside it", child))
    if findings:
        return {}, findings
    try:
        files = model_files(source, children)
    except (InvalidInput, OSError) as error:
        text = str(error).removeprefix("path: ").removeprefix("childPaths: ")
        return {}, [Finding(path, text, "", given)]
    root = source.resolve()
    for name, file in files.items():
        inside = root if source.is_dir() else root.parent
        if file.is_symlink() and not file.resolve().is_relative_to(inside):
            rule = f"{name} is a link that leads outside of the model ({file.resolve()})"
            findings.append(Finding(path, rule, "put the file itself there", given))
    return files, findings
