"""The rules of a training job."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from aks_inference.findings import Finding, Severity, under
from aks_inference.folder_findings import context_findings, folder_findings
from aks_inference.images.pod_image import raised
from aks_inference.names import NAMESPACE, NameRule
from aks_inference.service.code import absolute
from aks_inference.service.environment import ReadEnvironment, read_environment
from aks_inference.targets import TargetChoice, choose_target, target_findings
from aks_inference.values import Anys, Most, Number, Object, Spec, Text, Texts, Whole, read
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.ignoring import why_absent
from aks_inference_runtime.api.limits import ContextLimits
from aks_inference_runtime.api.state_folder import unwritable

JOB = NameRule(
    re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?"),
    "1 to 40 characters: lower-case letters, digits and dashes, first a letter, last no dash",
)
CLUSTER_ONLY = ("cpu_cores", "memory_gb", "gpu_cores", "namespace", "service_account_name", "image_pull_secrets")
TIMEOUT_MINUTES = 1_440.0
POSITIVE = "use a value above 0"


class TrainingJobSpec(Spec):
    """The arguments, converted."""

    target: Any = None
    entry_script: Text | None = None
    source_directory: Text | None = None
    max_mb: Most | None = None
    max_files: Most | None = None
    job_name: Text | None = None
    arguments: Texts = ()
    environment: Object | None = None
    outputs_directory: Text | None = None
    timeout_minutes: Annotated[Number, Field(gt=0)] = Field(TIMEOUT_MINUTES, description=POSITIVE)
    trigger: Text | None = None
    cpu_cores: Annotated[Number, Field(gt=0)] | None = Field(None, description=POSITIVE)
    memory_gb: Annotated[Number, Field(gt=0)] | None = Field(None, description=POSITIVE)
    gpu_cores: Annotated[Whole, Field(ge=0)] | None = Field(None, description="use whole GPUs")
    namespace: Text | None = None
    service_account_name: Text | None = None
    image_pull_secrets: Anys = ()


@dataclass(frozen=True)
class JobPlan:
    """A job that will run."""

    name: str
    target: TargetChoice
    inputs: dict[str, Any]
    """Of a TrainingRun, without variables, image and kubeconfig."""
    environment: ReadEnvironment
    image: Mapping[str, Any] | None = None
    """What the image holds, as an Image's inputs; None: a process."""
    files: int = 0
    notes: tuple[str, ...] = field(default=())


def plan_job(resource_name: str, declared: Mapping[str, Any]) -> tuple[JobPlan | None, list[Finding]]:
    """The plan, or what is wrong. Looks at the project's files."""
    got = read(TrainingJobSpec, declared, ("target", "entry_script", "source_directory"))
    spec, findings = got.spec, list(got.findings)
    target, wrong = choose_target(spec.target)
    findings += wrong + list(target_findings(target))
    name = resource_name if spec.job_name is None else spec.job_name
    findings += JOB.check(("job_name",), name)
    on_cluster = target is not None and target.on_cluster
    findings += _place(spec, target)
    if spec.namespace is not None:
        findings += NAMESPACE.check(("namespace",), spec.namespace)
    limits = ContextLimits.of(spec.max_mb, spec.max_files)
    environment, wrong = _environment(spec, limits, on_cluster)
    findings += under(("environment",), wrong)
    outputs = absolute(spec.outputs_directory or f"jobs/{name}")
    given = str(outputs) if spec.outputs_directory is None else spec.outputs_directory
    findings += folder_findings(("outputs_directory",), outputs, given, unwritable)
    files = 0
    if spec.source_directory is not None and spec.entry_script is not None:
        files, wrong = _project(spec.source_directory, spec.entry_script, limits)
        findings += wrong
    if target is None or any(f.severity is Severity.ERROR for f in findings):
        return None, findings
    source = str(absolute(spec.source_directory or "."))
    inputs = {
        "name": name,
        "entryScript": spec.entry_script,
        "sourceDirectory": source,
        "arguments": list(spec.arguments) or None,
        "outputsDirectory": str(outputs),
        **raised(limits),
        "timeoutMinutes": spec.timeout_minutes,
        "trigger": spec.trigger,
        "cpuCores": spec.cpu_cores,
        "memoryGb": spec.memory_gb,
        "gpuCores": spec.gpu_cores,
        "namespace": spec.namespace,
        "serviceAccount": spec.service_account_name,
        "pullSecrets": list(spec.image_pull_secrets) or None,
    }
    if not on_cluster:
        inputs["pipPackages"] = list(environment.environment.pip_packages) or None
        return JobPlan(name, target, inputs, environment, None, files, environment.notes), findings
    content = environment.image or {"environment": {}}
    image = {**content, "entryScript": spec.entry_script, "sourceDirectory": source, **raised(limits)}
    inputs["sharedMemoryMb"] = environment.shared_memory
    return JobPlan(name, target, inputs, environment, image, files), findings


def _environment(
    spec: TrainingJobSpec, limits: ContextLimits, on_cluster: bool
) -> tuple[ReadEnvironment, list[Finding]]:
    base = absolute(spec.source_directory or ".")
    if not on_cluster:
        return read_environment(spec.environment or {}, base)
    from aks_inference.images.environment import read_image_environment

    return read_image_environment(spec.environment or {}, base, limits)


def _place(spec: TrainingJobSpec, target: TargetChoice | None) -> Iterator[Finding]:
    if target is None:
        return
    if target.on_cluster:
        if target.kubernetes is None or target.kubernetes.registry is None:
            rule = "has no registry for the image of the job"
            yield Finding(("target",), rule, "give its runtime a @registry")
        return
    for name in CLUSTER_ONLY:
        value = getattr(spec, name)
        if value not in (None, ()):
            yield Finding((name,), "is only for a Kubernetes target", "leave it out", value)


def _project(folder: str, script: str, limits: ContextLimits) -> tuple[int, list[Finding]]:
    """How many files it has, and what is wrong with it."""
    from aks_inference_runtime.images.context import context_files

    source = absolute(folder)
    try:
        files = context_files(source, limits)
    except InvalidInput as error:
        return 0, list(context_findings(("source_directory",), error))
    if script not in files:
        rule = why_absent(source, script)
        return 0, [Finding(("entry_script",), rule, "name a file of the project, relative to it", script)]
    return len(files), []
