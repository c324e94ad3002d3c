"""Every rule of a cluster is said where it is broken, and not where it is kept."""

# ruff: noqa: E501 (a case is a line)

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from cluster_cases import CASES
from cluster_declarations import (
    AUTOSCALED,
    BASE,
    ERROR,
    INFERENCE,
    KUBENET,
    OVERLAY,
    SYSTEM,
    T4,
    TODAY,
    WARNING,
    ZONE,
    Case,
    having,
    in_subnet,
    network,
    nodes,
    pool,
    private,
    subnet,
)

from aks_inference.cluster_rules import (
    NOT_CHECKED,
    Access,
    Cluster,
    Egress,
    Identity,
    Network,
    Security,
    Tls,
    all_rules,
    check_cluster,
    relocate,
)
from aks_inference.findings import Casing

GOOD: dict[str, Cluster] = {
    "overlay with cilium": BASE,
    "nothing given but pools": Cluster(pools=(SYSTEM, INFERENCE), tier="Standard", today=TODAY),
    "no pools yet": Cluster(),
    "azure cni in a subnet": in_subnet(),
    "subnet not looked up": in_subnet(subnet=subnet(cidr=None)),
    "pod subnet": in_subnet(subnet=subnet(cidr="10.1.0.0/24"), pod_subnet=subnet("pods", "10.2.0.0/20")),
    "pod subnet, static blocks": in_subnet(subnet=subnet(cidr="10.1.0.0/24"), pod_subnet=subnet("pods", "10.2.0.0/16"), pod_ip_allocation="StaticBlock"),
    "own cni": having(network=Network(plugin="none")),
    "calico": network(dataplane="azure", policy="calico"),
    "firewall": replace(in_subnet(subnet=subnet(default_route="VirtualAppliance")), egress=Egress("userDefinedRouting")),
    "own nat gateway": replace(in_subnet(subnet=subnet(nat_gateway=True)), egress=Egress("userAssignedNATGateway")),
    "managed nat gateway": having(egress=Egress("managedNATGateway", managed_outbound_ip_count=16, idle_timeout_minutes=4)),
    "isolated": replace(
        private(),
        egress=Egress("none", bootstrap_cache_registry_id="acr"),
        identity=Identity(own_kubelet_identity=True),
    ),
    "public addresses denied": replace(
        in_subnet(subnet=subnet(default_route="VirtualAppliance")),
        egress=Egress("userDefinedRouting", public_ips_denied=True),
        tls=Tls(load_balancer_type="InternalLoadBalancer", load_balancer_subnet="aks-subnet"),
    ),
    "ports": having(egress=Egress(allocated_outbound_ports=8000)),
    "authorized": having(access=Access(authorized_ip_ranges=("203.0.113.0/24", "0.0.0.0/32"), operator_ip_ranges=("203.0.113.9",))),
    "private, system zone": private(private_dns_zone="system"),
    "private, no public name": private(private_dns_zone="system", public_fqdn=False),
    "private, public name only": private(private_dns_zone="none", public_fqdn=True),
    "many ranges": having(
        access=Access(vnet_integration=True, authorized_ip_ranges=tuple(f"203.0.{i // 200}.{i % 200}/32" for i in range(2000)))
    ),
    "private, own zone": private(private_dns_zone=ZONE.format("westeurope"), fqdn_subdomain="scoring"),
    "private, zone below": private(private_dns_zone=ZONE.format("westeurope").replace("privatelink", "a1.privatelink")),
    "private, zone of another cloud": replace(
        private(private_dns_zone=ZONE.format("usgovvirginia").replace("azmk8s.io", "cx.aks.containerservice.azure.us")),
        location="usgovvirginia",
    ),
    "entra": having(access=Access(entra_id=True, azure_rbac=True, local_accounts=False)),
    "workload identity": having(security=Security(workload_identity=True, oidc_issuer=True)),
    "every add-on": replace(
        in_subnet(),
        access=Access(vnet_integration=True, api_server_subnet=subnet("api", "10.7.0.0/28", delegations=("microsoft.containerservice/managedclusters",))),
        security=Security(
            defender=True,
            container_insights=True,
            log_analytics_workspace_id="w",
            managed_prometheus=True,
            azure_monitor_workspace_id="m",
            image_cleaner=True,
            image_cleaner_interval_hours=168,
            kms=True,
            kms_key_id="k",
            kms_network_access="Private",
            kms_vault_id="v",
        ),
    ),
    "autoscaled from zero": pool(autoscale=True, min_count=0, max_count=10),
    "autoscaler settings": replace(
        AUTOSCALED,
        autoscaler_profile=(
            ("scan_interval", "10s"),
            ("scale_down_unneeded_time", "10m"),
            ("scale_down_utilization_threshold", "0.5"),
            ("max_total_unready_percentage", 45),
            ("expander", "least-waste"),
            ("daemonset_eviction_for_empty_nodes", True),
        ),
    ),
    "spot": pool(spot=True, spot_max_price=Decimal("0.12345"), eviction_policy="Delete"),
    "spot to the full price": pool(spot=True, spot_max_price=Decimal(-1)),
    "gpu": pool(vm_size=T4.name, size=T4, gpu_driver="None", taints=("sku=gpu:NoSchedule",)),
    "size left to AKS": pool(vm_size=None, size=None),
    "unknown size": pool(vm_size="Standard_New_v9", size=None),
    "empty pool": pool(count=0),
    "surge": pool(max_surge="33%"),
    "in place upgrades": pool(max_surge="0", max_unavailable="1"),
    "long-term support": having(kubernetes_version="1.33", tier="Premium", support_plan="AKSLongTermSupport"),
    "newest patch": having(kubernetes_version="1.35.2", upgrade_channel="none"),
    "automatic": having(sku_name="Automatic"),
    "own certificate": having(tls=Tls("a.example", "c.pem", "k.pem", minimum_version="1.3")),
    "certificate of a vault": having(tls=Tls("a.example", key_vault_secret_id="s")),
    "leaf label": having(tls=Tls(leaf_domain_label="scoring", overwrite_existing_domain=True)),
    "government": having(location="usgovvirginia"),
    "names": having(name="a", dns_prefix="a", node_resource_group="nodes(1)", admin_username="azureuser", resource_group="rg"),
}  # fmt: skip


