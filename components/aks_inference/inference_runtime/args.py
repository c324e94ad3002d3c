"""Arguments of InferenceRuntime, as they come over the wire."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import pulumi

from aks_inference.images.args import RegistryArgs


class InferenceRuntimeArgs(TypedDict):
    """Which cluster, and what of the runtime is put there."""

    image: NotRequired[str | None]
    """Conditional. Image that holds this package with `python` on PATH: routers, autoscaler and the gates beside the
    replicas run from it. This or `registry` is required. Default: found in the registry, or built and pushed there."""
    registry: NotRequired[RegistryArgs | None]
    """Optional. Where images of services without one, and the runtime's own, are looked up and built to. Default: none,
    every service names its image."""
    kubeconfig: NotRequired[pulumi.Input[str] | None]
    """Optional. Secret. Content or path of a kubeconfig. Default: that of the environment (KUBECONFIG,
    `~/.kube/config`) where the stack is applied."""
    context: NotRequired[str | None]
    """Optional. Context of the kubeconfig. Default: its current one."""
    namespace: NotRequired[str | None]
    """Optional. Namespace of the runtime, made for it. Default: aks-inference-system."""
    cluster_purpose: NotRequired[str | None]
    """Optional. FastProd, DenseProd or DevTest. DevTest has one router and one autoscaler. Default: FastProd."""
    router_replicas: NotRequired[int | None]
    """Optional. Router pods to begin with and at least, 1 to 32. Default: 3; DevTest: 1, and no other value."""
    router_max_replicas: NotRequired[int | None]
    """Optional. Router pods at most, 1 to 32: while routing is slow there is one more after the other, as far as the
    nodes have room. Default: 8, or `router_replicas` if that is more; DevTest: 1, and no other value."""
    router_cores: NotRequired[float | None]
    """Optional. Cores that each router's pod asks for at first and at least, 0.1 to 8. Default: 0.25."""
    router_max_cores: NotRequired[float | None]
    """Optional. Cores that each may come to ask for while routing is slow, before there are more pods: where its node
    has room and the cluster resizes pods in place (Kubernetes 1.33). Up to 8: a router has a pair
    of HAProxy processes for every two cores. Default: 2, or `router_cores` if that is more; DevTest: `router_cores`,
    and no other value."""
    router_latency_threshold_ms: NotRequired[float | None]
    """Optional. Routing that takes longer for ten seconds, without any wait for a replica, is slow; 0.5 to 1,000 ms.
    Default: 3."""
    router_scale_down_delay_seconds: NotRequired[int | None]
    """Optional. Less CPU used for so long takes cores, then pods away again, 30 to 86,400. Default: 300."""
    service_type: NotRequired[str | None]
    """Optional. How clients reach the router: LoadBalancer, NodePort or ClusterIP. Default: LoadBalancer."""
    service_annotations: NotRequired[Mapping[str, str] | None]
    """Optional. Of the router's Service, for an internal load balancer for example. Default: only that AKS's load
    balancer keeps idle connections for 30 minutes, its longest (4 would cut longer scores)."""
    url: NotRequired[str | None]
    """Optional. Where clients reach the router (`https://scoring.example.com`), where something stands in front of
    it. Default: the address of its Service."""
    image_pull_secrets: NotRequired[Sequence[str] | None]
    """Optional. Names of Secrets in the runtime's namespace. Default: none, the nodes' own rights."""
    model_store: NotRequired[str | None]
    """Optional. Store of the models that are registered with this runtime as their target, and of those that services
    name as `name:version`: `az://account/container[/prefix]` or `oci://registry[/repository]`. Default: none, each
    model has a store of its own."""
    model_cache: NotRequired[str | None]
    """Optional. Absolute folder of the nodes that their replicas share to fetch each model once; an empty text: none,
    for namespaces that forbid volumes of the host. Default: /var/cache/aks-inference/models."""
    model_volumes: NotRequired[bool | None]
    """Optional. Nodes mount models in registries (`oci://`) as image volumes; no init container fetches them. Needs
    Kubernetes 1.35, or its feature gate ImageVolume from 1.31 on, and containerd 2.1 or CRI-O 1.31: looked up at
    preview. Up to 32 models a version, all of them in registries: others are fetched. With a `model_store` of another
    kind it is refused. Default: false."""
    state_webhook: NotRequired[pulumi.Input[str] | None]
    """Optional. Secret. Where each changed state of an endpoint is told to (a POST of JSON; chat systems show its
    `text`). Kubernetes events tell it in any case. Default: none."""
    otlp_endpoint: NotRequired[str | None]
    """Optional. OpenTelemetry collector (OTLP over HTTP, such as `http://collector.monitoring:4318`) that gets the
    requests' traces. Default: none, nothing is traced."""
    trace_ratio: NotRequired[float | None]
    """Optional. Share of the requests that are traced, 0 to 1, where their caller does not decide it by `traceparent`.
    Default: 0.1."""
    prometheus_operator: NotRequired[bool | None]
    """Optional. Declares PodMonitors and the alert rules as a PrometheusRule, for the Prometheus operator. Default:
    false."""
    autoscaled_pools: NotRequired[Mapping[str, int] | None]
    """Optional. Node pools that a cluster autoscaler enlarges, by the label `kubernetes.azure.com/agentpool`, and
    the most nodes of each: replicas are also wanted for which nodes would still have to come. Default: none, what the
    nodes hold that are there. An AksInferenceCluster knows its own."""
    ssl_cname: NotRequired[pulumi.Input[str] | None]
    """Optional. The host that clients ask for; turns TLS on, with two files or `acme_server`. Its record in the DNS is
    yours to make. Default: no TLS."""
    ssl_cert_pem_file: NotRequired[str | None]
    """Optional. Path of the certificate in PEM form, its issuers' behind it. Read and checked at preview. A change
    reaches new connections without a failed request."""
    ssl_key_pem_file: NotRequired[str | None]
    """Optional. Path of its key in PEM form, not encrypted. Secret in the stack's state and in the cluster."""
    ssl_key_vault_secret_id: NotRequired[str | None]
    """Optional. Instead of two files: a certificate in a Key Vault, `https://<vault>.vault.azure.net/secrets/<name>`,
    which the add-on of AKS for Key Vault (Secrets Store CSI driver) brings into the cluster. Without a version renewals
    are followed, without a failed request."""
    ssl_key_vault_client_id: NotRequired[pulumi.Input[str] | None]
    """Optional. With `ssl_key_vault_secret_id`: client id of a managed identity of the nodes that may read secrets of
    the vault (Key Vault Secrets User). An AksInferenceCluster knows its own."""
    ssl_key_vault_tenant_id: NotRequired[pulumi.Input[str] | None]
    """Optional. With `ssl_key_vault_secret_id`: tenant of the vault. An AksInferenceCluster knows its own."""
    acme_server: NotRequired[str | None]
    """Optional. Instead of two files: the directory of a certificate authority (ACME), from which cert-manager, which
    must be on the cluster, gets and renews a certificate for `ssl_cname`."""
    acme_email: NotRequired[str | None]
    """Optional. For the account at the certificate authority. Default: none."""
    minimum_tls_version: NotRequired[str | None]
    """Optional. `1.2` or `1.3`. Default: 1.2, with 1.3 on."""
    allow_insecure_connections: NotRequired[bool | None]
    """Optional. With TLS: serves requests without it, too. Default: false, they get 400."""
    azure_dns_label: NotRequired[pulumi.Input[str] | None]
    """Optional. On AKS: the public address is also reached as `<label>.<region>.cloudapp.azure.com`. Default: not."""
