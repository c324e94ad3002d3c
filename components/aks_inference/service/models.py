"""The models that a version names: RegisteredModel components, or ids `name:version`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pulumi

from aks_inference.findings import Finding
from aks_inference.names import MODEL
from aks_inference.values import is_late


@dataclass(frozen=True)
class ModelUse:
    """A model of a version."""

    reference: Any
    """`{"name": …, "version": …}`; the version, or all of it, may be known only later."""
    label: str
    """For people."""


def read_models(models: Iterable[Any], target_key: object) -> tuple[list[ModelUse], list[Finding]]:
    """The models, and what is wrong with them."""
    from aks_inference.registered_model.component import RegisteredModel

    uses: list[ModelUse] = []
    findings = []
    for index, model in enumerate(models):
        path = ("models", index)
        if isinstance(model, RegisteredModel):
            elsewhere = model._target_key is not None and target_key is not None and model._target_key != target_key
            if elsewhere:
                rule = f"{model._model_name!r} is registered on another target"
                findings.append(Finding(path, rule, "register it on the target of the service"))
            uses.append(model._use)
        elif is_late(model):
            uses.append(ModelUse(pulumi.Output.from_input(model).apply(_late_reference), f"models[{index}]"))
        elif isinstance(model, str):
            reference = parse_model_id(model)
            if reference is None:
                rule = "is not a model id `name:version`"
                mend = "pass a RegisteredModel or its `model_id`; files beside the script need no model"
                findings.append(Finding(path, rule, mend, model))
            else:
                uses.append(ModelUse(reference, model))
        else:
            mend = "pass a RegisteredModel or its `model_id`"
            findings.append(Finding(path, f"an object of type {type(model).__name__} is not a model", mend))
    labels = [use.label for use in uses]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        findings.append(Finding(("models",), f"{label} is given {labels.count(label)} times", "give it once"))
    return uses, findings


def parse_model_id(text: str) -> dict[str, object] | None:
    """`name:version` taken apart; None where it is not one."""
    name, _, version = text.rpartition(":")
    if not MODEL.pattern.fullmatch(name) or not version.isascii() or not version.isdigit() or int(version) < 1:
        return None
    return {"name": name, "version": int(version)}


def _late_reference(text: object) -> dict[str, object]:
    reference = parse_model_id(str(text))
    if reference is None:
        raise pulumi.RunError(f"models: {text!r} is not a model id `name:version`; pass a RegisteredModel's `model_id`")
    return reference
