"""Who may do what: accounts, roles, and which pods may reach which. Pure."""

from collections.abc import Iterator

from aks_inference.inference_runtime.spec import RuntimePlan
from aks_inference.kubernetes import Manifest, named
from aks_inference.pods import MONITORING_LABEL, labels, policy, ports
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import GROUP

_RBAC = "rbac.authorization.k8s.io/v1"
_READ = ("get", "list", "watch")


def _rule(groups: str, resources: str, *verbs: str) -> Manifest:
    return {"apiGroups": groups.split("|"), "resources": resources.split(), "verbs": list(verbs)}


_ROUTER_CLUSTER = (
    _rule(GROUP, "scoringendpoints", *_READ),
    _rule("discovery.k8s.io", "endpointslices", *_READ),
)
_ROUTER_OWN = (
    # Digests of keys stand in one Secret an endpoint, and endpoints come and go: a role names Secrets, and knows no
    # labels, so it is all of this namespace. Those that routers have no use for are read with them: the webhook's
    # address, the account at the certificate authority, log-ins of registries.
    _rule("", "secrets pods", *_READ),
)
_AUTOSCALER_CLUSTER = (
    _rule(GROUP, "scoringendpoints", *_READ),
    _rule(GROUP, "scoringendpoints/status", "patch"),
    _rule("apps", "deployments replicasets", *_READ),
    _rule("apps", "deployments/scale", "patch"),
    _rule("autoscaling", "horizontalpodautoscalers", *_READ),
    _rule("", "nodes pods", *_READ),
    _rule("", "pods/log", "get"),
    # Why a pod's containers are not made (a volume, a Secret) stands in no status, only in its kubelet's events.
    _rule("events.k8s.io", "events", "create", "list"),
)
_AUTOSCALER_OWN = (
    _rule("coordination.k8s.io", "leases", "get", "create", "update"),
    _rule("", "pods/resize", "patch"),
    # The address that the load balancer has got.
    {**_rule("", "services", *_READ), "resourceNames": [k8s.ROUTER_NAME]},
)
_ACCOUNTS = (
    (k8s.ROUTER_NAME, _ROUTER_CLUSTER, _ROUTER_OWN),
    (k8s.AUTOSCALER_NAME, _AUTOSCALER_CLUSTER, _AUTOSCALER_OWN),
)


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
    yield policy(
        plan.namespace,
        k8s.ROUTER_NAME,
        router,
        {"ports": ports(k8s.HTTP_PORT, k8s.HTTPS_PORT)},
        {
            "from": [{"podSelector": {"matchLabels": router}}],
            "ports": ports(k8s.OWNER_PORT, *k8s.LANE_PORTS, k8s.AGENT_PORT),
        },
        {"from": [{"podSelector": {"matchLabels": autoscaler}}, monitoring], "ports": ports(k8s.AGENT_PORT)},
    )
    yield policy(
        plan.namespace, k8s.AUTOSCALER_NAME, autoscaler, {"from": [monitoring], "ports": ports(k8s.AGENT_PORT)}
    )
