"""Whatever is declared: findings, never an exception, and every text complete."""

# ruff: noqa: E501 (a strategy is a line)

import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aks_inference.cluster_rules import (
    Access,
    Cluster,
    Egress,
    Identity,
    Network,
    Pool,
    Resources,
    Security,
    Service,
    Subnet,
    Tls,
    Workload,
    address_needs,
    check_cluster,
    fit_services,
    monthly_cost,
)
from aks_inference.cluster_rules.hosts import StackNames, required_hosts
from aks_inference.cluster_rules.kinds import DEFAULT_MAX_PODS, NetworkKind, max_pods, network_kind
from aks_inference.facts import price_list
from aks_inference.findings import Casing, Severity
from aks_inference.vm_sizes import find_size

SIZES = ("Standard_D4s_v5", "Standard_NC4as_T4_v3", "Standard_B2s", "Standard_D4ps_v5", "Standard_New_v9")
TEXTS = st.one_of(st.none(), st.text(max_size=12), st.sampled_from(["azure", "kubenet", "none", "overlay", "cilium"]))
CIDRS = st.sampled_from(
    [None, "", "10.0.0.0/16", "10.244.0.0/16", "10.1.0.0/24", "10.0.0.5/24", "0.0.0.0/0", "fd00::/8", "fd12::/64", "x"]
)
NUMBERS = st.one_of(st.none(), st.integers(-5, 2500))
FLAGS = st.booleans()
IDS = st.sampled_from(
    [None, "", "/subscriptions/0/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/s", "/subscriptions/x"]
)  # fmt: skip
SUBNETS = st.none() | st.builds(
    Subnet,
    id=IDS.map(str),
    cidr=CIDRS,
    region=st.sampled_from([None, "westeurope", "eastus"]),
    delegations=st.none() | st.just(("Microsoft.Web",)),
    default_route=st.sampled_from([None, "", "Internet", "VirtualAppliance"]),
    nat_gateway=st.none() | FLAGS,
)


def sized(vm_size: str | None, **more: Any) -> Pool:
    return Pool(vm_size=vm_size, size=find_size(vm_size) if vm_size else None, **more)