def identify(case: object) -> str | None:
    return f"{case.number}-{case.path}" if isinstance(case, Case) else None


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_broken_rule_is_said(case: Case) -> None:
    findings = [(one.number, one.location(Casing.SNAKE), one) for one in check_cluster(case.cluster)]
    hits = [one for number, path, one in findings if (number, path) == (case.number, case.path)]
    assert hits, [(number, path) for number, path, _ in findings]
    matching = [one for one in hits if case.says in one.reason(Casing.SNAKE)]
    assert matching, [one.reason(Casing.SNAKE) for one in hits]
    assert matching[0].severity is case.severity
    assert matching[0].mend
    assert matching[0].source


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_texts_have_no_leftovers(case: Case) -> None:
    for finding in check_cluster(case.cluster):
        text = finding.text(Casing.CAMEL)
        assert "@" not in text
        assert "None" not in text.replace('"None"', "").replace("nor None", "").replace("None,", ""), text


@pytest.mark.parametrize("cluster", GOOD.values(), ids=GOOD)
def test_good_cluster_is_not_stopped(cluster: Cluster) -> None:
    assert not [one.text(Casing.SNAKE) for one in check_cluster(cluster)]


def test_every_rule_has_a_case() -> None:
    assert {rule.number for rule in all_rules()} == {case.number for case in CASES}


def test_every_numbered_rule_is_checked_or_said_not_to_be() -> None:
    numbers = {*(rule.number for rule in all_rules()), *NOT_CHECKED}
    wanted = {f"1.{i}" for i in range(1, 14)} | {f"2.{i}" for i in range(1, 17)}
    assert not wanted - numbers
    assert not {rule.number for rule in all_rules()} & set(NOT_CHECKED)


def test_errors_come_first() -> None:
    found = check_cluster(having(location="nowhere", tier="Paid"))
    assert [one.severity for one in found] == [ERROR, WARNING]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: replace(c, today=None), "no day, no versions"),
        (lambda c: replace(c, kubernetes_version=None), "no version"),
    ],
)
def test_unknown_is_not_judged(change: Callable[[Cluster], Cluster], says: str) -> None:
    assert not check_cluster(change(having(kubernetes_version="1.33"))), says


def test_paths_of_the_flat_arguments() -> None:
    found = check_cluster(replace(in_subnet(dns_service_ip="10.0.0.1"), pools=(SYSTEM, replace(INFERENCE, count=-1))))
    places = {("network", "dns_service_ip"): ("dns_service_ip",), ("pools", 0, "count"): ("agent_count",)}
    assert {one.location(Casing.CAMEL) for one in relocate(found, places)} == {"dnsServiceIp", "agentCount"}
    assert {one.location(Casing.CAMEL) for one in found} == {"network.dnsServiceIp", "pools[0].count"}
    outer = {("network",): ("net",), ("network", "dns_service_ip"): ("dns",)}
    assert "dns" in {one.location(Casing.SNAKE) for one in relocate(found, outer)}


def test_plan_that_no_longer_helps_is_not_proposed() -> None:
    for version, premium in (("1.33", True), ("1.29", False)):
        (found,) = check_cluster(having(kubernetes_version=version))
        assert ("Premium" in found.mend) is premium


@pytest.mark.parametrize(
    ("number", "cluster"),
    [
        ("1.6", replace(private(), network=KUBENET)),
        ("1.6", replace(private(), network=replace(KUBENET, own_route_table=True))),
        ("1.6", having(network=replace(KUBENET, own_route_table=True, dns_servers=("10.9.0.4",)))),
        (
            "1.10",
            replace(
                in_subnet(pod_subnet=subnet("pods", "10.2.0.0/16"), pod_ip_allocation="StaticBlock"),
                kubernetes_version="1.28",
            ),
        ),
        ("2.13", nodes(900, replace(OVERLAY, pod_cidr="10.128.0.0/9"))),
        ("7e", replace(nodes(7), tier="Free")),
    ],
)
def test_just_inside_the_limit(number: str, cluster: Cluster) -> None:
    assert number not in {one.number for one in check_cluster(cluster)}
