"""The rules of a local cluster."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from aks_inference.findings import Finding
from aks_inference.observed import TRACE_RATIO, observed_findings
from aks_inference.service.code import absolute
from aks_inference.values import Flag, Leaf, Number, Spec, Text, Whole, read
from aks_inference_runtime.api.target import LocalTarget

DEFAULT_PORT: int = LocalTarget.model_fields["port"].default


class LocalInferenceClusterSpec(Spec):
    """The arguments, converted."""

    port: Annotated[Whole, Field(ge=1, le=65_535)] = Field(DEFAULT_PORT, description="use a port from 1 to 65,535")
    state_directory: Text | None = None
    haproxy: Text | None = None
    state_webhook: Leaf | None = None
    otlp_endpoint: Text | None = None
    trace_ratio: Annotated[Number, Field(ge=0, le=1)] | None = Field(None, description="use 0 to 1")
    access_log: Flag = False
    metrics_port: Annotated[Whole, Field(ge=1, le=65_535)] | None = Field(
        None, description="use a port from 1 to 65,535"
    )


@dataclass(frozen=True)
class LocalPlan:
    """The runtime to start."""

    port: int
    state_directory: str | None
    haproxy: str | None
    webhook: Any = None
    """A text or an output of one: secret."""
    otlp_endpoint: str | None = None
    trace_ratio: float = TRACE_RATIO
    access_log: bool = False
    metrics_port: int | None = None


def plan_local(declared: Mapping[str, Any]) -> tuple[LocalPlan | None, list[Finding]]:
    """The plan, or what is wrong."""
    got = read(LocalInferenceClusterSpec, declared)
    spec, findings = got.spec, list(got.findings)
    directory = None
    if spec.state_directory is not None:
        directory = absolute(spec.state_directory)
        try:
            if directory.exists() and not directory.is_dir():
                findings.append(Finding(("state_directory",), "is not a folder", "give a folder", spec.state_directory))
        except OSError as error:
            rule = f"cannot be looked at: {error.strerror}"
            findings.append(Finding(("state_directory",), rule, "give another folder", spec.state_directory))
    haproxy = None
    if spec.haproxy is not None:
        haproxy = shutil.which(spec.haproxy)
        if haproxy is None:
            rule = "is not a program" if os.path.exists(spec.haproxy) else "does not exist"  # noqa: PTH110 - a text
            findings.append(Finding(("haproxy",), rule, "give the path of an haproxy binary", spec.haproxy))
    findings += observed_findings(
        spec.state_webhook, spec.otlp_endpoint, spec.trace_ratio, whole=got.whole("otlp_endpoint", "trace_ratio")
    )
    if spec.metrics_port is not None and spec.metrics_port == spec.port and got.whole("port", "metrics_port"):
        rule = "is the router's own port"
        findings.append(Finding(("metrics_port",), rule, "choose another port", spec.metrics_port))
    if findings:
        return None, findings
    return LocalPlan(
        spec.port,
        str(directory) if directory else None,
        str(absolute(haproxy)) if haproxy else None,
        webhook=spec.state_webhook,
        otlp_endpoint=spec.otlp_endpoint,
        trace_ratio=TRACE_RATIO if spec.trace_ratio is None else spec.trace_ratio,
        access_log=spec.access_log,
        metrics_port=spec.metrics_port,
    ), []
