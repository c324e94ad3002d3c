"""The rules of an InferenceRuntime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from aks_inference.findings import Finding
from aks_inference.kubernetes import Manifest
from aks_inference.names import NAMESPACE
from aks_inference.values import Labels, Leaf, Spec, Text, Texts, Whole, is_late, read
from aks_inference_runtime.api.kubernetes import RUNTIME_NAMESPACE, RuntimeSettings
from aks_inference_runtime.api.target import KubernetesTarget

DEV_TEST = "DevTest"
ROUTERS = 3
"""Of azureml-fe on a cluster for production (source document 002)."""
IDLE_TIMEOUT = "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"
LONGEST_IDLE_MINUTES = "30"


Purpose = Literal["FastProd", "DenseProd", "DevTest"]
ServiceType = Literal["LoadBalancer", "NodePort", "ClusterIP"]


class InferenceRuntimeSpec(Spec):
    """The arguments, converted."""

    image: Text | None = None
    kubeconfig: Leaf | None = None
    context: Text | None = None
    namespace: Text = RUNTIME_NAMESPACE
    cluster_purpose: Purpose = Field("FastProd", description="use FastProd, DenseProd or DevTest")
    router_replicas: Annotated[Whole, Field(ge=1, le=100)] | None = Field(None, description="use 1 to 100")
    service_type: ServiceType = Field("LoadBalancer", description="use LoadBalancer, NodePort or ClusterIP")
    service_annotations: Labels
    url: Text | None = None
    image_pull_secrets: Texts = ()


@dataclass(frozen=True)
class RuntimePlan:
    """The runtime to put on a cluster."""

    name: str
    image: str
    namespace: str
    purpose: str
    routers: int
    service_type: str
    url: str | None
    kubeconfig: Any = None
    """A text, an output of one, or None for the environment's."""
    context: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()

    @property
    def autoscalers(self) -> int:
        """One leads, the other waits."""
        return 1 if self.purpose == DEV_TEST else 2

    @property
    def settings(self) -> RuntimeSettings:
        """What routers and autoscaler are told."""
        return RuntimeSettings(
            namespace=self.namespace,
            cluster_purpose=self.purpose,
            url=self.url,
            router_min_pods=self.routers,
            router_max_pods=self.routers,
        )

    @property
    def pull(self) -> list[Manifest]:
        """`imagePullSecrets` of a pod."""
        return [{"name": name} for name in self.pull_secrets]

    def target(self, kubeconfig: str | None) -> KubernetesTarget:
        """What services name, with the kubeconfig as it is known."""
        return KubernetesTarget(
            name=self.name,
            cluster_purpose=self.purpose,
            namespace=self.namespace,
            image=self.image,
            kubeconfig=kubeconfig,
            context=self.context,
        )


def plan_runtime(name: str, declared: Mapping[str, Any]) -> tuple[RuntimePlan | None, list[Finding]]:
    """The plan, or what is wrong."""
    got = read(InferenceRuntimeSpec, declared, ("image",))
    spec, findings = got.spec, list(got.findings)
    findings += NAMESPACE.check(("namespace",), spec.namespace)
    if spec.namespace == "default":
        rule = "is shared: the router may read every Secret of its namespace"
        findings.append(Finding(("namespace",), rule, "give the runtime a namespace of its own", spec.namespace))
    one = spec.cluster_purpose == DEV_TEST
    if one and spec.router_replicas not in (None, 1):
        rule = "DevTest has one router"
        findings.append(Finding(("router_replicas",), rule, "leave it out, or use FastProd", spec.router_replicas))
    if spec.url is not None and not spec.url.startswith(("https://", "http://")):
        findings.append(Finding(("url",), "is no web address", "begin it with https:// or http://", spec.url))
    if isinstance(spec.kubeconfig, str) and not is_late(spec.kubeconfig) and not spec.kubeconfig.strip():
        findings.append(Finding(("kubeconfig",), "is empty", "give its content or path, or leave it out"))
    if findings or spec.image is None:
        return None, findings
    return RuntimePlan(
        name=name,
        image=spec.image,
        namespace=spec.namespace,
        purpose=spec.cluster_purpose,
        routers=spec.router_replicas or (1 if one else ROUTERS),
        service_type=spec.service_type,
        url=spec.url.rstrip("/") if spec.url else None,
        kubeconfig=spec.kubeconfig,
        context=spec.context,
        annotations={IDLE_TIMEOUT: LONGEST_IDLE_MINUTES, **spec.service_annotations},
        pull_secrets=spec.image_pull_secrets,
    ), []
