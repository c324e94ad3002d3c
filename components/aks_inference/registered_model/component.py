"""The component RegisteredModel."""

import os
from typing import Any, Unpack, overload

import pulumi

from aks_inference.component import NO_ARGS, Component, merged, unknown
from aks_inference.findings import Finding
from aks_inference.program import peers
from aks_inference.registered_model.args import RegisteredModelArgs
from aks_inference.registered_model.spec import ModelPlan, RegisteredModelSpec, plan_model
from aks_inference.resources import Model
from aks_inference.service.models import ModelUse
from aks_inference.targets import checked_target, choose_target
from aks_inference.values import named


class RegisteredModel(Component):
    """A named, versioned set of files with tags, properties and framework.

    Registering other files under the same name makes the next version; the same files keep theirs.
    """

    model_name: pulumi.Output[str]
    """The name in the registry."""
    version: pulumi.Output[int]
    """The version that the registry gave: 1 for the first files of a name, then one more for each change."""
    model_id: pulumi.Output[str]
    """`name:version`, what services name."""

    @overload
    def __init__(self, name: str, args: RegisteredModelArgs, opts: pulumi.ResourceOptions | None = None) -> None: ...

    @overload
    def __init__(
        self, name: str, *, opts: pulumi.ResourceOptions | None = None, **settings: Unpack[RegisteredModelArgs]
    ) -> None: ...

    def __init__(
        self,
        name: str,
        args: RegisteredModelArgs = NO_ARGS,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Any,
    ) -> None:
        """Arguments as a dict, or as keywords."""
        declared = named(RegisteredModelSpec, merged(args, settings))
        plan, findings = plan_model(name, declared)
        given = declared.get("model_name")
        self._model_name = name if given is None else given
        target = choose_target(declared.get("target"))[0]
        self._target_key = target.key if target else declared.get("store")
        self._store: str | None = plan.inputs["store"] if plan else declared.get("store")
        self._resources = plan.resources if plan else None
        self._framework = declared.get("model_framework"), declared.get("model_framework_version")
        findings += _taken(name, self._model_name, self._target_key)
        super().__init__(name, declared, findings, opts)
        self._register(name, self._sound(plan))

    def _register(self, name: str, plan: ModelPlan | None) -> None:
        if plan is None:
            self.model_name, self.version, self.model_id = unknown(str), unknown(int), unknown(str)
            self._use = ModelUse({"name": self._model_name, "version": self.version}, self._model_name)
            return
        target = {"target": checked_target(plan.target)} if plan.target is not None else {}
        model = Model(name, {**target, **plan.inputs, **_of_job(plan)}, self._child())
        self.model_name = pulumi.Output.from_input(self._model_name)
        self.version, self.model_id = model.version, model.model_id
        self._use = ModelUse({"name": self._model_name, "version": model.version}, self._model_name)
        framework = f"; {plan.inputs['framework']}" if plan.inputs["framework"] else ""
        where = f" into {plan.inputs['store']}" if plan.inputs["store"] else ""
        path = plan.inputs["path"]
        if plan.outputs is not None:
            path = "a training job's outputs" if path == "." else f"{path} of a training job's outputs"
        source = f"from {path}{framework}{where}"
        files = "" if plan.files is None else f"{plan.files:,} file{'s' * (plan.files != 1)}, "
        size = "" if plan.files is None else f"{size_text(plan.size_bytes)} "
        self._info(f"model {self._model_name}: {files}{size}{source}")
        self.register_outputs({"modelName": self.model_name, "version": self.version, "modelId": self.model_id})

    @property
    def _reference(self) -> pulumi.Output[str]:
        return self.model_id


def _of_job(plan: ModelPlan) -> dict[str, Any]:
    """Path and lineage of what a training job made."""
    outputs = plan.outputs
    if outputs is None:
        return {}
    if isinstance(outputs, Component):
        # A TrainingJob, as the rules say; its module is not named here, as it names this one's neighbours.
        job: Any = outputs
        facts = {**(plan.inputs["facts"] or {}), "runId": job.run_id}
        return {"path": _joined(job.outputs_path, plan.inputs["path"]), "facts": facts}
    return {"path": _joined(outputs, plan.inputs["path"])}


def _joined(folder: pulumi.Input[str], path: str) -> pulumi.Output[str]:
    return pulumi.Output.from_input(folder).apply(lambda known: os.path.normpath(f"{known}/{path}"))


def size_text(size: int) -> str:
    """kB below a tenth of a MB, bytes below a tenth of a kB: a small file is not none."""
    if size < 100:
        return f"{size} bytes" if size != 1 else "1 byte"
    return f"{size / 1e3:,.1f} kB" if size < 100_000 else f"{size / 1e6:,.1f} MB"


def _taken(resource_name: str, name: object, target_key: object) -> list[Finding]:
    if not isinstance(name, str):
        return []
    others = (c for c in peers((RegisteredModel, resource_name)) if isinstance(c, RegisteredModel))
    return [
        Finding(
            ("model_name",),
            f"is also the name of RegisteredModel {other._resource_name!r} on this target",
            "choose another name: each program's change would make the other's next version",
            name,
        )
        for other in others
        if other._model_name == name and target_key is not None and other._target_key == target_key
    ]