POOLS = st.builds(
    sized,
    st.none() | st.sampled_from(SIZES),
    name=st.text(max_size=14),
    mode=st.sampled_from(["System", "User", "Gateway"]),
    count=st.integers(-2, 1200),
    autoscale=FLAGS,
    min_count=NUMBERS,
    max_count=NUMBERS,
    max_pods=NUMBERS,
    os_type=st.sampled_from(["Linux", "Windows"]),
    spot=FLAGS,
    spot_max_price=st.none() | st.decimals(allow_nan=True, allow_infinity=True),
    eviction_policy=TEXTS,
    zones=st.lists(st.sampled_from(["1", "2", "3", "4"]), max_size=3).map(tuple),
    max_surge=st.sampled_from([None, "", "0", "1", "33%", "900%", "x"]),
    max_unavailable=st.sampled_from([None, "", "0", "1", "50%", "x"]),
    gpu_driver=TEXTS,
    gpu_instance_profile=TEXTS,
    taints=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    os_disk_size_gb=NUMBERS,
    node_public_ip=FLAGS,
    subnet_id=IDS,
    pod_subnet_id=IDS,
    kubernetes_version=st.sampled_from([None, "", "1.35", "1.36.1", "x"]),
)
CLUSTERS = st.builds(
    Cluster,
    name=TEXTS,
    location=st.sampled_from([None, "", "westeurope", "West Europe", "usdodeast", "qatarcentral", "chinaeast", "mars"]),
    pools=st.lists(POOLS, max_size=3).map(tuple),
    network=st.builds(
        Network,
        plugin=TEXTS,
        plugin_mode=TEXTS,
        dataplane=TEXTS,
        policy=TEXTS,
        service_cidr=CIDRS,
        dns_service_ip=st.sampled_from([None, "", "10.0.0.10", "10.0.0.1", "300.1.1.1"]),
        pod_cidr=CIDRS,
        docker_bridge_cidr=CIDRS,
        subnet=SUBNETS,
        pod_subnet=SUBNETS,
        pod_ip_allocation=TEXTS,
        vnet_cidrs=st.lists(CIDRS.map(str), max_size=2).map(tuple),
        load_balancer_sku=TEXTS,
    ),
    egress=st.builds(
        Egress,
        outbound_type=TEXTS,
        managed_outbound_ip_count=NUMBERS,
        outbound_ip_count=NUMBERS,
        allocated_outbound_ports=NUMBERS,
        idle_timeout_minutes=NUMBERS,
        public_ips_denied=FLAGS,
    ),
    access=st.builds(
        Access,
        private_cluster=FLAGS,
        private_dns_zone=TEXTS | IDS,
        public_fqdn=st.none() | FLAGS,
        fqdn_subdomain=TEXTS,
        authorized_ip_ranges=st.lists(CIDRS.map(str), max_size=2).map(tuple),
        operator_ip_ranges=st.lists(CIDRS.map(str), max_size=2).map(tuple),
        vnet_integration=FLAGS,
        api_server_subnet=SUBNETS,
        entra_id=FLAGS,
        azure_rbac=FLAGS,
        local_accounts=FLAGS,
    ),
    identity=st.builds(
        Identity, user_assigned=FLAGS, own_kubelet_identity=FLAGS, federated_credentials=st.integers(0, 30)
    ),
    security=st.builds(
        Security, defender=FLAGS, kms=FLAGS, kms_network_access=TEXTS, image_cleaner_interval_hours=NUMBERS
    ),
    tls=st.builds(
        Tls,
        cname=TEXTS,
        cert_pem_file=TEXTS,
        key_vault_secret_id=TEXTS,
        leaf_domain_label=TEXTS,
        load_balancer_type=TEXTS,
        minimum_version=TEXTS,
    ),
    dns_prefix=TEXTS,
    node_resource_group=TEXTS,
    kubernetes_version=st.sampled_from([None, "", "1.0", "1.33", "1.35", "1.37", "1.99", "1.35.2", "x.y", "٣.٤"]),
    sku_name=st.sampled_from(["Base", "Automatic", "x"]),
    tier=st.sampled_from(["Free", "Standard", "Premium", ""]),
    support_plan=st.sampled_from(["KubernetesOfficial", "AKSLongTermSupport", ""]),
    upgrade_channel=st.sampled_from([None, "stable", "patch", "node-image", "x"]),
    autoscaler_profile=st.lists(st.tuples(st.text(max_size=8), st.integers() | st.text(max_size=4)), max_size=2).map(
        tuple
    ),
    today=st.none() | st.dates(date(2024, 1, 1), date(2031, 1, 1)),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(CLUSTERS)
def test_any_declaration(cluster: Cluster) -> None:
    for finding in check_cluster(cluster):
        assert finding.number
        assert finding.source
        assert finding.rule
        assert finding.mend
        assert finding.text(Casing.CAMEL)
        assert finding.text(Casing.SNAKE)
    assert all(need.needed >= need.surely for need in address_needs(cluster))
    hosts = required_hosts(cluster, StackNames())
    assert all(one.host and one.phases for one in hosts)
    cost = monthly_cost(cluster.pools, cluster.location, cluster.tier, price_list())
    assert cost.text()
    assert fit_services(cluster, [Service(Workload("a", Resources(100, 100), 1), 1, 3)]).lines()


@given(st.dates(date(2026, 8, 21), date(2028, 1, 1)))
def test_support_ends_once(today: date) -> None:
    """As time goes by a version is first good, then warned of, then refused; never good again."""
    versions = ("1.34", "1.35", "1.36", "1.37")

    def gravity(version: str, day: date) -> int:
        found = [
            one for one in check_cluster(Cluster(kubernetes_version=version, today=day)) if one.number in {"10b", "10c"}
        ]
        return max((2 if one.severity is Severity.ERROR else 1 for one in found), default=0)

    for version in versions[:2]:
        assert gravity(version, today) <= gravity(version, today + timedelta(days=30))


@pytest.mark.parametrize(("kind", "pods"), [("azure", 30), ("kubenet", 110), ("none", 250), (None, 250)])
def test_default_pods_per_node(kind: str | None, pods: int) -> None:
    assert max_pods(Pool("p"), network_kind(Network(plugin=kind))) == pods
    assert max_pods(Pool("p", max_pods=50), network_kind(Network(plugin=kind))) == 50
    assert DEFAULT_MAX_PODS[NetworkKind.POD_SUBNET] == 110
    assert DEFAULT_MAX_PODS[NetworkKind.OVERLAY] == 250


def test_texts_show_no_markers() -> None:
    marker = re.compile(r"(?<!\w)@[a-z]")
    cluster = Cluster(
        name="-",
        location="mars",
        pools=(Pool("P", spot_max_price=Decimal(1)),),
        network=Network(plugin="kubenet", policy="cilium", service_cidr="1.2.3.4"),
        tls=Tls(leaf_domain_label="-"),
    )
    found = check_cluster(cluster)
    assert len(found) > 5
    assert not [one for one in found if marker.search(one.text(Casing.CAMEL))]
