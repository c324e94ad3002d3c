"""The names that the components declare and the runtime in a cluster looks for: workloads, labels, ports, settings."""

import hashlib
import re
from typing import Literal

from pydantic import Field

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.endpoint import GROUP

RUNTIME_NAMESPACE = "aks-inference-system"
"""Default namespace of routers and autoscaler. Secrets in it are the runtime's own: the router may read them all."""

ENDPOINT_LABEL = f"{GROUP}/endpoint"
"""On Deployments, pods, Services (and so EndpointSlices) and the Secret of an endpoint: its name."""
SPOT_KEY = "kubernetes.azure.com/scalesetpriority"
"""Of the taint that AKS puts on spot nodes, with the label of the same name (spot-node-pool.md)."""
LINUX_NODES = {"kubernetes.io/os": "linux"}
"""Node selector of all pods: a cluster may have Windows nodes, which run no image of Linux. Kubelets set the label."""
VERSION_LABEL = f"{GROUP}/version"
"""On Deployments, pods and Services: `version_label` of the version's name."""
POD_TEMPLATE_ANNOTATION = f"{GROUP}/pod-template"
"""On Deployments: the digest that their version has of their pods (`podTemplate`)."""
COMPONENT_LABEL = "app.kubernetes.io/component"
PART_OF_LABEL = "app.kubernetes.io/part-of"
PART_OF = "aks-inference"
STACK_ANNOTATION = f"{GROUP}/stack"
"""On the router's Deployment: `stack_mark` of the stack that declares the runtime."""
DECLARER_ANNOTATION = f"{GROUP}/declared-by"
"""On a ScoringEndpoint: the URN of the component that declares it."""
REPLICA_COMPONENT = "replica"
ROUTER_COMPONENT = "router"
AUTOSCALER_COMPONENT = "autoscaler"
CERTIFICATE_COMPONENT = "certificate"

ROUTER_NAME = "aks-inference-router"
"""Deployment, Service and ServiceAccount of the router."""
ROUTER_PEERS_NAME = "aks-inference-router-peers"
"""Headless Service over all router pods, ready or not."""
AUTOSCALER_NAME = "aks-inference-autoscaler"
"""Deployment, ServiceAccount and Lease of the autoscaler."""
CERTIFICATE_NAME = "aks-inference-certificate"
"""Deployment of the pod that mounts the Key Vault's certificate."""
CERTIFICATE_HOST_VARIABLE = "AKS_INFERENCE_TLS_HOST"
"""Environment variable of that pod: the host that the certificate must be for."""
SETTINGS_VARIABLE = "AKS_INFERENCE_SETTINGS"
"""Environment variable with RuntimeSettings as JSON, or with the path of a file of them."""
TLS_NAME = "aks-inference-router-tls"
"""Secret of type kubernetes.io/tls in the runtime's namespace with a certificate that was given."""
ISSUED_TLS_NAME = "aks-inference-router-issued"
"""The same with one that cert-manager had issued; also the name of its Issuer and its Certificate."""
ACME_ACCOUNT_NAME = "aks-inference-acme-account"
"""Secret with the key of the account at the certificate authority; cert-manager makes it."""
VAULT_TLS_NAME = "aks-inference-router-vault"
"""The same with one from a Key Vault, made by the Secrets Store CSI driver; also its SecretProviderClass' name."""
TLS_CHAIN_FIELD = "tls.crt"
TLS_KEY_FIELD = "tls.key"
TLS_TYPE = "kubernetes.io/tls"
SOLVER_LABEL = "acme.cert-manager.io/http01-solver"
"""On cert-manager's pods that answer challenges: `true`."""
WEBHOOK_NAME = "aks-inference-webhook"
"""Secret in the runtime's namespace; its key `url` is where changed states are told to."""
WEBHOOK_KEY = "url"
WEBHOOK_VARIABLE = "AKS_INFERENCE_WEBHOOK"
"""Environment variable of the autoscaler: the file with that address."""
ROUTER_TOKEN_NAME = "aks-inference-router-token"  # noqa: S105 - an object's name
"""Secret with what routers prove to each other that they are routers with; mounted as a file."""
ROUTER_TOKEN_FIELD = "token"  # noqa: S105 - a field's name
ROUTER_TOKEN_VARIABLE = "AKS_INFERENCE_ROUTER_TOKEN"  # noqa: S105 - a variable's name
"""Environment variable with the path of that file."""
KEYS_SUFFIX = "-key-digests"
KEYS_FIELD = "digests"
"""Field of an endpoint's Secret: SHA-256 hex digests of the accepted keys, one a line. Keys never reach the cluster."""

HTTP_PORT = 8080
"""Router: requests of clients, plain."""
HTTPS_PORT = 8443
OWNER_PORT = 8081
"""Router: requests that another router forwards to the endpoint's owner."""
MOST_LANES = 4
"""Pairs of HAProxy processes in one router pod: see `router_lanes`."""
LANE_PORTS = range(8101, 8101 + MOST_LANES - 1)
"""Router: the same as the owner's of its lanes after the first."""
LANE_CORES = 2
"""Each process of a lane has one thread."""
AGENT_PORT = 8082
"""Router and autoscaler: /livez, /readyz, /metrics; router: the load of what it owns."""
GATE_PORT = 8891
"""Replica: requests of routers."""
GATE_CONTROL_PORT = 8892
"""Replica: the gate's control, JSON lines over TCP."""
GATE_READY_PORT = 8893
"""Replica: `GET /readyz` answers 200 when the gate is ready, else 503; the kubelet's readiness probe."""
REPLICA_LIVENESS_PATH = "/livez/replica"
"""At that port, of the scoring container: 200 while its port takes connections and what it was given comes back."""
HUNG_AFTER_MS = 30_000
"""Beyond its scoring timeout a score may be without a sign for so long: the scoring server ends one a second after it,
a library that does not return may take longer."""

