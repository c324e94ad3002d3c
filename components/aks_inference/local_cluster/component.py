"""The component LocalInferenceCluster."""

from typing import Any, Unpack, overload

import pulumi

from aks_inference.component import NO_ARGS, Cluster, merged, unknown
from aks_inference.findings import Finding
from aks_inference.local_cluster.args import LocalInferenceClusterArgs
from aks_inference.local_cluster.spec import LocalPlan, haproxy_findings, plan_local
from aks_inference.machine import this_machine
from aks_inference.program import current_program, peers
from aks_inference.resources import LocalRuntime
from aks_inference_runtime.api.supervisor import default_state_directory


class LocalInferenceCluster(Cluster):
    """The inference runtime on this machine: router, autoscaler and replicas as processes.

    No Azure account, no Kubernetes, no Docker. It goes on serving when the program has ended, until destroy.
    """

    target: pulumi.Output[str]
    """What models and services name as their target."""
    url: pulumi.Output[str]
    """The router's address."""
    state_directory: pulumi.Output[str]
    """Absolute path of models, logs, keys and sockets."""

    @overload
    def __init__(
        self, name: str, args: LocalInferenceClusterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None: ...

    @overload
    def __init__(
        self, name: str, *, opts: pulumi.ResourceOptions | None = None, **settings: Unpack[LocalInferenceClusterArgs]
    ) -> None: ...

    def __init__(
        self,
        name: str,
        args: LocalInferenceClusterArgs = NO_ARGS,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Any,
    ) -> None:
        """Arguments as a dict, or as keywords."""
        declared = merged(args, settings)
        plan, findings = plan_local(declared)
        findings += haproxy_findings(plan) if plan else []
        self._local = True
        self._port = plan.port if plan else None
        self._metrics_port = plan.metrics_port if plan else None
        self._directory = plan.state_directory if plan else None
        self._state_directory = _state_directory(name, plan) if current_program() and plan else None
        findings += self._shared(name)
        super().__init__(name, declared, findings, opts)
        self._register(name, self._sound(plan))

    def _register(self, name: str, plan: LocalPlan | None) -> None:
        if plan is None:
            self.target, self.url, self.state_directory = unknown(str), unknown(str), unknown(str)
            self._target = self.target
            return
        inputs = {
            "name": name,
            "port": plan.port,
            "stateDirectory": plan.state_directory,
            "haproxy": plan.haproxy,
            **_observing(plan),
        }
        runtime = LocalRuntime(name, inputs, self._child(delete_before_replace=True))
        self.target, self.url, self.state_directory = runtime.target, runtime.url, runtime.state_directory
        self._target = self.target
        machine = this_machine()
        self._info(
            f"local target {name}: http://127.0.0.1:{plan.port} on this machine "
            f"({machine.cores:g} cores, {machine.memory_gb:.1f} GB)"
        )
        self.register_outputs({"target": self.target, "url": self.url, "stateDirectory": self.state_directory})

    def _shared(self, name: str) -> list[Finding]:
        findings = []
        for other in peers((LocalInferenceCluster, name)):
            if not isinstance(other, LocalInferenceCluster):
                continue
            whose = f"is also that of LocalInferenceCluster {other._resource_name!r}"
            if self._port is not None and other._port == self._port:
                findings.append(Finding(("port",), whose, "give one of them another port", self._port))
            ports = {other._port, other._metrics_port}
            if self._metrics_port is not None and self._metrics_port in ports:
                findings.append(Finding(("metrics_port",), whose, "give one of them another port", self._metrics_port))
            if self._port is not None and self._port == other._metrics_port:
                rule = f"is the @metrics_port of LocalInferenceCluster {other._resource_name!r}"
                findings.append(Finding(("port",), rule, "give one of them another port", self._port))
            if self._directory is not None and other._directory == self._directory:
                findings.append(Finding(("state_directory",), whose, "give each its own folder", self._directory))
        return findings


def _state_directory(name: str, plan: LocalPlan) -> str:
    """As the resource chooses it, when its state says nothing else."""
    return plan.state_directory or str(default_state_directory(f"{pulumi.get_project()}-{pulumi.get_stack()}-{name}"))


def _observing(plan: LocalPlan) -> dict[str, Any]:
    """What differs from the defaults: others stay as they were declared before there were these."""
    told: dict[str, Any] = {}
    if plan.webhook is not None:
        told["stateWebhook"] = pulumi.Output.secret(plan.webhook)
    if plan.otlp_endpoint is not None:
        told |= {"otlpEndpoint": plan.otlp_endpoint, "traceRatio": plan.trace_ratio}
    if plan.access_log:
        told["accessLog"] = True
    if plan.metrics_port is not None:
        told["metricsPort"] = plan.metrics_port
    return told
