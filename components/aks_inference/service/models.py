"""The models that a version names: RegisteredModel components, or ids `name:version`."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aks_inference.findings import Finding
from aks_inference.names import MODEL
from aks_inference.values import is_late

if TYPE_CHECKING:
    from aks_inference.registered_model.component import RegisteredModel
    from aks_inference.targets import TargetChoice

NO_STORE = "the target keeps no models"
GIVE_STORE = "give its runtime @model_store, or register the model with a @store of its own"


@dataclass(frozen=True)
class ModelUse:
    """A model of a version."""

    reference: Any
    """`{"name": …, "version": …}`; the version, or all of it, may be known only later."""
    label: str
    """For people."""
    store: str | None = None
    """Address of the store that keeps it; None: the target's own."""

    def at(self, store: str | None) -> "ModelUse":
        """The same model, kept in a store."""
        if store is None:
            return self
        if isinstance(self.reference, Mapping):
            return ModelUse({**self.reference, "store": store}, self.label, store)
        return ModelUse(self.reference.apply(lambda known: {**known, "store": store}), self.label, store)


def read_models(models: Iterable[Any], target: "TargetChoice | None") -> tuple[list[ModelUse], list[Finding]]:
    """The models, and what is wrong with them."""
    uses: list[ModelUse] = []
    findings = []
    target_key = target.key if target else None
    on_cluster = target is not None and target.on_cluster
    kept = target.kubernetes.model_store if target is not None and target.kubernetes is not None else None
    for index, model in enumerate(models):
        path = ("models", index)
        if (registered := registered_model(model)) is not None:
            key = registered._target_key
            store = registered._store
            if store is None and key is not None and target_key is not None and key != target_key:
                rule = f"{registered._model_name!r} is registered on another target"
                mend = "register it on the target of the service, or in a @store"
                findings.append(Finding(path, rule, mend))
            elif store is not None and on_cluster and store.startswith("/"):
                rule = f"{registered._model_name!r} is registered in the folder {store}, which no pod can reach"
                findings.append(Finding(path, rule, "use a store of az:// or oci://"))
            uses.append(registered._use.at(store))
            continue
        if on_cluster and kept is None and (isinstance(model, str) or is_late(model)):
            findings.append(Finding(path, NO_STORE, GIVE_STORE, model))
        if is_late(model):
            import pulumi

            late = pulumi.Output.from_input(model).apply(partial(_late_reference, index))
            uses.append(ModelUse(late, f"models[{index}]").at(kept))
        elif isinstance(model, str):
            reference = parse_model_id(model)
            if reference is None:
                rule = "is not a model id `name:version`"
                mend = "pass a RegisteredModel or its `@model_id`; files beside the script need no model"
                findings.append(Finding(path, rule, mend, model))
            else:
                uses.append(ModelUse(reference, model).at(kept))
        else:
            mend = "pass a RegisteredModel or its `@model_id`"
            findings.append(Finding(path, f"an object of type {type(model).__name__} is not a model", mend))
    labels = [use.label for use in uses]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        findings.append(Finding(("models",), f"{label} is given {labels.count(label)} times", "give it once"))
    return uses, findings


def registered_model(model: object) -> "RegisteredModel | None":
    """The component itself; None for what is none."""
    if "pulumi" not in sys.modules:
        return None  # no component can be there, and checks without a stack start sooner
    from aks_inference.registered_model.component import RegisteredModel

    return model if isinstance(model, RegisteredModel) else None


def parse_model_id(text: str) -> dict[str, Any] | None:
    """`name:version` taken apart; None where it is not one."""
    name, _, version = text.rpartition(":")
    if not MODEL.pattern.fullmatch(name) or not version.isascii() or not version.isdigit() or int(version) < 1:
        return None
    return {"name": name, "version": int(version)}


def _late_reference(index: int, text: object) -> dict[str, object]:
    reference = parse_model_id(str(text))
    if reference is None:
        import pulumi

        # Not the value itself: it may be a secret, given in the wrong place.
        rule = "the output that is given is not a model id `name:version`"
        raise pulumi.RunError(f"models[{index}]: {rule}; pass a RegisteredModel or its `model_id`")
    return reference
