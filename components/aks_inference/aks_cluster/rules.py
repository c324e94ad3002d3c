"""What the rules of AKS say of a declared cluster, and what it costs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from aks_inference.cluster_rules import Cluster, check_cluster, monthly_cost, relocate
from aks_inference.cluster_rules.cost import Cost, CostLine
from aks_inference.facts import price_list
from aks_inference.findings import Finding, Path


def rule_findings(cluster: Cluster, places: Mapping[Path, Path], dev_test: bool) -> Iterator[Finding]:
    """What the rules say, where the user wrote it."""
    for finding in relocate(check_cluster(cluster), places):
        # A cluster for development has one system node on purpose; its own warning says what that means.
        if dev_test and finding.path[:2] == ("system_pool", "count"):
            continue
        yield finding


def cost_of(cluster: Cluster) -> Cost:
    """What nodes and tier cost a month."""
    automatic = cluster.sku_name == "Automatic"
    # Automatic has a price of its own, which the list does not hold.
    cost = monthly_cost(cluster.pools, cluster.location, "Automatic" if automatic else cluster.tier, price_list())
    if not automatic and cluster.node_provisioning != "Auto":
        return cost
    return replace(cost, lines=(*cost.lines, CostLine("nodes that AKS provisions", 0.0, None, "as pods need them")))
