"""What the runtime keeps of the API server's objects. Pure."""

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from aks_inference_runtime.api.certificates import Certificate, usable
from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.kubernetes import (
    ENDPOINT_LABEL,
    KEYS_FIELD,
    ROUTER_COMPONENT,
    TLS_CHAIN_FIELD,
    TLS_KEY_FIELD,
    VERSION_LABEL,
)
from aks_inference_runtime.kubernetes.client import Object
from aks_inference_runtime.kubernetes.quantities import quantity

_log = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Declared:
    """A ScoringEndpoint."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    """RFC 3339 in UTC: sorts as it reads."""
    spec: EndpointSpec
    status: Mapping[str, Any] | None = None
    """Of what was last written what the next status needs; only the autoscaler keeps it."""


@dataclass(frozen=True, slots=True)
class ReplicaEndpoint:
    """A replica, as its EndpointSlice has it."""

    id: str
    """The pod's uid and a digest of its address: a pod whose sandbox is made anew keeps its uid, and all else of it is
    new. Every router makes the same."""
    address: str
    port: int
    control_port: int
    ready: bool
    terminating: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice of a version."""

    namespace: str
    endpoint: str
    version_label: str
    replicas: tuple[ReplicaEndpoint, ...]


@dataclass(frozen=True, slots=True)
class RouterPod:
    """A router, possibly this one."""

    name: str
    address: str
    node: str = ""
    cpu_m: int = 0
    """Thousandths of a core that its container may count on now; 0: it asks for none."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """A router, as the autoscaler listens to it."""

    address: str
    ready: bool
    """Whether clients reach it: it then serves what is declared."""


@dataclass(frozen=True, slots=True)
class Digests:
    """The accepted keys of an endpoint."""

    endpoint: str
    digests: frozenset[str]


@dataclass(frozen=True, slots=True)
class TlsSecret:
    """A Secret of type kubernetes.io/tls."""

    name: str
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class SolverPod:
    """A pod of cert-manager that answers a certificate authority's challenge."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A ScoringEndpoint that cannot be read, though the API server took it."""

    namespace: str
    name: str
    uid: str
    generation: int
    why: str
    status: Mapping[str, Any]
    """As it stood there."""


def declared(
    found: Object, before: Declared | None = None, refused: Callable[[Refused], None] | None = None
) -> Declared | None:
    """A ScoringEndpoint without its status; one that cannot be read (the API server checks them) is left out.

    Args:
        found: Required. The object.
        before: Optional. What was kept of it until now: each writing of a status is told, and changes nothing of the
            declaration, whose number then stays.
        refused: Optional. Told of one that cannot be read.
    """
    metadata = found["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    uid, generation = metadata.get("uid", ""), int(metadata.get("generation", 0))
    if before is not None and generation and (before.uid, before.generation) == (uid, generation):
        return before
    try:
        # Who declares may be of a newer release than this one.
        spec = EndpointSpec.model_validate(_to_hundredths(found["spec"]), extra="ignore")
    except ValidationError as error:
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        _log.error("ScoringEndpoint %s/%s cannot be served: %s", namespace, name, error)
        if refused is not None:
            why = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'spec'}: {one['msg']}" for one in error.errors())
            refused(Refused(namespace, name, uid, generation, why, found.get("status") or {}))
        return None
    return Declared(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=uid,
        generation=generation,
        created=metadata.get("creationTimestamp", ""),
        spec=spec,
    )


def _to_hundredths(spec: Object) -> Object:
    """Percentages as they are meant: 48.300000000000004, a sum of floats, passes the API server's rule."""
    return {**spec, "versions": [{**version, **_rounded(version)} for version in spec.get("versions") or ()]}


def _rounded(version: Object) -> dict[str, float]:
    percent = version.get("trafficPercentile")
    return {"trafficPercentile": round(percent, 2)} if isinstance(percent, float) else {}


