"""The documents of a run, checked together: services on the clusters that they name."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from typing import Any

from aks_inference.documents.reading import Document
from aks_inference.findings import NOTHING, Finding, Severity
from aks_inference.packages import without
from aks_inference_runtime.api.kubernetes import RUNTIME_NAMESPACE
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target

_REFERENCE = re.compile(r"\$\{([^.}]+)(?:\.[^}]+)?\}")
"""`${scoring}`, `${scoring.target}`: as Pulumi YAML names other resources."""
CLUSTERS = ("AksInferenceCluster", "InferenceRuntime", "LocalInferenceCluster")


@dataclass
class Outcome:
    """What is to be said of a document."""

    document: Document
    findings: list[Finding] = field(default_factory=list)
    plan: Any = None
    """The component's plan; None where there are errors."""


def check_documents(documents: Sequence[Document], today: date) -> list[Outcome]:
    """Everything that a preview would say, short of what needs Azure or the stack's state."""
    outcomes = [Outcome(document) for document in documents]
    targets: dict[str, str] = {}
    models: dict[str, str] = {}
    jobs = [one.document.name for one in outcomes if one.document.component == "TrainingJob"]
    for outcome in outcomes:
        document = outcome.document
        if document.component in CLUSTERS:
            _plan(outcome, document.args, today)
            targets[document.name] = _target(outcome)
        elif document.component == "RegisteredModel":
            given = document.args.get("model_name") or document.args.get("modelName")
            models[document.name] = f"{given if isinstance(given, str) else document.name}:1"
    for outcome in outcomes:
        if outcome.document.component not in CLUSTERS:
            args, findings = _linked(outcome.document.args, targets, models)
            findings += _no_job(args, jobs)
            _plan(outcome, args, today)
            # What the reference means is said; that it is no target is then no news.
            paths = {finding.path for finding in findings}
            outcome.findings = [*findings, *(one for one in outcome.findings if one.path not in paths)]
    _same_names(outcomes)
    _fit(outcomes)
    return outcomes


def _plan(outcome: Outcome, args: Mapping[str, Any], today: date) -> None:
    document = outcome.document
    outcome.plan, found = _PLANNERS[document.component](document.name, _snake(document.component, args), today)
    # Offline: no index is asked.
    outcome.findings += (_of_default(one, document.args) for one in without(found))


def _of_default(finding: Finding, args: Mapping[str, Any]) -> Finding:
    """A warning about a value that the file does not hold says whose it is."""
    if finding.severity is not Severity.WARNING or finding.value is NOTHING or not finding.path:
        return finding
    value: Any = args
    for part in finding.path:
        value = _under(value, part)
    return finding if value is not None else replace(finding, rule=f"the default, as none is given; {finding.rule}")


def _under(value: Any, part: str | int) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(part, int):
        return value[part] if isinstance(value, list) and part < len(value) else None
    if not isinstance(value, Mapping):
        return None
    from pydantic.alias_generators import to_camel

    return value.get(part, value.get(to_camel(part)))


def _aks(name: str, args: Mapping[str, Any], today: date) -> tuple[Any, list[Finding]]:
    from aks_inference.aks_cluster.spec import plan_cluster

    return plan_cluster(name, args, today)


def _runtime(name: str, args: Mapping[str, Any], today: date) -> tuple[Any, list[Finding]]:
    from aks_inference.inference_runtime.spec import plan_runtime

    return plan_runtime(name, args)


def _local(name: str, args: Mapping[str, Any], today: date) -> tuple[Any, list[Finding]]:
    from aks_inference.local_cluster.spec import plan_local

    return plan_local(args)


def _model(name: str, args: Mapping[str, Any], today: date) -> tuple[Any, list[Finding]]:
    from aks_inference.registered_model.spec import plan_model

    return plan_model(name, args)


def _service(name: str, args: Mapping[str, Any], today: date) -> tuple[Any, list[Finding]]:
    from aks_inference.service.spec import plan_service

    return plan_service(name, args)


def _rollout(name: str, args: Mapping[str, Any], today: date) -> tuple[Any, list[Finding]]:
    from aks_inference.rollout.spec import plan_rollout

    return plan_rollout(name, args)


def _job(name: str, args: Mapping[str, Any], today: date) -> tuple[Any, list[Finding]]:
    from aks_inference.training_job.spec import plan_job

    return plan_job(name, args)


_PLANNERS: dict[str, Callable[[str, Mapping[str, Any], date], tuple[Any, list[Finding]]]] = {
    "AksInferenceCluster": _aks,
    "InferenceRuntime": _runtime,
    "LocalInferenceCluster": _local,
    "RegisteredModel": _model,
    "ModelWebService": _service,
    "ControlledRolloutEndpoint": _rollout,
    "TrainingJob": _job,
}


