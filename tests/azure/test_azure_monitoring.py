"""Where metrics and logs go: what the component declares is what Azure Monitor takes."""

from datetime import date
from typing import Any

import pytest

from aks_inference.aks_cluster.monitoring import _rules
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster

PROVIDERS = "/subscriptions/1/resourceGroups/rg/providers"
SECURITY = {
    "container_insights": True,
    "managed_prometheus": True,
    "log_analytics_workspace_id": f"{PROVIDERS}/Microsoft.OperationalInsights/workspaces/logs",
    "azure_monitor_workspace_id": f"{PROVIDERS}/Microsoft.Monitor/accounts/metrics",
}
PLACE = {"location": "westeurope", "kind": "Linux"}


@pytest.fixture
def declared() -> dict[str, dict[str, Any]]:
    """The bodies of the rules, by their suffix."""
    plan, findings = plan_cluster("prod", {"location": "westeurope", "security": SECURITY}, date(2026, 11, 21))
    assert isinstance(plan, ClusterPlan), findings
    return {suffix: {**PLACE, **rule} for suffix, _, rule in _rules(plan)}


def put(azure: Any, tables: Any, kind: str, name: str, body: dict[str, Any]) -> str:
    identity = f"{PROVIDERS}/Microsoft.Insights/{kind}/{name}"
    azure.put(tables.kind(f"azure-native:monitor:{kind}"), identity, body)
    return identity


def test_what_is_declared_is_taken(azure: Any, tables: Any, declared: dict[str, dict[str, Any]]) -> None:
    assert set(declared) == {"insights", "prometheus"}
    access = {"networkAcls": {"publicNetworkAccess": "Enabled"}}
    endpoint = put(azure, tables, "DataCollectionEndpoint", "e", {**PLACE, **access})
    for suffix, body in declared.items():
        more = {"dataCollectionEndpointId": endpoint} if suffix == "prometheus" else {}
        rule = put(azure, tables, "DataCollectionRule", suffix, {**body, **more})
        put(azure, tables, "DataCollectionRuleAssociation", suffix, {"dataCollectionRuleId": rule})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataFlow": []}, "unknown property dataFlow"),
        ({"dataFlows": []}, "dataFlows is required"),
        ({"dataFlows": [{"streams": ["Microsoft-X"], "destinations": ["workspace"]}]}, "no source of"),
        ({"destinations": {}}, "no destination"),
        ({"destinations": {"logAnalytics": [{"name": "workspace", "workspaceResourceId": "/w"}]}}, "is no"),
        ({"dataCollectionEndpointId": f"{PROVIDERS}/none"}, "does not exist"),
        ({"location": None}, "location is required"),
    ],
)
def test_what_is_refused(
    azure: Any, tables: Any, declared: dict[str, dict[str, Any]], change: dict[str, Any], says: str
) -> None:
    with pytest.raises(Exception, match=says):
        put(azure, tables, "DataCollectionRule", "r", {**declared["insights"], **change})


def test_prometheus_needs_its_endpoint(azure: Any, tables: Any, declared: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(Exception, match="needs dataCollectionEndpointId"):
        put(azure, tables, "DataCollectionRule", "r", declared["prometheus"])
    with pytest.raises(Exception, match="does not exist"):
        put(azure, tables, "DataCollectionRuleAssociation", "a", {"dataCollectionRuleId": f"{PROVIDERS}/none"})
