"""What all pods of this package have in common: labels, security, spread, and who may reach them. Pure."""

from aks_inference.manifests import Manifest, named
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import GROUP

MONITORING_LABEL = f"{GROUP}/monitoring"
"""Namespaces that carry it with the value `true` may read metrics."""
USER = 10_001
"""Of all our containers: no root, and none of a base image's usual users."""
LONGEST_SCORE_S = 600
"""A request of ten minutes survives a router's end (I4). One of an endpoint with a longer `scoring_timeout_ms` may not:
routers are declared before endpoints and know none, and the longest that is allowed, 12 days, is no time for the drain
of a node. A router ends as soon as its last request is over, whatever this is."""
_DOWNWARD = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    k8s.REPLICA_VARIABLE: "metadata.uid",
    "POD_IP": "status.podIP",
    "NODE_NAME": "spec.nodeName",
}
RESTRICTED: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""Of a container: the Pod Security Standard `restricted`, and nothing written beside the volumes."""

GPU_TOLERATIONS: list[Manifest] = [
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
]
"""Of pods that ask for a GPU: the taint that AksInferenceCluster puts on pools of such sizes, and the usual one."""


SPOT_TOLERATIONS: list[Manifest] = [
    {"key": k8s.SPOT_KEY, "operator": "Equal", "value": "spot", "effect": "NoSchedule"},
]
"""Of pods that may run on spot nodes: AKS puts this taint on them."""


def agent_probes() -> Manifest:
    """Of a container that answers /livez and /readyz on the port `agent`."""
    asks = {"port": "agent", "scheme": "HTTP"}
    return {
        "readinessProbe": {"httpGet": {"path": "/readyz", **asks}, "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {"httpGet": {"path": "/livez", **asks}, "periodSeconds": 10, "failureThreshold": 3},
        "startupProbe": {"httpGet": {"path": "/livez", **asks}, "periodSeconds": 1, "failureThreshold": 60},
    }


def pod_security() -> Manifest:
    """Of a pod: the Pod Security Standard `restricted`."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def downward(*names: str) -> list[Manifest]:
    """Environment variables that the kubelet fills."""
    return [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in _DOWNWARD.items()
        if not names or name in names
    ]


def spread(selected: dict[str, str]) -> list[Manifest]:
    """Over zones and nodes as far as there are any; what cannot be spread still runs."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selected},
            # Those of one template: pods that are being replaced would push the new ones to where they are few.
            # On by default since Kubernetes 1.27; the runtime needs 1.29.
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def budget(namespace: str, name: str, selected: dict[str, str], **more: dict[str, str]) -> Manifest:
    """Of the pods of a Deployment: a drain takes one after the other, also the only one. `more`: labels.

    Pods that are not ready never hold up a drain: crash loops would do so for ever. That policy is on by default since
    Kubernetes 1.27; the runtime needs 1.29.
    """
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selected}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    return named("policy/v1", "PodDisruptionBudget", name, namespace, **more, spec=spec)


def labels(component: str) -> dict[str, str]:
    """Of everything of the router or the autoscaler."""
    return {k8s.PART_OF_LABEL: k8s.PART_OF, k8s.COMPONENT_LABEL: component}


def policy(namespace: str, name: str, selected: dict[str, str], *ingress: Manifest) -> Manifest:
    """Of some pods: what may reach them, and nothing else."""
    spec = {"podSelector": {"matchLabels": selected}, "policyTypes": ["Ingress"], "ingress": list(ingress)}
    return named("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)


def ports(*numbers: int) -> list[Manifest]:
    """Of a policy."""
    return [{"protocol": "TCP", "port": port} for port in numbers]
