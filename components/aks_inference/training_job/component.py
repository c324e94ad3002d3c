"""The component TrainingJob."""

from typing import Any, Unpack, overload

import pulumi

from aks_inference.component import NO_ARGS, Component, merged, unknown
from aks_inference.images.child import image_resource
from aks_inference.images.registry import RegistryPlan
from aks_inference.resources import TrainingRun
from aks_inference.targets import checked_target
from aks_inference.training_job.args import TrainingJobArgs
from aks_inference.training_job.spec import JobPlan, plan_job


class TrainingJob(Component):
    """One run of a training script: its log, its results, its exit code. Another project is another run.

    A script that fails fails the update, with the end of its log. Nothing of a run stays but its results.
    """

    run_id: pulumi.Output[str]
    """The run's name."""
    outputs_path: pulumi.Output[str]
    """Folder of this machine with what the script wrote into ./outputs; a RegisteredModel takes it as `job_outputs`."""
    log_path: pulumi.Output[str]
    """File of this machine with its log."""

    @overload
    def __init__(self, name: str, args: TrainingJobArgs, opts: pulumi.ResourceOptions | None = None) -> None: ...

    @overload
    def __init__(
        self, name: str, *, opts: pulumi.ResourceOptions | None = None, **settings: Unpack[TrainingJobArgs]
    ) -> None: ...

    def __init__(
        self,
        name: str,
        args: TrainingJobArgs = NO_ARGS,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Any,
    ) -> None:
        """Arguments as a dict, or as keywords."""
        declared = merged(args, settings)
        plan, findings = plan_job(name, declared)
        super().__init__(name, declared, findings, opts)
        plan = self._sound(plan)
        if plan is None:
            self.run_id, self.outputs_path, self.log_path = unknown(str), unknown(str), unknown(str)
            return
        run = self._run(name, plan)
        self.run_id, self.outputs_path, self.log_path = run.run_id, run.outputs_path, run.log_path
        plural = "s" * (plan.files != 1)
        where = "a Job on Kubernetes" if plan.image is not None else "a process on this machine"
        notes = [f"note: {note}" for note in plan.notes]
        self._info(f"training job {plan.name}: {plan.files:,} file{plural}, {where}", *notes)
        self.register_outputs({"runId": self.run_id, "outputsPath": self.outputs_path, "logPath": self.log_path})

    def _run(self, name: str, plan: JobPlan) -> TrainingRun:
        environment = plan.environment
        variables = {**environment.environment.environment_variables, **environment.late_variables}
        told: Any = pulumi.Output.all(**variables)
        inputs = {**plan.inputs, "environmentVariables": pulumi.Output.secret(told) if variables else None}
        # A target that was not in sight is checked as soon as it is known, and the job comes after it.
        after = [] if plan.target.cluster is None else [plan.target.cluster]
        options = pulumi.ResourceOptions.merge(self._child(), pulumi.ResourceOptions(depends_on=after))
        if plan.image is None:
            return TrainingRun(name, inputs, options)
        target = plan.target.kubernetes
        assert target is not None and target.registry is not None  # noqa: S101, PT018 - asked for by the rules
        registry: RegistryPlan = getattr(plan.target.cluster, "_registry", None) or RegistryPlan(target.registry)
        image = image_resource(f"{name}-image", registry, plan.image, options)
        given = {"image": image.image, "keeperImage": target.image, "context": target.context}
        where: Any = pulumi.Output.from_input(checked_target(plan.target))
        kubeconfig: Any = where.apply(_kubeconfig)
        return TrainingRun(name, {**inputs, **given, "kubeconfig": pulumi.Output.secret(kubeconfig)}, options)

    @property
    def _reference(self) -> pulumi.Output[str]:
        return self.outputs_path


def _kubeconfig(target: str) -> str | None:
    from aks_inference_runtime.api.target import KubernetesTarget, parse_target

    read = parse_target(target)
    return read.kubeconfig if isinstance(read, KubernetesTarget) else None
