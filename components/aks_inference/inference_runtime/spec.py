"""The rules of an InferenceRuntime."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from aks_inference.findings import Finding, Severity
from aks_inference.images.registry import RegistryPlan, plan_registry
from aks_inference.inference_runtime.routers import DEV_TEST, RoutersPlan, plan_routers, router_findings
from aks_inference.inference_runtime.tls import TlsPlan, plan_tls, url_of
from aks_inference.manifests import Manifest
from aks_inference.names import NAMESPACE
from aks_inference.observed import TRACE_RATIO, observed_findings
from aks_inference.values import (
    Flag,
    Labels,
    LateCounts,
    Leaf,
    Number,
    Object,
    Spec,
    Text,
    Texts,
    Whole,
    is_late,
    read,
)
from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput
from aks_inference_runtime.api.kubernetes import (
    HTTPS_PORT,
    ISSUED_TLS_NAME,
    LANE_CORES,
    MOST_LANES,
    RUNTIME_NAMESPACE,
    TLS_NAME,
    VAULT_TLS_NAME,
    RuntimeSettings,
)
from aks_inference_runtime.api.target import KubernetesTarget

IDLE_TIMEOUT = "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"
LONGEST_IDLE_MINUTES = "30"
_FOLDER = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+")
MODEL_CACHE = "/var/cache/aks-inference/models"
DNS_LABEL = "service.beta.kubernetes.io/azure-dns-label-name"
TLS_SECRETS = (TLS_NAME, ISSUED_TLS_NAME)


RouterCores = Annotated[Number, Field(ge=0.1, le=MOST_LANES * LANE_CORES)]
Purpose = Literal["FastProd", "DenseProd", "DevTest"]
TlsVersion = Literal["1.2", "1.3"]
ServiceType = Literal["LoadBalancer", "NodePort", "ClusterIP"]


class InferenceRuntimeSpec(Spec):
    """The arguments, converted."""

    image: Text | None = None
    registry: Object | None = None
    kubeconfig: Leaf | None = None
    context: Text | None = None
    namespace: Text = RUNTIME_NAMESPACE
    cluster_purpose: Purpose = Field("FastProd", description="use FastProd, DenseProd or DevTest")
    # Each knows `peers.MAX_PEERS` others: all, and the one pod more while they are replaced.
    router_replicas: Annotated[Whole, Field(ge=1, le=32)] | None = Field(None, description="use 1 to 32")
    router_max_replicas: Annotated[Whole, Field(ge=1, le=32)] | None = Field(None, description="use 1 to 32")
    router_cores: RouterCores | None = Field(None, description="use 0.1 to 8")
    router_max_cores: RouterCores | None = Field(None, description="use 0.1 to 8")
    router_latency_threshold_ms: Annotated[Number, Field(ge=0.5, le=1_000)] | None = Field(
        None, description="use 0.5 to 1000 ms"
    )
    router_scale_down_delay_seconds: Annotated[Whole, Field(ge=30, le=86_400)] | None = Field(
        None, description="use 30 to 86400 seconds"
    )
    service_type: ServiceType = Field("LoadBalancer", description="use LoadBalancer, NodePort or ClusterIP")
    service_annotations: Labels
    url: Text | None = None
    image_pull_secrets: Texts = ()
    model_store: Text | None = None
    model_cache: Text | None = None
    model_volumes: Flag = False
    state_webhook: Leaf | None = None
    otlp_endpoint: Text | None = None
    trace_ratio: Annotated[Number, Field(ge=0, le=1)] | None = Field(None, description="use 0 to 1")
    prometheus_operator: Flag = False
    autoscaled_pools: LateCounts = Field(default_factory=dict, description="use 1 node or more for each pool")
    ssl_cname: Leaf | None = None
    ssl_cert_pem_file: Text | None = None
    ssl_key_pem_file: Text | None = None
    ssl_key_vault_secret_id: Text | None = None
    ssl_key_vault_client_id: Leaf | None = None
    ssl_key_vault_tenant_id: Leaf | None = None
    acme_server: Text | None = None
    acme_email: Text | None = None
    minimum_tls_version: TlsVersion | None = Field(None, description="use 1.2 or 1.3")
    allow_insecure_connections: Flag | None = None
    azure_dns_label: Leaf | None = None


@dataclass(frozen=True)
class RuntimePlan:
    """The runtime to put on a cluster."""

    name: str
    image: str
    namespace: str
    purpose: str
    routers: RoutersPlan
    service_type: str
    url: str | None
    kubeconfig: Any = None
    """A text, an output of one, or None for the environment's."""
    context: str | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    registry: RegistryPlan | None = None
    builds: bool = False
    """Whether the image is the one that is looked up, and built where it is nowhere."""
    model_store: str | None = None
    model_cache: str | None = MODEL_CACHE
    model_volumes: bool = False
    pools: Any = field(default_factory=dict)
    """Autoscaled pool → the most nodes that it may have; or an output of it."""
    tls: TlsPlan | None = None
    plain: Any = False
    """With TLS: whether requests are served without it until there is a certificate; or an output of it."""
    webhook: Any = None
    """A text or an output of one: secret."""
    otlp_endpoint: str | None = None
    trace_ratio: float = TRACE_RATIO
    prometheus_operator: bool = False

    @property
    def autoscalers(self) -> int:
        """One leads, the other waits."""
        return 1 if self.purpose == DEV_TEST else 2

    @property
    def address(self) -> Any:  # noqa: ANN401 - a text, an output of one, or None
        """Where clients reach the router, where that is not its Service's own address."""
        return self.url or (None if self.tls is None else url_of(self.tls))

    def settings(
        self, url: str | None, pools: Mapping[str, int] | None = None, *, plain: bool = False
    ) -> RuntimeSettings:
        """What routers and autoscaler are told. `url`: the address, once it is known; `pools` and `plain`: those, if
        they were not."""
        tls = {}
        if self.tls is not None:
            tls = {
                "https_port": HTTPS_PORT,
                "minimum_tls_version": self.tls.minimum_version,
                "allow_insecure_connections": self.tls.allow_insecure,
                "tls_secrets": _tls_secrets(self.tls),
                "plain_until_certificate": plain or None,
            }
        return RuntimeSettings(
            **tls,
            namespace=self.namespace,
            cluster_purpose=self.purpose,
            url=url,
            **self.routers.settings,
            autoscaled_pools={name: int(most) for name, most in (self.pools if pools is None else pools).items()},
        )

    @property
    def pull(self) -> list[Manifest]:
        """`imagePullSecrets` of a pod."""
        return [{"name": name} for name in self.pull_secrets]

    @property
    def hidden(self) -> dict[str, Any]:
        """What of the target is secret, as it is given: some of it may be known only later."""
        given = {"kubeconfig": self.kubeconfig, **(self.registry.login if self.registry else {})}
        return {name: value for name, value in given.items() if value is not None}

    def target(
        self, kubeconfig: str | None = None, username: str | None = None, password: str | None = None
    ) -> KubernetesTarget:
        """What services name, with what of it is secret as far as it is known."""
        login = {"username": username, "password": password}
        return KubernetesTarget(
            name=self.name,
            cluster_purpose=self.purpose,
            namespace=self.namespace,
            image=self.image,
            kubeconfig=kubeconfig,
            context=self.context,
            registry=self.registry.settings.model_copy(update=login) if self.registry else None,
            model_store=self.model_store,
            model_cache=self.model_cache,
            model_volumes=self.model_volumes,
            otlp_endpoint=self.otlp_endpoint,
            trace_ratio=self.trace_ratio,
        )