def _snake(component: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments under their Python names; the planners look some up before they are converted."""
    names = _names(component)
    # Under both names it stays as it is: that is said when it is read.
    return {
        key if names.get(key, key) in args else names[key]: value for key, value in args.items() if value is not None
    }


@cache
def _names(component: str) -> Mapping[str, str]:
    """The arguments by their names in camelCase."""
    from pydantic.alias_generators import to_camel

    return {to_camel(name): name for name in _fields(component)}


def _fields(component: str) -> Iterable[str]:
    if component == "AksInferenceCluster":
        from aks_inference.aks_cluster.spec import AksInferenceClusterSpec as Aks

        return Aks.model_fields
    if component == "InferenceRuntime":
        from aks_inference.inference_runtime.spec import InferenceRuntimeSpec as Runtime

        return Runtime.model_fields
    if component == "LocalInferenceCluster":
        from aks_inference.local_cluster.spec import LocalInferenceClusterSpec as Local

        return Local.model_fields
    if component == "RegisteredModel":
        from aks_inference.registered_model.spec import RegisteredModelSpec as Model

        return Model.model_fields
    if component == "ModelWebService":
        from aks_inference.service.spec import ModelWebServiceSpec as Service

        return Service.model_fields
    if component == "TrainingJob":
        from aks_inference.training_job.spec import TrainingJobSpec as Job

        return Job.model_fields
    from aks_inference.rollout.spec import ControlledRolloutEndpointSpec as Rollout

    return Rollout.model_fields


def _target(outcome: Outcome) -> str:
    """The text that the cluster's `target` output would be; its findings do not hide those of its services."""
    document, plan = outcome.document, outcome.plan
    if document.component == "LocalInferenceCluster":
        directory = (plan.state_directory if plan else None) or "/"
        return format_target(LocalTarget(name=document.name, state_directory=directory, port=plan.port if plan else 1))
    if document.component == "InferenceRuntime":
        # Where the arguments are wrong, services on it are not told about it again.
        return format_target(plan.target(None) if plan else _kubernetes(document.name, "FastProd", True, {}))
    if plan is None:
        return format_target(_kubernetes(document.name, "FastProd", True, {}))
    gpu = bool(getattr(plan, "gpu", True))
    return format_target(_kubernetes(document.name, plan.purpose.value, gpu, plan.runtime))


def _kubernetes(name: str, purpose: str, gpu: bool, runtime: Mapping[str, Any] | None) -> KubernetesTarget:
    """The target of a cluster; `runtime` None: without the inference runtime."""
    bare = KubernetesTarget(name=name, cluster_purpose=purpose, gpu=gpu)
    if runtime is None:
        return bare
    there: dict[str, Any] = {"namespace": runtime.get("namespace") or RUNTIME_NAMESPACE}
    there["image"] = runtime.get("image") or "-"
    there["model_store"] = runtime.get("model_store")
    # Loaded here: clusters without a registry do not wait for it.
    from aks_inference.images.registry import plan_registry

    registry, _ = plan_registry(runtime["registry"]) if runtime.get("registry") else (None, ())
    there["registry"] = registry.settings if registry else None
    return bare.model_copy(update=there)


def _linked(
    args: Mapping[str, Any], targets: Mapping[str, str], models: Mapping[str, str]
) -> tuple[dict[str, Any], list[Finding]]:
    """The arguments with names of other documents in the place of what they stand for."""
    linked, findings = dict(args), []
    target = linked.get("target")
    if isinstance(target, str) and not target.startswith("aks-inference+"):
        name = _name(target)
        if name in targets:
            linked["target"] = targets[name]
        else:
            known = ", ".join(targets) or "none is there"
            rule = "is the name of no cluster in these documents"
            findings.append(Finding(("target",), rule, f"give one of them ({known}), or a cluster's target", target))
            linked["target"] = format_target(LocalTarget(name="-", state_directory="/"))
    return (_with_models(linked, models) if models else linked), findings


def _no_job(args: Mapping[str, Any], jobs: Sequence[str]) -> Iterator[Finding]:
    """A reference to outputs of a job that is not here; another text is a folder."""
    for given in (args.get("job_outputs"), args.get("jobOutputs")):
        if isinstance(given, str) and _REFERENCE.fullmatch(given) and _name(given) not in jobs:
            rule = "is the name of no TrainingJob in these documents"
            known = ", ".join(jobs) or "none is there"
            yield Finding(("job_outputs",), rule, f"give one of them ({known}), or a folder", given)


def _with_models(value: Any, models: Mapping[str, str]) -> Any:  # noqa: ANN401 - any JSON
    """Lists under `models`, at any depth (a rollout has them in its versions)."""
    if isinstance(value, Mapping):
        return {
            key: [models.get(_name(one), one) if isinstance(one, str) else one for one in inner]
            if key == "models" and isinstance(inner, list)
            else _with_models(inner, models)
            for key, inner in value.items()
        }
    return [_with_models(one, models) for one in value] if isinstance(value, list) else value


def _name(text: str) -> str:
    match = _REFERENCE.fullmatch(text)
    return match[1] if match else text


def _same_names(outcomes: Sequence[Outcome]) -> None:
    seen: set[tuple[str, str]] = set()
    for outcome in outcomes:
        if not outcome.document.named:
            continue  # alone in a file of its own, most of the time
        key = (outcome.document.component, outcome.document.name)
        if key in seen:
            rule = f"another {key[0]} of these documents has this name"
            outcome.findings.append(Finding(("name",), rule, "give each its own", key[1]))
        seen.add(key)


def _fit(outcomes: Sequence[Outcome]) -> None:
    """The services on the nodes of their cluster."""
    clusters = [one for one in outcomes if one.document.component == "AksInferenceCluster"]
    for cluster in clusters:
        if getattr(cluster.plan, "cluster", None) is None:
            continue  # has errors, or is attached: its pools are not known here
        from aks_inference.aks_cluster.capacity import fit_findings

        on_it = {
            index: one.plan
            for index, one in enumerate(outcomes)
            if one.document.component not in CLUSTERS
            and (target := getattr(one.plan, "target", None)) is not None
            and target.local is False
            and target.name == cluster.document.name
            and hasattr(one.plan, "versions")
        }
        for index, finding in fit_findings(cluster.plan, on_it):
            outcomes[index].findings.append(finding)


def failed(outcomes: Iterable[Outcome]) -> bool:
    """Whether one of them has an error."""
    return any(finding.severity is Severity.ERROR for one in outcomes for finding in one.findings)
