"""Who may do what: accounts, roles, and which pods may reach which. Pure."""

from collections.abc import Iterator

from aks_inference.inference_runtime.spec import RuntimePlan
from aks_inference.kubernetes import Manifest, named
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import GROUP

_RBAC = "rbac.authorization.k8s.io/v1"
_READ = ("get", "list", "watch")
MONITORING_LABEL = f"{GROUP}/monitoring"
"""Namespaces that carry it with the value `true` may read metrics."""


def _rule(groups: str, resources: str, *verbs: str) -> Manifest:
    return {"apiGroups": groups.split("|"), "resources": resources.split(), "verbs": list(verbs)}


_ROUTER_CLUSTER = (
    _rule(GROUP, "scoringendpoints", *_READ),
    _rule("discovery.k8s.io", "endpointslices", *_READ),
)
_ROUTER_OWN = (
    # The runtime's namespace holds no Secret but what the router needs: digests of keys, certificates.
    _rule("", "secrets configmaps pods", *_READ),
    _rule("coordination.k8s.io", "leases", *_READ),
    _rule("|events.k8s.io", "events", "create", "patch"),
)
_AUTOSCALER_CLUSTER = (
    _rule(GROUP, "scoringendpoints", *_READ),
    _rule(GROUP, "scoringendpoints/status", "get", "patch", "update"),
    _rule("apps", "deployments replicasets", *_READ),
    _rule("apps", "deployments/scale", "get", "patch", "update"),
    _rule("autoscaling", "horizontalpodautoscalers", *_READ),
    _rule("discovery.k8s.io", "endpointslices", *_READ),
    _rule("", "nodes pods", *_READ),
    _rule("", "pods/log", "get"),
    _rule("|events.k8s.io", "events", "create", "patch"),
)
_AUTOSCALER_OWN = (
    _rule("coordination.k8s.io", "leases", *_READ, "create", "update", "patch"),
    _rule("", "services configmaps", *_READ),
    _rule("", "pods/resize", "patch"),
)
_ACCOUNTS = (
    (k8s.ROUTER_NAME, _ROUTER_CLUSTER, _ROUTER_OWN),
    (k8s.AUTOSCALER_NAME, _AUTOSCALER_CLUSTER, _AUTOSCALER_OWN),
)


def labels(component: str) -> dict[str, str]:
    """Of everything of the router or the autoscaler."""
    return {k8s.PART_OF_LABEL: k8s.PART_OF, k8s.COMPONENT_LABEL: component}


def accounts(plan: RuntimePlan) -> Iterator[Manifest]:
    """Service accounts with their roles: the router reads what it routes, the autoscaler changes scale."""
    space = plan.namespace
    for name, cluster_wide, own in _ACCOUNTS:
        subjects = [{"kind": "ServiceAccount", "name": name, "namespace": space}]
        yield named("v1", "ServiceAccount", name, space)
        # Two runtimes in one cluster have roles of their own.
        wide = f"{space}:{name}"
        yield named(_RBAC, "ClusterRole", wide, None, rules=list(cluster_wide))
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": wide}
        yield named(_RBAC, "ClusterRoleBinding", wide, None, roleRef=role, subjects=subjects)
        yield named(_RBAC, "Role", name, space, rules=list(own))
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        yield named(_RBAC, "RoleBinding", name, space, roleRef=role, subjects=subjects)


def policies(plan: RuntimePlan) -> Iterator[Manifest]:
    """What may reach routers and autoscaler."""
    router, autoscaler = labels(k8s.ROUTER_COMPONENT), labels(k8s.AUTOSCALER_COMPONENT)
    monitoring = {"namespaceSelector": {"matchLabels": {MONITORING_LABEL: "true"}}}
    yield _policy(
        plan.namespace,
        k8s.ROUTER_NAME,
        router,
        {"ports": _ports(k8s.HTTP_PORT, k8s.HTTPS_PORT)},
        {"from": [{"podSelector": {"matchLabels": router}}], "ports": _ports(k8s.OWNER_PORT, k8s.AGENT_PORT)},
        {"from": [{"podSelector": {"matchLabels": autoscaler}}, monitoring], "ports": _ports(k8s.AGENT_PORT)},
    )
    yield _policy(
        plan.namespace, k8s.AUTOSCALER_NAME, autoscaler, {"from": [monitoring], "ports": _ports(k8s.AGENT_PORT)}
    )


def replica_policy(namespace: str, runtime_namespace: str, name: str, replica: dict[str, str]) -> Manifest:
    """Routers reach replicas, nobody else does."""
    routers = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": runtime_namespace}},
        "podSelector": {"matchLabels": labels(k8s.ROUTER_COMPONENT)},
    }
    rule = {"from": [routers], "ports": _ports(k8s.GATE_PORT, k8s.GATE_CONTROL_PORT)}
    return _policy(namespace, name, replica, rule)


def _policy(namespace: str, name: str, selected: dict[str, str], *ingress: Manifest) -> Manifest:
    spec = {"podSelector": {"matchLabels": selected}, "policyTypes": ["Ingress"], "ingress": list(ingress)}
    return named("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)


def _ports(*ports: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in ports]