def plan_runtime(name: str, declared: Mapping[str, Any]) -> tuple[RuntimePlan | None, list[Finding]]:
    """The plan, or what is wrong."""
    got = read(InferenceRuntimeSpec, declared)
    spec, findings = got.spec, list(got.findings)
    registry, image = None, spec.image
    if spec.registry is not None:
        registry, wrong = plan_registry(spec.registry)
        findings += wrong
        if image is None and registry is not None:
            image, wrong = _own_image(registry)
            findings += wrong
    elif image is None and got.whole("image", "registry"):
        mend = "add `@image`, or `@registry` to have it built"
        findings.append(Finding(("image",), "is required, or @registry", mend))
    findings += NAMESPACE.check(("namespace",), spec.namespace)
    if spec.namespace == "default":
        rule = "is shared: the router may read every Secret of its namespace"
        findings.append(Finding(("namespace",), rule, "give the runtime a namespace of its own", spec.namespace))
    findings += router_findings(got)
    if spec.url is not None and not spec.url.startswith(("https://", "http://")):
        findings.append(Finding(("url",), "is no web address", "begin it with https:// or http://", spec.url))
    if isinstance(spec.kubeconfig, str) and not is_late(spec.kubeconfig) and not spec.kubeconfig.strip():
        findings.append(Finding(("kubeconfig",), "is empty", "give its content or path, or leave it out"))
    findings += observed_findings(
        spec.state_webhook, spec.otlp_endpoint, spec.trace_ratio, whole=got.whole("otlp_endpoint", "trace_ratio")
    )
    store, wrong = _store(spec.model_store)
    findings += wrong
    if spec.model_cache and not _FOLDER.fullmatch(spec.model_cache):
        rule = "is no absolute folder of a node"
        findings.append(Finding(("model_cache",), rule, f"give a path such as {MODEL_CACHE}", spec.model_cache))
    if spec.model_volumes and store is not None and not store.startswith("oci://"):
        rule = "mounts models of registries, and @model_store is none"
        findings.append(Finding(("model_volumes",), rule, "leave it out, or keep models in oci://"))
    tls, wrong = plan_tls(spec)
    findings += wrong
    if tls is not None and spec.url is not None and not spec.url.startswith("https://"):
        findings.append(
            Finding(("url",), "is no https address, and the router speaks TLS", "begin it with https://", spec.url)
        )
    if any(finding.severity is Severity.ERROR for finding in findings) or image is None:
        return None, findings
    annotations: dict[str, Any] = {IDLE_TIMEOUT: LONGEST_IDLE_MINUTES, **spec.service_annotations}
    if spec.azure_dns_label is not None:
        annotations[DNS_LABEL] = spec.azure_dns_label
    return RuntimePlan(
        name=name,
        image=image,
        namespace=spec.namespace,
        purpose=spec.cluster_purpose,
        routers=plan_routers(spec),
        service_type=spec.service_type,
        url=spec.url.rstrip("/") if spec.url else None,
        kubeconfig=spec.kubeconfig,
        context=spec.context,
        annotations=annotations,
        pull_secrets=spec.image_pull_secrets,
        registry=registry,
        builds=spec.image is None,
        model_store=store,
        model_cache=MODEL_CACHE if spec.model_cache is None else spec.model_cache or None,
        model_volumes=spec.model_volumes,
        pools=spec.autoscaled_pools,
        webhook=spec.state_webhook,
        otlp_endpoint=spec.otlp_endpoint,
        trace_ratio=TRACE_RATIO if spec.trace_ratio is None else spec.trace_ratio,
        prometheus_operator=spec.prometheus_operator,
        tls=tls,
    ), findings


def _tls_secrets(tls: TlsPlan) -> tuple[str, ...]:
    """The one that is meant first; the others serve while it is being made."""
    if tls.vault is not None:
        return (VAULT_TLS_NAME, *TLS_SECRETS)
    return TLS_SECRETS if tls.certificate is not None else TLS_SECRETS[::-1]


def _own_image(registry: RegistryPlan) -> tuple[str | None, list[Finding]]:
    """By what is in it: known before it is built, so that services are planned on it."""
    # Loaded here: who gives an image does not wait for what talks to registries.
    from aks_inference_runtime.images.own import runtime_image

    try:
        return str(runtime_image(registry.settings.server)), []
    except AksInferenceError as error:
        return None, [Finding(("image",), str(error), "")]


def _store(text: str | None) -> tuple[str | None, list[Finding]]:
    """The address in its one form; pods must reach it."""
    if text is None:
        return None, []
    from aks_inference_runtime.models.stores import parse_store

    try:
        address = parse_store(text)
    except InvalidInput as error:
        return None, [Finding(("model_store",), str(error), "", text)]
    if address.startswith("/"):
        rule = "is a folder of this machine, which no pod can reach"
        return None, [Finding(("model_store",), rule, "use az://… or oci://…", text)]
    return address, []
