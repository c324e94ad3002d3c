"""Where something runs: a cluster component, its `target` output, or the text of one."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aks_inference.findings import Finding
from aks_inference.values import is_late
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, parse_target

if TYPE_CHECKING:
    from aks_inference.component import Cluster

NO_RUNTIME = "names a cluster without the inference runtime"
USE_RUNTIME = "give the AksInferenceCluster its @runtime, or put an InferenceRuntime on the cluster and name that"
NO_MODELS = "names a cluster that keeps no models"
GIVE_STORE = "give its runtime @model_store, or the model a @store in place of the target"


@dataclass(frozen=True)
class TargetChoice:
    """A target as far as it is known while the program runs."""

    value: Any
    """A text or an output of one."""
    local: bool | None
    """None: an output whose cluster is not in sight."""
    name: str | None
    port: int | None = None
    kubernetes: KubernetesTarget | None = None
    """The cluster, as far as it is known; None for a local target or one that is not in sight."""
    cluster: "Cluster | None" = None
    """Its component, where that is in sight."""
    state_directory: str | None = None
    """Of a local target, as far as it is known."""
    metrics_port: int | None = None
    """The same."""

    @property
    def on_cluster(self) -> bool:
        """Whether it is a Kubernetes cluster with the runtime."""
        return self.kubernetes is not None and self.kubernetes.namespace is not None

    @property
    def key(self) -> object:
        """Equal for services on the same target, as far as that is known."""
        return self.name if self.name is not None else id(self.value)


def choose_target(given: object) -> tuple[TargetChoice | None, list[Finding]]:
    """The target that an argument means, and what is wrong with it. None: not given."""
    if given is None:
        return None, []
    if isinstance(given, str):
        return _of_text(given)
    if (cluster := _cluster(given)) is not None:
        return _of_cluster(cluster), []
    if not is_late(given):
        mend = "pass a cluster component or its `target` output"
        return None, [Finding(("target",), f"an object of type {type(given).__name__} is not a target", mend)]
    from aks_inference.program import given_target

    told = given_target()
    choice, findings = (None, []) if told.text is None else _of_text(told.text, hidden=told.secret)
    cluster = _declared(given, told.urns)
    if cluster is not None and (choice is None or choice.name == cluster._resource_name):
        # The same at preview and at apply, when the text is known too: what stands on it is then the same.
        return replace(_of_cluster(cluster), value=given), []
    if told.text is not None:
        return (replace(choice, value=given) if choice else None), findings
    return TargetChoice(given, None, None), []


def target_findings(choice: TargetChoice | None) -> Iterator[Finding]:
    """Errors about targets that nothing can run on yet."""
    if choice is not None and choice.local is False and not choice.on_cluster:
        yield Finding(("target",), NO_RUNTIME, USE_RUNTIME)


def model_target_findings(choice: TargetChoice | None) -> Iterator[Finding]:
    """Errors about targets that keep no models."""
    if choice is not None and choice.local is False and model_store(choice) is None:
        yield Finding(("target",), NO_MODELS, GIVE_STORE)


def model_store(choice: TargetChoice) -> str | None:
    """The store of models of a Kubernetes target; None: it has none, or the target is local."""
    return None if choice.kubernetes is None else choice.kubernetes.model_store


def checked_target(choice: TargetChoice) -> object:
    """The target for a child; one that was not in sight is checked as soon as it is known."""
    import pulumi

    if choice.local is not None:
        return choice.value

    def check(text: str) -> str:
        _, findings = _of_text(text)
        found, _ = choose_target(text)
        for finding in [*findings, *target_findings(found)]:
            raise pulumi.RunError(f"target: {finding.rule}; {finding.mend}")
        if found is not None and not found.local:
            # What is declared there are other resources, which must be declared while the program runs.
            raise pulumi.RunError("target: a Kubernetes target must be known at preview; pass its component or text")
        return text

    return pulumi.Output.from_input(choice.value).apply(check)


def _cluster(given: object) -> "Cluster | None":
    if "pulumi" not in sys.modules:
        return None  # no component can be there, and checks without a stack start sooner
    from aks_inference.component import Cluster

    return given if isinstance(given, Cluster) else None


def _declared(given: object, urns: frozenset[str]) -> "Cluster | None":
    """The cluster of this program or deployment that an output is the target of."""
    from aks_inference.component import Cluster
    from aks_inference.program import peers

    # The target of a cluster may come from an earlier one, as its kubeconfig does: the last one is meant.
    for component in reversed(peers()):
        if isinstance(component, Cluster) and (component._target is given or component._known_urn in urns):
            return component
    return None


def _of_cluster(cluster: "Cluster") -> TargetChoice:
    return TargetChoice(
        cluster._target,
        cluster._local,
        cluster._resource_name,
        getattr(cluster, "_port", None),
        getattr(cluster, "_kubernetes", None),
        cluster,
        getattr(cluster, "_state_directory", None),
        getattr(cluster, "_metrics_port", None),
    )


@lru_cache(maxsize=16)
def _parsed(text: str) -> LocalTarget | KubernetesTarget:
    """The services of a cluster name the same text. Raises InvalidInput."""
    return parse_target(text)


def _of_text(text: str, *, hidden: bool = False) -> tuple[TargetChoice | None, list[Finding]]:
    try:
        target = _parsed(text)
    except InvalidInput as error:
        rule = "is a secret text that is no target" if hidden else str(error)
        return None, [Finding(("target",), rule, "pass the `target` output of a cluster component")]
    if isinstance(target, LocalTarget):
        return TargetChoice(text, True, target.name, target.port, state_directory=target.state_directory), []
    return TargetChoice(text, False, target.name, None, target), []
