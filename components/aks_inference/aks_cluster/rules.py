"""What the rules of AKS say of a declared cluster, and what it costs."""

from collections.abc import Iterator, Mapping

from aks_inference.cluster_rules import Cluster, check_cluster, monthly_cost, relocate
from aks_inference.cluster_rules.cost import Cost
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
    return monthly_cost(cluster.pools, cluster.location, cluster.tier, price_list())
