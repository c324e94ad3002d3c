"""The plan of one version, from its arguments; shared by services and rollouts."""

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from aks_inference.findings import Finding, Severity, placed
from aks_inference.images.pod_image import (
    BUILT,
    PodImage,
    builds,
    built_image,
    custom_rules,
    layer_rules,
    registry_rules,
)
from aks_inference.packages import without
from aks_inference.service.deployment import FILE, Deployment, merge, read_deployment
from aks_inference.service.endpoint import LATER, VersionPlan, late_fields
from aks_inference.service.inference import Inference, read_inference
from aks_inference.service.model_data import model_data, model_data_findings
from aks_inference.service.models import read_models
from aks_inference.service.no_code import configured, read_no_code
from aks_inference.service.placing import cluster_rules, code_rules, container, local_only, placing
from aks_inference.service.settings import (
    VersionSettings,
    probe,
    requests,
    resources,
    scaling,
    setting_rules,
)
from aks_inference.targets import TargetChoice
from aks_inference.values import Read, named, read
from aks_inference_runtime.api.endpoint import EndpointVersion, Probe

HOLDS_CORES = hasattr(os, "sched_setaffinity")
V = TypeVar("V", bound=VersionSettings)


def read_settings(
    spec: type[V], declared: Mapping[str, Any], required: tuple[str, ...], compute_types: frozenset[str]
) -> tuple[Read[V], list[Finding], Deployment]:
    """Arguments and deployment configuration together, each setting checked alone."""
    explicit = named(spec, declared)
    deployment, findings = read_deployment(explicit.get("deployment_config"), compute_types)
    known = {name: value for name, value in deployment.values.items() if name in spec.model_fields}
    given, twice = merge(explicit, Deployment(known, deployment.places))
    got = read(spec, given, required)
    return got, [*findings, *twice, *placed(deployment.places, FILE, got.findings)], deployment


def plan_version(
    name: str, got: Read[Any], target: TargetChoice | None, places: Mapping[str, str], traffic: Mapping[str, Any]
) -> tuple[VersionPlan | None, list[Finding]]:
    """The plan of a version whose settings are right one by one. `traffic`: percentile, default and type."""
    settings: VersionSettings = got.spec
    findings = list(placed(places, FILE, setting_rules(got)))
    inference, image, wrong = _what_runs(settings, target)
    if settings.custom_image is None and not _with_code(settings):
        settings = configured(settings.models, settings)
    findings += placed(places, FILE, place_rules(settings, target))
    findings += placed(places, FILE, model_data_findings(got, target, None if inference is None else inference.code))
    findings += wrong
    models, wrong = read_models(settings.models, target)
    findings += wrong
    sound = not got.broken and not any(f.severity is Severity.ERROR for f in findings)
    if inference is None or not sound:
        return None, findings
    plain, late = late_fields(settings, ("description", "tags"))
    version = EndpointVersion(
        name=name,
        code=inference.code,
        environment=inference.environment.environment,
        container=image.custom.container
        if image.custom
        else container(settings, BUILT if image.content else settings.image),
        resources=resources(settings),
        scaling=scaling(settings),
        requests=requests(settings),
        liveness_probe=probe(settings),
        model_data=model_data(settings, inference.code),
        properties=settings.properties,
        **plain,
        **traffic,
    )
    environment = inference.environment
    late_variables, notes = environment.late_variables, environment.notes
    return VersionPlan(version, tuple(models), late_variables, late, notes, placing(settings), image), findings


def _with_code(settings: VersionSettings) -> bool:
    return settings.inference_config is not None or settings.inference_config_file is not None


def _what_runs(
    settings: VersionSettings, target: TargetChoice | None
) -> tuple[Inference | None, PodImage, list[Finding]]:
    """Code and environment, and the image that has them."""
    if settings.custom_image is not None:
        from aks_inference.images.custom import read_custom

        custom, wrong = read_custom(settings.custom_image)
        image = PodImage(custom=custom, shared_memory=custom.shared_memory if custom else None)
        return (custom.inference if custom else None), image, [*custom_rules(settings), *wrong]
    built = builds(settings, target)
    config, file = settings.inference_config, settings.inference_config_file
    if _with_code(settings):
        inference, findings = read_inference(config, file, built=built)
    else:
        inference, findings = read_no_code(settings.models)
    if target is None or not target.on_cluster:
        return inference, PodImage(), findings
    # What the image has is not installed here.
    findings = without(findings)
    if built:
        findings += registry_rules(target)
    if inference is None:
        return None, PodImage(), findings
    findings += layer_rules(inference.code, inference.limits) if built else code_rules(inference.code_bytes)
    content = built_image(inference) if built else None
    return inference, PodImage(content, shared_memory=inference.environment.shared_memory), findings


def place_rules(settings: VersionSettings, target: TargetChoice | None) -> list[Finding]:
    """What the target does not have, or asks for; one that is not in sight is taken to be a local one."""
    if target is not None and target.on_cluster:
        return list(cluster_rules(settings, target.kubernetes is not None and target.kubernetes.gpu))
    return [*local_rules(settings), *local_only(settings)]


def local_rules(settings: VersionSettings) -> list[Finding]:
    """Settings that the local target does not have; refused, never ignored."""
    findings = []
    if settings.gpu_cores > 0:
        mend = "leave it out; GPUs need an AKS cluster"
        findings.append(Finding(("gpu_cores",), LATER, mend, settings.gpu_cores))
    most = settings.cpu_cores_limit
    if most is not None and not (most.is_integer() and HOLDS_CORES):
        held = "to whole cores" if HOLDS_CORES else "to cores on Linux"
        rule = f"cannot be held to: the local target holds a replica {held} only"
        mend = "use a whole number, or leave it out" if HOLDS_CORES else "leave it out"
        findings.append(Finding(("cpu_cores_limit",), rule, f"{mend}; a Kubernetes target takes any", most))
    if settings.timeout_seconds != Probe().timeout_seconds:
        rule = "has no effect on the local target: its gate looks after the replica without a probe of its own"
        findings.append(Finding(("timeout_seconds",), rule, "leave it out", settings.timeout_seconds, Severity.WARNING))
    return findings
