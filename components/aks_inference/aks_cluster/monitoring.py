"""What Container insights and managed Prometheus need beside the cluster: where its data goes.

The add-ons alone collect nothing: a data collection rule says where to, an association says for which cluster.
"""

from collections.abc import Iterator
from typing import Any

import pulumi

from aks_inference.aks_cluster.azure import AzureResource
from aks_inference.aks_cluster.spec import ClusterPlan


def register_monitoring(
    name: str, plan: ClusterPlan, group: object, cluster: AzureResource, opts: pulumi.ResourceOptions
) -> None:
    """The rules and their associations."""
    for suffix, association, rule in _rules(plan):
        place = {"resourceGroupName": group, "location": plan.spec.location, "tags": dict(plan.spec.tags) or None}
        endpoint = None
        if suffix == "prometheus":
            inputs = {**place, "kind": "Linux", "networkAcls": {"publicNetworkAccess": "Enabled"}}
            endpoint = AzureResource("monitor:DataCollectionEndpoint", f"{name}-{suffix}", inputs, opts).id
        inputs = {**place, "kind": "Linux", "dataCollectionEndpointId": endpoint, **rule}
        made = AzureResource("monitor:DataCollectionRule", f"{name}-{suffix}", inputs, opts)
        inputs = {"resourceUri": cluster.id, "associationName": association, "dataCollectionRuleId": made.id}
        AzureResource("monitor:DataCollectionRuleAssociation", f"{name}-{suffix}", inputs, opts)


def _rules(plan: ClusterPlan) -> Iterator[tuple[str, str, dict[str, Any]]]:
    security = plan.security
    if security.container_insights:
        streams = ["Microsoft-ContainerInsights-Group-Default"]
        source = {"name": "ContainerInsightsExtension", "extensionName": "ContainerInsights", "streams": streams}
        workspace = {"name": "workspace", "workspaceResourceId": security.log_analytics_workspace_id}
        yield (
            "insights",
            "ContainerInsightsExtension",
            {
                "dataSources": {"extensions": [source]},
                "destinations": {"logAnalytics": [workspace]},
                "dataFlows": [{"streams": streams, "destinations": ["workspace"]}],
            },
        )
    if security.managed_prometheus:
        streams = ["Microsoft-PrometheusMetrics"]
        account = {"name": "metrics", "accountResourceId": security.azure_monitor_workspace_id}
        yield (
            "prometheus",
            "ContainerInsightsMetricsExtension",
            {
                "dataSources": {"prometheusForwarder": [{"name": "PrometheusDataSource", "streams": streams}]},
                "destinations": {"monitoringAccounts": [account]},
                "dataFlows": [{"streams": streams, "destinations": ["metrics"]}],
            },
        )