GATE_VARIABLE = "AKS_INFERENCE_GATE"
"""Environment variable of the gate's container: GateSettings as JSON, without the replica's id."""
REPLICA_VARIABLE = "POD_UID"
"""Environment variable of the gate's container: the replica's id, unique for ever."""

READY_CONDITION = "Ready"
"""Condition of a ScoringEndpoint: every version has the replicas it needs, and the routers serve this generation."""
FAILED_REASON = "Failed"
"""Reason of `Ready=False` that does not mend itself: who waits may stop."""

ROUTER_CORES = 0.25
"""Request of a router's pod where nothing else is said."""

_LONGEST_NAME = 63 - 11
"""Of a Deployment, so that its pods' names still are labels: a dash and ten characters of the template's hash."""
_HASH_LENGTH = 8
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


class RuntimeSettings(Wire):
    """What routers and autoscaler of one cluster are told, as JSON in `AKS_INFERENCE_SETTINGS`."""

    namespace: str = RUNTIME_NAMESPACE
    cluster_purpose: str = "FastProd"
    """FastProd, DenseProd or DevTest; DevTest has one router that does not scale itself."""
    url: str | None = None
    """Where clients reach the router; None: the address of the Service `aks-inference-router`."""
    http_port: int = Field(HTTP_PORT, ge=0, le=65_535)
    https_port: int | None = Field(None, ge=0, le=65_535)
    """Where TLS is spoken; None: nowhere."""
    tls_secrets: tuple[str, ...] = (TLS_NAME, ISSUED_TLS_NAME)
    """Secrets in the runtime's namespace with the certificate, the first that is there counts. Two, so that one is
    there while the other is being made."""
    minimum_tls_version: Literal["1.2", "1.3"] = "1.2"
    allow_insecure_connections: bool = False
    """With TLS: whether requests are served without it, too."""
    plain_until_certificate: bool | None = None
    """With TLS: whether they are until there is a certificate. Said only where it is so."""
    owner_port: int = Field(OWNER_PORT, ge=0, le=65_535)
    agent_port: int = Field(AGENT_PORT, ge=0, le=65_535)
    router_min_pods: int = Field(1, ge=1)
    router_max_pods: int = Field(1, ge=1)
    """The same as the minimum, for cores too: routers do not scale themselves."""
    router_min_cores: float = Field(ROUTER_CORES, gt=0)
    """That a router's pod asks for at first and at least."""
    router_max_cores: float = Field(ROUTER_CORES, gt=0)
    router_latency_threshold_ms: float = Field(3.0, gt=0)
    """Routing that takes longer for `router_scale_up_delay_s` is a reason for more."""
    router_scale_up_delay_s: float = Field(10.0, gt=0)
    router_scale_down_delay_s: float = Field(300.0, gt=0)
    autoscaled_pools: dict[str, int] = Field(default_factory=dict)
    """Name of an autoscaled node pool (label `kubernetes.azure.com/agentpool`) → the most nodes that it may have."""
    retry_lost_requests: bool = True
    """Requests that died with an owner before a byte of the answer are sent again once: at least once, not at most."""


def stack_mark(project: str, stack: str) -> str:
    """`project/stack`: what one stack applies is told from what another one does."""
    return f"{project}/{stack}"


def declarer(urn: str) -> str:
    """The URN of the component whose name a child of it has, too. `urn`: the child's."""
    stack, project, types, name = urn.split("::", 3)
    return "::".join((stack, project, types.rpartition("$")[0], name))


def router_lanes(cpu_m: int) -> int:
    """Lanes of a router pod that asks for so many thousandths of a core.

    A lane is a process that clients reach and the one with the queues of the endpoints that it owns.
    """
    return max(1, min(MOST_LANES, cpu_m // (LANE_CORES * 1000)))


def workload_name(endpoint: str, version: str) -> str:
    """Name of a version's Deployment and Service: `<endpoint>-<version>`, cut and hashed where that is no such name."""
    plain = f"{endpoint}-{version}"
    if len(plain) <= _LONGEST_NAME and re.fullmatch(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", plain):
        return plain
    # Two pairs may read alike with a dash between them; those that are hashed keep them apart.
    digest = hashlib.sha256(f"{endpoint}\0{version}".encode()).hexdigest()[:_HASH_LENGTH]
    readable = re.sub(r"[^a-z0-9-]", "-", plain.lower())[: _LONGEST_NAME - _HASH_LENGTH - 1].rstrip("-")
    return f"{readable}-{digest}"


def version_label(version: str) -> str:
    """The version's name where it can be a label's value, else its start and a hash."""
    if _LABEL.fullmatch(version):
        return version
    digest = hashlib.sha256(version.encode()).hexdigest()[:_HASH_LENGTH]
    readable = re.sub(r"[^A-Za-z0-9_.-]", "-", version)[: 63 - _HASH_LENGTH - 3].strip("-_.")
    return f"v-{readable}-{digest}" if readable else f"v-{digest}"


def keys_secret_name(endpoint: str) -> str:
    """Name of the Secret, in the runtime's namespace, with the digests of an endpoint's keys."""
    return f"{endpoint}{KEYS_SUFFIX}"
