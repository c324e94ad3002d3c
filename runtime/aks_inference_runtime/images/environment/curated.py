"""Curated environments: names with a fixed, open definition. They are cloned to be changed, never changed in place."""

from dataclasses import replace

from packaging.requirements import Requirement

from aks_inference_runtime.images.environment.model import CondaDefinition, EnvironmentDefinition
from aks_inference_runtime.images.environment.pip import canonical_requirement
from aks_inference_runtime.images.findings import Findings

RESERVED = ("Microsoft", "AzureML")
"""Prefixes of curated environments (azureml-core 1.61; reference: azureml-v1.md 4.1)."""
SERVER = "azureml-inference-server-http==1.5.1"
BRINGS_SERVER = frozenset({"azureml-inference-server-http", "azureml-defaults"})
PYTHON = "python =3.11"

_PACKAGES: dict[str, tuple[str, ...]] = {
    "AzureML-Minimal": (),
    "AzureML-ScikitLearn": ("scikit-learn==1.9.1", "joblib", "pandas"),
    "AzureML-Onnx": ("onnxruntime==1.31.1", "numpy"),
    "AzureML-XGBoost": ("xgboost==3.2.0", "pandas"),
    "AzureML-LightGBM": ("lightgbm==4.7.0", "pandas"),
}
NAMES = tuple(sorted(_PACKAGES))


def is_reserved(name: str) -> bool:
    """Whether only curated environments may have this name."""
    return name.startswith(RESERVED)


def get(name: str, at: str, findings: Findings) -> EnvironmentDefinition:
    """A curated environment by name; a problem and an empty definition when there is none."""
    if name not in _PACKAGES:
        findings.add(at, "is not a curated environment", f"choose one of {', '.join(NAMES)}, or list packages", name)
        return EnvironmentDefinition(name=name)
    return EnvironmentDefinition(name=name, conda=CondaDefinition(dependencies=(PYTHON,)), pip=packages(name))


def packages(name: str) -> tuple[str, ...]:
    """Requirements of a curated environment that there is."""
    return tuple(sorted(canonical_requirement(package) for package in (*_PACKAGES[name], SERVER)))


def with_server(definition: EnvironmentDefinition) -> EnvironmentDefinition:
    """The definition with a scoring server, where it has none and packages are installed at all."""
    if definition.user_managed or any(Requirement(one).name in BRINGS_SERVER for one in definition.pip):
        return definition
    return replace(definition, pip=tuple(sorted((*definition.pip, canonical_requirement(SERVER)))))


def clone(definition: EnvironmentDefinition, name: str) -> EnvironmentDefinition:
    """The same content under a name of one's own; the version goes, as in Azure ML."""
    findings = Findings()
    if is_reserved(name):
        findings.add("name", f"begins with a reserved prefix ({', '.join(RESERVED)})", "choose another name", name)
    findings.raise_if_any()
    return replace(definition, name=name, version=None)
