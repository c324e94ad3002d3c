"""Deployment without an entry script: one model whose framework says how it is served (azureml-v1.md 4.3)."""

from collections.abc import Sequence
from typing import Any, TypeVar

from aks_inference.findings import Finding
from aks_inference.service.environment import ReadEnvironment
from aks_inference.service.inference import Inference
from aks_inference.service.models import registered_model
from aks_inference.service.settings import VersionSettings
from aks_inference_runtime.api.content import script_digest
from aks_inference_runtime.api.endpoint import Code, Environment

S = TypeVar("S", bound=VersionSettings)
SERVED = "ScikitLearn, Onnx, TensorFlow or Multi"
MEND = "add @inference_config with an entry script"


def read_no_code(models: Sequence[Any]) -> tuple[Inference | None, list[Finding]]:
    """What a version without an inference configuration runs, and what is wrong with it."""
    rule = "is required: without an entry script a service has exactly one model, a RegisteredModel of the framework "
    where = ("inference_config",)
    if len(models) != 1:
        return None, [Finding(where, f"{rule}{SERVED}; it has {len(models)} models", MEND)]
    model = registered_model(models[0])
    if model is None:
        return None, [Finding(where, f"{rule}{SERVED}; this one is given by its id", f"{MEND}, or pass the component")]
    framework, version = model._framework
    from aks_inference_runtime.models.nocode import no_code

    found = no_code(str(framework), version) if framework else None
    if found is None:
        has = f"{model._model_name!r} is of {framework}" if framework else f"{model._model_name!r} names no framework"
        return None, [Finding(where, f"{rule}{SERVED}; {has}", MEND)]
    if found.pinned and not _is_version(version):
        rule = f"is required: without an entry script {framework}'s package has the version that {model._model_name!r} "
        rule += f"names, and {version!r} is none"
        return None, [Finding(where, rule, f"give its @model_framework_version as 1.9.1 is, or {MEND}")]
    code = Code(entry_script=str(found.script), digest=script_digest(found.script))
    return Inference(code, ReadEnvironment(Environment(pip_packages=found.packages))), []


def _is_version(text: object) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return bool(Version(str(text)))
    except InvalidVersion:
        return False


def configured(models: Sequence[Any], settings: S) -> S:
    """The settings with the resources of the model where the service names none."""
    model = registered_model(models[0]) if len(models) == 1 else None
    wanted = model._resources if model is not None else None
    if wanted is None:
        return settings
    from_model = {"cpu_cores": wanted.cpu, "memory_gb": wanted.memory_in_gb, "gpu_cores": wanted.gpu}
    given = settings.model_fields_set
    return settings.model_copy(update={k: v for k, v in from_model.items() if v is not None and k not in given})
