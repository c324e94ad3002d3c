"""A Grafana dashboard and Prometheus rules over the runtime's metrics. Pure; `deploy/` holds them as files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from aks_inference.kubernetes import Manifest, named
from aks_inference_runtime.api import kubernetes as k8s

DASHBOARD_NAME = "aks-inference-dashboard"
RULES_NAME = "aks-inference-alerts"
DASHBOARD_FILE = "aks-inference.json"
RULES_FILE = "aks-inference.rules.json"
_OPERATOR = "monitoring.coreos.com/v1"
_OWN_LABELS = [{"action": "labeldrop", "regex": "endpoint"}]
"""The operator gives all that it asks for a label `endpoint`, the name of the port: ours, that of a ScoringEndpoint,
would then be `exported_endpoint`."""
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
_BY = "cluster, endpoint, version"
"""One Prometheus may have several clusters, told apart by a label of its own; where there is one, that is empty."""
_RUNTIME = "cluster, namespace"

CERTIFICATE_DAYS = 14
"""Left when somebody is told: a Key Vault renews by default when 80 of 100 of a certificate's life are over, which
of 90 days leaves 18."""
OWNER_CHANGES = 10
"""Of each endpoint within ten minutes. One that changes hands counts twice; while all routers are replaced, one by one,
each does so about twice."""


def _quantile(buckets: str) -> str:
    return f"histogram_quantile(0.95, sum by ({_BY}, le) (rate({buckets}[$__rate_interval])))"


@dataclass(frozen=True)
class Panel:
    """A graph."""

    title: str
    query: str
    unit: str = "short"


@dataclass(frozen=True)
class Alert:
    """A rule that somebody is told of."""

    name: str
    query: str
    minutes: int
    severity: str
    summary: str


PANELS = (
    Panel("Requests", f"sum by ({_BY}) (rate(aks_inference_requests_total[$__rate_interval]))", "reqps"),
    Panel("Refused with 429 or 503", f"sum by ({_BY}) (rate(aks_inference_rejected_total[$__rate_interval]))", "reqps"),
    Panel(
        "Answers by code and reason",
        "sum by (cluster, endpoint, code, reason) (rate(aks_inference_answers_total[$__rate_interval]))",
        "reqps",
    ),
    Panel("Service time, 95 of 100", _quantile("aks_inference_service_seconds_bucket"), "s"),
    Panel("Wait in the queue, 95 of 100", _quantile("aks_inference_queue_wait_seconds_bucket"), "s"),
    Panel("At replicas", f"sum by ({_BY}) (aks_inference_busy)"),
    Panel("Waiting", f"sum by ({_BY}) (aks_inference_queued)"),
    Panel("Replicas ready", f"sum by ({_BY}) (aks_inference_ready_replicas)"),
    Panel("Replicas wanted", f"max by ({_BY}) (aks_inference_wanted_replicas)"),
    Panel("Endpoints by router", "sum by (pod) (aks_inference_owned_endpoints)"),
    Panel("Owner changes", "sum(rate(aks_inference_owner_changes_total[$__rate_interval]))", "ops"),
    Panel("Routers alive", "min(aks_inference_routers_alive)"),
    Panel("Routers wanted", "max(aks_inference_wanted_routers)"),
    Panel("Cores wanted for each router", "max(aks_inference_wanted_router_cores)"),
    Panel("Routing, by router", "aks_inference_routing_seconds", "s"),
)
ALERTS = (
    Alert(
        "AksInferenceNoReplica",
        f'sum by ({_BY}) (rate(aks_inference_answers_total{{reason="no-replica"}}[5m])) > 0 '
        f"unless sum by ({_BY}) (aks_inference_ready_replicas) > 0",
        1,
        "critical",
        "Requests of {{ $labels.endpoint }}/{{ $labels.version }} are refused, as no replica is ready.",
    ),
    Alert(
        "AksInferenceRefusals",
        f"sum by ({_BY}) (rate(aks_inference_rejected_total[5m])) > "
        f"0.05 * sum by ({_BY}) (rate(aks_inference_requests_total[5m]))",
        5,
        "warning",
        "More than 5 % of the requests of {{ $labels.endpoint }}/{{ $labels.version }} are refused.",
    ),
    Alert(
        "AksInferenceErrors",
        f'sum by ({_BY}) (rate(aks_inference_answers_total{{code=~"5.."}}[5m])) > '
        f"0.05 * sum by ({_BY}) (rate(aks_inference_answers_total[5m]))",
        5,
        "warning",
        "More than 5 % of the answers of {{ $labels.endpoint }}/{{ $labels.version }} are errors.",
    ),
    Alert(
        "AksInferenceReplicasMissing",
        f"max by ({_BY}) (aks_inference_wanted_replicas) > sum by ({_BY}) (aks_inference_ready_replicas) "
        # Where no router tells of it there is nothing to compare with.
        f"or max by ({_BY}) (aks_inference_wanted_replicas) > 0 unless sum by ({_BY}) (aks_inference_ready_replicas)",
        10,
        "warning",
        "{{ $labels.endpoint }}/{{ $labels.version }} has had fewer ready replicas than are wanted for ten minutes.",
    ),
    Alert(
        "AksInferenceNoRouter",
        # Of one cluster of several the autoscaler still tells; where nobody tells anything, no labels are known.
        f"sum by ({_RUNTIME}) (aks_inference_autoscaler_leader) "
        f"unless sum by ({_RUNTIME}) (aks_inference_routers_alive) "
        "or absent(aks_inference_routers_alive) unless on () aks_inference_autoscaler_leader",
        2,
        "critical",
        "No router tells of itself: requests have no answer, or Prometheus does not reach the routers.",
    ),
    Alert(
        "AksInferenceNoAutoscaler",
        f"sum by ({_RUNTIME}) (aks_inference_autoscaler_leader) != 1 or absent(aks_inference_autoscaler_leader)",
        2,
        "critical",
        "No autoscaler leads, or more than one does.",
    ),
    Alert(
        "AksInferenceOwnersChange",
        f"sum by ({_RUNTIME}) (increase(aks_inference_owner_changes_total[10m])) > "
        f"clamp_min({OWNER_CHANGES} * sum by ({_RUNTIME}) (aks_inference_owned_endpoints), 20)",
        10,
        "warning",
        "Endpoints change their routers again and again: look at the routers' restarts.",
    ),
    Alert(
        "AksInferenceCertificateEnds",
        f"min(aks_inference_certificate_ends_seconds) - time() < {CERTIFICATE_DAYS * 86_400}",
        60,
        "warning",
        f"The certificate of the scoring address ends within {CERTIFICATE_DAYS} days: renew it, or see why it was not: "
        "cert-manager's events of its Certificate, or the Key Vault and the log of the pod aks-inference-certificate.",
    ),
)


def dashboard() -> Manifest:
    """As Grafana imports it."""
    panels = [
        {
            "id": index + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {
                "x": index % _COLUMNS * _WIDTH,
                "y": index // _COLUMNS * _HEIGHT,
                "w": _WIDTH,
                "h": _HEIGHT,
            },
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": [{"refId": "A", "expr": panel.query, "legendFormat": "__auto"}],
        }
        for index, panel in enumerate(PANELS)
    ]
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": "aks-inference",
        "title": "AKS inference",
        "tags": ["aks-inference"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def rules() -> Manifest:
    """As Prometheus reads them; JSON is YAML."""
    found = [
        {
            "alert": alert.name,
            "expr": alert.query,
            "for": f"{alert.minutes}m",
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary},
        }
        for alert in ALERTS
    ]
    return {"groups": [{"name": "aks-inference", "rules": found}]}


def monitoring(namespace: str, *, operator: bool = False) -> Iterator[Manifest]:
    """Both as ConfigMaps; Grafana's sidecar finds the dashboard by its label. `operator`: also as its objects."""
    if operator:
        yield from operated(namespace)
    text = json.dumps(dashboard(), indent=1, sort_keys=True)
    yield named(
        "v1",
        "ConfigMap",
        DASHBOARD_NAME,
        namespace,
        labels={"grafana_dashboard": "1"},
        data={DASHBOARD_FILE: text},
    )
    text = json.dumps(rules(), indent=1, sort_keys=True)
    yield named("v1", "ConfigMap", RULES_NAME, namespace, data={RULES_FILE: text})


def operated(namespace: str) -> Iterator[Manifest]:
    """For the Prometheus operator: who is asked for metrics, and the rules."""
    for name, component, port, everywhere in (
        (k8s.ROUTER_NAME, k8s.ROUTER_COMPONENT, "agent", False),
        (k8s.AUTOSCALER_NAME, k8s.AUTOSCALER_COMPONENT, "agent", False),
        (k8s.CERTIFICATE_NAME, k8s.CERTIFICATE_COMPONENT, "agent", False),
        ("aks-inference-replicas", k8s.REPLICA_COMPONENT, "gate-ready", True),
    ):
        spec = {
            "selector": {"matchLabels": {k8s.PART_OF_LABEL: k8s.PART_OF, k8s.COMPONENT_LABEL: component}},
            "namespaceSelector": {"any": True} if everywhere else {"matchNames": [namespace]},
            "podMetricsEndpoints": [{"port": port, "path": "/metrics", "relabelings": _OWN_LABELS}],
        }
        yield named(_OPERATOR, "PodMonitor", name, namespace, spec=spec)
    yield named(_OPERATOR, "PrometheusRule", RULES_NAME, namespace, spec=rules())
