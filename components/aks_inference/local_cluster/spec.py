"""The rules of a local cluster."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from aks_inference.findings import Finding
from aks_inference.folder_findings import folder_findings
from aks_inference.observed import TRACE_RATIO, observed_findings
from aks_inference.service.code import absolute
from aks_inference.values import Flag, Leaf, Number, Spec, Text, Whole, read
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.haproxy import check_haproxy
from aks_inference_runtime.api.state_folder import folder_problem
from aks_inference_runtime.api.target import LocalTarget

_HAPROXY, _A_BINARY = ("haproxy",), "give the path of an haproxy binary, 2.8 or newer"
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
    directory, wrong = _directory(spec.state_directory)
    findings += wrong
    haproxy, wrong = _haproxy(spec.haproxy)
    findings += wrong
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


def _directory(given: str | None) -> tuple[Path | None, list[Finding]]:
    """The folder that is meant, and why it cannot be a cluster's; nothing is made."""
    if given is None:
        return None, []
    at = ("state_directory",)
    if not given.strip():
        return None, [Finding(at, "is empty", "give a folder, or leave it out for the default one", given)]
    directory = absolute(given)
    if given.startswith("~") and os.path.expanduser(given) == given:  # noqa: PTH111 - Path's raises
        return None, [Finding(at, "begins with a user that is not known here", "give another folder", given)]
    return directory, list(folder_findings(at, directory, given, folder_problem))


def _haproxy(given: str | None) -> tuple[str | None, list[Finding]]:
    """The binary that is meant, and why it cannot be one."""
    found = None if given is None else shutil.which(given)
    if given is None or found is not None:
        return found, []
    rule = "is not a program" if os.path.exists(given) else "does not exist"  # noqa: PTH110 - a text
    return None, [Finding(_HAPROXY, rule, _A_BINARY, given)]


def haproxy_findings(plan: LocalPlan) -> list[Finding]:
    """Why the binary cannot route. Runs it: for a program, never for a document that is only looked at."""
    if plan.haproxy is None:
        return []
    try:
        check_haproxy(plan.haproxy)
    except InvalidInput as error:
        return [Finding(_HAPROXY, str(error), _A_BINARY)]
    return []
