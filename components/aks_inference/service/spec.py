"""A ModelWebService: an endpoint of one version."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aks_inference.findings import Finding, Severity, placed
from aks_inference.names import SERVICE
from aks_inference.service.calls import call_rules
from aks_inference.service.deployment import FILE
from aks_inference.service.endpoint import (
    EndpointPlan,
    EndpointSettings,
    build_endpoint,
    endpoint_fields,
    endpoint_rules,
)
from aks_inference.service.insights import with_insights
from aks_inference.service.settings import VersionSettings
from aks_inference.service.versions import plan_version, read_settings
from aks_inference.targets import choose_target, target_findings
from aks_inference.values import Flag, Text

VERSION_NAME = "default"
"""The only version of a service."""
COMPUTE_TYPES = frozenset({"aks", "local"})


class ModelWebServiceSpec(VersionSettings, EndpointSettings):
    """The arguments, converted."""

    service_name: Text | None = None
    blobfuse_enabled: Flag | None = None


def plan_service(resource_name: str, declared: Mapping[str, Any]) -> tuple[EndpointPlan | None, list[Finding]]:
    """The plan, or what is wrong. Reads the files that the arguments name."""
    got, findings, deployment = read_settings(ModelWebServiceSpec, declared, ("target",), COMPUTE_TYPES)
    spec = got.spec
    target, wrong = choose_target(spec.target)
    findings += wrong + list(target_findings(target))
    name = resource_name if spec.service_name is None else spec.service_name
    findings += SERVICE.check(("service_name",), name)
    findings += placed(deployment.places, FILE, endpoint_rules(got, target))
    version, wrong = plan_version(VERSION_NAME, got, target, deployment.places, {"is_default": True})
    findings += wrong
    findings += placed(deployment.places, FILE, call_rules(spec, [] if version is None else [version]))
    if version is None or target is None or any(f.severity is Severity.ERROR for f in findings):
        return None, findings
    plain, late = endpoint_fields(spec)
    # One version: what describes the service stands on the endpoint alone.
    told = version.version
    if version.late or told.description is not None or told.tags or told.properties:
        bare = told.model_copy(update={"description": None, "tags": {}, "properties": {}})
        version = replace(version, version=bare, late={})
    version = with_insights(version, spec)
    endpoint = build_endpoint(name, spec, [version], {**plain, "properties": spec.properties})
    notes = list(version.notes)
    if spec.blobfuse_enabled is not None:
        notes.append("@blobfuse_enabled: no effect, models are files beside the replicas")
    if spec.namespace is not None and target.local is not False:
        notes.append(f"namespace {spec.namespace}: a label only, on the local target")
    return EndpointPlan(
        name, target, endpoint, (version,), late, spec.primary_key, spec.secondary_key, tuple(notes), spec.key_version
    ), findings
