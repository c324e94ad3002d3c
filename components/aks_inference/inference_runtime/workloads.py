"""The router's and the autoscaler's Deployments and what belongs to them. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from aks_inference.inference_runtime.spec import RuntimePlan
from aks_inference.kubernetes import Manifest, named
from aks_inference.pods import (
    LONGEST_SCORE_S,
    RESTRICTED,
    agent_probes,
    budget,
    downward,
    labels,
    pod_security,
    spread,
)
from aks_inference.values import then
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.crd import crd
from aks_inference_runtime.api.endpoint import GROUP

_TOKEN_FOLDER = "/etc/aks-inference-token"  # noqa: S105 - a folder
_TOKEN_FILE = {"secretName": k8s.ROUTER_TOKEN_NAME, "defaultMode": 0o440}
_RUN_FOLDER = "/run/aks-inference"
_WEBHOOK_FOLDER = "/etc/aks-inference-webhook"
TOKEN_ANNOTATION = f"{GROUP}/router-token"
"""On routers' pods: what tells one token from another. A new one makes new pods: those that have another one do not
hear each other."""
_PRIORITY = 1_000_000
"""Of routers and autoscaler. Pods without a class have 0, replicas too: on full nodes they make room for a router that
is lost. Kubernetes' own have 2,000,000,000 and more."""


def foundation(plan: RuntimePlan) -> Iterator[Manifest]:
    """What everything else needs to be there."""
    yield named("v1", "Namespace", plan.namespace, None, labels={"pod-security.kubernetes.io/enforce": "restricted"})
    yield crd()


def priority(plan: RuntimePlan) -> Manifest:
    """The class of the runtime's pods. Two runtimes in one cluster have classes of their own."""
    about = "Routers and autoscaler of aks-inference: before the replicas that they serve and scale."
    return named(
        "scheduling.k8s.io/v1", "PriorityClass", _priority_name(plan), None, value=_PRIORITY, description=about
    )


def workloads(plan: RuntimePlan, token_digest: object = None) -> Iterator[Manifest]:
    """Deployments, Services, and how many routers may go at once. `token_digest`: of the routers' token, keyed."""
    router = labels(k8s.ROUTER_COMPONENT)
    yield _deployment(
        plan,
        k8s.AUTOSCALER_NAME,
        labels(k8s.AUTOSCALER_COMPONENT),
        plan.autoscalers,
        "autoscaler",
        ("100m", "128Mi"),
        30,
        {},
    )
    # How many there are is the autoscaler's: a number here would set it back with each apply.
    marks = {} if token_digest is None else {"annotations": {TOKEN_ANNOTATION: token_digest}}
    yield _deployment(plan, k8s.ROUTER_NAME, router, None, "router", plan.routers.asks, LONGEST_SCORE_S + 60, marks)
    public = [{"name": "http", "port": 80, "targetPort": k8s.HTTP_PORT, "protocol": "TCP"}]
    if plan.tls is not None:
        public.append({"name": "https", "port": 443, "targetPort": k8s.HTTPS_PORT, "protocol": "TCP"})
    spec: Manifest = {"type": plan.service_type, "selector": router, "ports": public}
    if plan.service_type == "LoadBalancer":
        spec["externalTrafficPolicy"] = "Cluster"
    yield named(
        "v1", "Service", k8s.ROUTER_NAME, plan.namespace, labels=router, annotations=plan.annotations, spec=spec
    )
    among = [
        {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
        for name, port in (("owner", k8s.OWNER_PORT), ("agent", k8s.AGENT_PORT))
    ]
    peers = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": router, "ports": among}
    yield named("v1", "Service", k8s.ROUTER_PEERS_NAME, plan.namespace, labels=router, spec=peers)
    if plan.routers.most > 1:
        yield budget(plan.namespace, k8s.ROUTER_NAME, router)


def _priority_name(plan: RuntimePlan) -> str:
    return f"{plan.namespace}-runtime"


def _settings(plan: RuntimePlan) -> Any:  # noqa: ANN401 - a text or an output of one
    def text(url: str | None, pools: Mapping[str, int] | None, plain: object) -> str:
        # A cluster that was attached before its pools were read says none.
        return json.dumps(plan.settings(url, pools or {}, plain=bool(plain)).to_wire(), sort_keys=True)

    def texts(url: str | None) -> Any:  # noqa: ANN401 - as above
        return then(plan.pools, lambda pools: then(plan.plain, lambda plain: text(url, pools, plain)))

    return then(plan.address, texts)


def _deployment(
    plan: RuntimePlan,
    name: str,
    selected: dict[str, str],
    replicas: int | None,
    module: str,
    asks: tuple[str, str],
    grace_s: int,
    marks: Manifest,
) -> Manifest:
    cpu, memory = asks
    tells = plan.webhook is not None and name == k8s.AUTOSCALER_NAME
    routes = module == "router"
    lanes = plan.routers.lanes if routes else 1
    # Full queues of thousands: `router/rooms.py`.
    limit = f"{2 * lanes if routes else 1}Gi"
    container = {
        "name": module,
        "image": plan.image,
        "command": ["python", "-m", f"aks_inference_runtime.kubernetes.{module}"],
        "env": [
            # In the pod, not beside it: one of an older release that starts again has what it was made for, and a
            # change makes new pods, one after the other.
            {"name": k8s.SETTINGS_VARIABLE, "value": _settings(plan)},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            *([{"name": k8s.WEBHOOK_VARIABLE, "value": f"{_WEBHOOK_FOLDER}/{k8s.WEBHOOK_KEY}"}] if tells else []),
            *(
                [{"name": k8s.ROUTER_TOKEN_VARIABLE, "value": f"{_TOKEN_FOLDER}/{k8s.ROUTER_TOKEN_FIELD}"}]
                if routes
                else []
            ),
            *downward(),
        ],
        "ports": [{"name": "agent", "containerPort": k8s.AGENT_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}},
        **agent_probes(),
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "run", "mountPath": _RUN_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            *([{"name": "webhook", "mountPath": _WEBHOOK_FOLDER, "readOnly": True}] if tells else []),
            *([{"name": "token", "mountPath": _TOKEN_FOLDER, "readOnly": True}] if routes else []),
        ],
    }
    pod = {
        "serviceAccountName": name,
        "priorityClassName": _priority_name(plan),
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": pod_security(),
        "nodeSelector": k8s.LINUX_NODES,
        "topologySpreadConstraints": spread(selected),
        "containers": [container],
        "volumes": [
            # Sockets: in memory, so that a slow disk holds nothing up.
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": f"{64 * lanes}Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            *([{"name": "webhook", "secret": {"secretName": k8s.WEBHOOK_NAME}}] if tells else []),
            # Optional for who applies these objects without it: the network's rules are then the only guard.
            *([{"name": "token", "secret": {**_TOKEN_FILE, "optional": True}}] if routes else []),
        ],
        **({"imagePullSecrets": plan.pull} if plan.pull else {}),
    }
    spec = {
        **({} if replicas is None else {"replicas": replicas}),
        "selector": {"matchLabels": selected},
        # A new router is there before an old one goes.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": {"labels": selected, **marks}, "spec": pod},
    }
    return named("apps/v1", "Deployment", name, plan.namespace, labels=selected, spec=spec)