def slice_of(found: Object) -> Slice | None:
    """An EndpointSlice with the ports of gates; others are left out."""
    metadata = found["metadata"]
    labels = metadata.get("labels") or {}
    ports = {port.get("name"): port.get("port") for port in found.get("ports") or ()}
    if ENDPOINT_LABEL not in labels or VERSION_LABEL not in labels or not ports.get("gate"):
        return None
    replicas = []
    for entry in found.get("endpoints") or ():
        target, conditions = entry.get("targetRef") or {}, entry.get("conditions") or {}
        if target.get("uid") and entry.get("addresses"):
            address = entry["addresses"][0]
            replicas.append(
                ReplicaEndpoint(
                    id=f"{target['uid']}-{hashlib.sha256(address.encode()).hexdigest()[:8]}",
                    address=address,
                    port=int(ports["gate"]),
                    control_port=int(ports.get("gate-control") or 0),
                    ready=conditions.get("ready") is not False,
                    terminating=bool(conditions.get("terminating")),
                )
            )
    return Slice(metadata.get("namespace", ""), labels[ENDPOINT_LABEL], labels[VERSION_LABEL], tuple(replicas))


def digests_of(found: Object) -> Digests | None:
    """A Secret with the digests of an endpoint's keys; others are left out."""
    endpoint = (found["metadata"].get("labels") or {}).get(ENDPOINT_LABEL)
    data = (found.get("data") or {}).get(KEYS_FIELD)
    if endpoint is None or data is None:
        return None
    words = base64.b64decode(data).decode("ascii", errors="replace").split()
    return Digests(endpoint, frozenset(word.lower() for word in words if _DIGEST.fullmatch(word)))


def tls_secret(found: Object) -> TlsSecret | None:
    """A Secret with a certificate; one that cannot be served with is left out, so that the one before stays."""
    name, data = found["metadata"]["name"], found.get("data") or {}
    chain, key = (base64.b64decode(data.get(field) or "") for field in (TLS_CHAIN_FIELD, TLS_KEY_FIELD))
    if not chain or not key:
        # cert-manager keeps the key there while the certificate is being issued.
        return None
    try:
        return TlsSecret(name, usable(chain, key))
    except InvalidInput as error:
        _log.error("Secret %s cannot be served with: %s", name, error)
        return None


def solver_pod(found: Object) -> SolverPod | None:
    """A solver that has an address; its port is the container's."""
    if (pod := router_pod(found)) is None:
        return None
    ports = [port["containerPort"] for c in found["spec"].get("containers") or () for port in c.get("ports") or ()]
    return SolverPod(pod.address, int(ports[0])) if ports else None


def router_pod(found: Object) -> RouterPod | None:
    """A router's pod that has an address and is not over."""
    status = found.get("status") or {}
    if not status.get("podIP") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    spec = found.get("spec") or {}
    return RouterPod(found["metadata"]["name"], status["podIP"], spec.get("nodeName", ""), _cpu_m(spec, status))


def reporter(found: Object) -> Reporter | None:
    """A router's pod; one that ends still has load to tell."""
    if (pod := router_pod(found)) is None:
        return None
    conditions = {one["type"]: one for one in found["status"].get("conditions") or ()}
    ready = conditions.get("Ready", {}).get("status") == "True"
    return Reporter(pod.address, ready and not found["metadata"].get("deletionTimestamp"))


def balancer(found: Object) -> str | None:
    """The address of a Service's load balancer, or the name that the cloud gave it."""
    entries = ((found.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return next((str(text) for entry in entries if (text := entry.get("ip") or entry.get("hostname"))), None)


def _cpu_m(spec: Mapping[str, Any], status: Mapping[str, Any]) -> int:
    """As the kubelet says that it is in force, else as it is asked for: a resize may have to wait."""
    for containers in (status.get("containerStatuses"), spec.get("containers")):
        for container in containers or ():
            requests = (container.get("resources") or {}).get("requests") or {}
            if container.get("name") == ROUTER_COMPONENT and "cpu" in requests:
                return round(quantity(requests["cpu"]) * 1000)
    return 0


def url(address: str, port: int) -> str:
    """Of an agent."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def served(endpoints: Mapping[str, Declared]) -> dict[str, Declared]:
    """By name: of those with one name in several namespaces the oldest is served (URLs have no namespace)."""
    chosen: dict[str, Declared] = {}
    for endpoint in endpoints.values():
        other = chosen.get(endpoint.name)
        if other is None or (endpoint.created, endpoint.uid) < (other.created, other.uid):
            chosen[endpoint.name] = endpoint
    return chosen
