"""The declared cluster in the words of `aks_inference.cluster_rules`, and what its rules say."""

from collections.abc import Iterator, Mapping
from datetime import date

from aks_inference.aks_cluster.network import Network
from aks_inference.cluster_rules import Cluster, Identity, Pool, Subnet, Tls, check_cluster, monthly_cost, relocate
from aks_inference.cluster_rules import Network as RuleNetwork
from aks_inference.facts import price_list
from aks_inference.findings import Finding, Path
from aks_inference.vm_sizes import find_size


def pool(name: str, vm_size: str, count: int, mode: str, path: Path) -> Pool:
    """A pool of a fixed number of nodes."""
    return Pool(name=name, vm_size=vm_size, size=find_size(vm_size), mode=mode, count=count, path=path)


def judged(
    location: str | None,
    pools: tuple[Pool, ...],
    network: Network,
    tls: Tls,
    tier: str,
    today: date,
) -> Cluster:
    """The cluster as the rules see it."""
    ranges = RuleNetwork(
        plugin=network.plugin if network.plugin in ("kubenet", "azure") else None,
        plugin_mode=network.plugin_mode,
        service_cidr=network.service_cidr,
        dns_service_ip=network.dns_service_ip,
        pod_cidr=network.pod_cidr,
        docker_bridge_cidr=network.docker_bridge_cidr,
        subnet=_subnet(network),
        load_balancer_sku="standard",
    )
    return Cluster(
        location=location,
        pools=pools,
        network=ranges,
        identity=Identity(user_assigned=network.in_subnet),
        tls=tls,
        tier=tier,
        today=today,
    )


def rule_findings(cluster: Cluster, network: Network, dev_test: bool) -> Iterator[Finding]:
    """What the rules say, where the user wrote it."""
    places: Mapping[Path, Path] = network.places
    for finding in relocate(check_cluster(cluster), places):
        # A cluster for development has one system node on purpose; its own warning says what that means.
        if dev_test and finding.path[:2] == ("system_pool", "count"):
            continue
        yield finding


def cost_line(cluster: Cluster) -> str:
    """What nodes and tier cost a month."""
    return f"cost: {monthly_cost(cluster.pools, cluster.location, cluster.tier, price_list()).text()}"


def _subnet(network: Network) -> Subnet | None:
    if network.names is not None:
        group, vnet, subnet = network.names
        # The subscription is known when the cluster's identity is there; the rules need the form only.
        provider = f"resourceGroups/{group or '-'}/providers/Microsoft.Network/virtualNetworks/{vnet}"
        return Subnet(f"/subscriptions/-/{provider}/subnets/{subnet or '-'}")
    return Subnet(network.subnet_id) if isinstance(network.subnet_id, str) else None
