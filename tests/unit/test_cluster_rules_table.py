"""Every rule of a cluster: a declaration that breaks it, and what is then said."""

# ruff: noqa: E501 (a case is a line)

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from aks_inference.cluster_rules import (
    NOT_CHECKED,
    Access,
    Cluster,
    Egress,
    Identity,
    Network,
    Pool,
    Security,
    Subnet,
    Tls,
    all_rules,
    check_cluster,
    relocate,
)
from aks_inference.findings import Casing, Severity
from aks_inference.vm_sizes import VmSize

TODAY = date(2026, 11, 21)
VNET = "/subscriptions/0/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/main"
D4 = VmSize("Standard_D4s_v5", 4, 16, 0)
T4 = VmSize("Standard_NC4as_T4_v3", 4, 28, 1)
ERROR, WARNING = Severity.ERROR, Severity.WARNING

SYSTEM = Pool("system", D4.name, D4, mode="System", count=3, zones=("1", "2", "3"), path=("system_pool",))
INFERENCE = Pool("inference", D4.name, D4, count=3)
OVERLAY = Network(plugin="azure", plugin_mode="overlay", dataplane="cilium", policy="cilium")
BASE = Cluster(
    name="scoring",
    location="westeurope",
    pools=(SYSTEM, INFERENCE),
    network=OVERLAY,
    kubernetes_version="1.35",
    tier="Standard",
    upgrade_channel="patch",
    node_os_upgrade_channel="NodeImage",
    today=TODAY,
)


def subnet(name: str = "nodes", cidr: str | None = "10.1.0.0/20", **known: Any) -> Subnet:
    return Subnet(f"{VNET}/subnets/{name}", cidr, **known)


NODE_SUBNET = Network(plugin="azure", subnet=subnet(), service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10")


@dataclass(frozen=True)
class Case:
    """A declaration and the finding that it must bring."""

    number: str
    path: str
    """In snake_case."""
    says: str
    """Part of the text."""
    cluster: Cluster
    severity: Severity = ERROR


def having(**parts: Any) -> Cluster:
    return replace(BASE, **parts)


def pool(**parts: Any) -> Cluster:
    return replace(BASE, pools=(SYSTEM, replace(INFERENCE, **parts)))


def system(**parts: Any) -> Cluster:
    return replace(BASE, pools=(replace(SYSTEM, **parts), INFERENCE))


def network(**parts: Any) -> Cluster:
    return replace(BASE, network=replace(OVERLAY, **parts))


def in_subnet(**parts: Any) -> Cluster:
    return replace(BASE, network=replace(NODE_SUBNET, **parts))


def private(**parts: Any) -> Cluster:
    return having(access=Access(private_cluster=True, **parts))


def nodes(count: int, kind: Network = OVERLAY, **parts: Any) -> Cluster:
    return replace(BASE, network=kind, pools=(SYSTEM, replace(INFERENCE, count=count, **parts)))


LONG = "n" * 64
KUBENET = Network(plugin="kubenet")
ZONE = "/subscriptions/0/resourceGroups/dns/providers/Microsoft.Network/privateDnsZones/privatelink.{}.azmk8s.io"

AUTOSCALED = pool(autoscale=True, min_count=1, max_count=5)

NETWORK_CASES = [
    Case("1.1", "network.plugin", 'write "azure"', network(plugin="Azure", plugin_mode=None, dataplane=None, policy=None)),
    Case("1.1", "network.policy", "use one of none, calico", network(policy="deny", dataplane=None)),
    Case("1.1", "network.plugin_mode", 'goes only with plugin "azure", and plugin is "kubenet"', having(network=replace(KUBENET, plugin_mode="overlay"))),
    Case("1.1", "network.mode", "no longer supported", network(mode="bridge")),
    Case("1.1", "network.mode", 'goes only with plugin "azure"', having(network=replace(KUBENET, mode="transparent"))),
    Case("1.3", "network.plugin", "2028-03-31", having(network=KUBENET), WARNING),
    Case("1.3", "network.plugin", "ended", having(network=KUBENET, today=date(2028, 4, 1))),
    Case("1.4", "network.plugin", "at most 400 nodes", nodes(398, KUBENET)),
    Case("1.4", "network.plugin", "433 with surge", nodes(390, KUBENET), WARNING),
    Case("1.4", "network.policy", 'does not work with plugin "kubenet"', having(network=replace(KUBENET, policy="azure"))),
    Case("1.4", "network.dataplane", 'does not work with plugin "kubenet"', having(network=replace(KUBENET, dataplane="cilium"))),
    Case("1.5", "identity.system_assigned", "gets it only after", having(network=replace(KUBENET, subnet=subnet()), identity=Identity(user_assigned=False))),
    Case("1.6", "network.plugin", "route table", replace(private(), network=replace(KUBENET, own_route_table=True, dns_servers=("10.9.0.4",))), WARNING),
    Case("1.7", "network.policy", 'needs dataplane "cilium", and dataplane is not given', network(dataplane=None)),
    Case("1.7", "network.policy", 'does not work with dataplane "cilium"', network(policy="calico")),
    Case("1.7", "network.dataplane", 'and plugin is "none"', having(network=Network(plugin="none", dataplane="cilium"))),
    Case("1.7", "pools[0].os_type", "Linux only", pool(os_type="Windows")),
    Case("1.8", "network.policy", "ends for Linux on 2028-09-30", network(dataplane="azure", policy="azure"), WARNING),
    Case("1.8", "network.policy", "up to 250 nodes", nodes(250, replace(OVERLAY, dataplane=None, policy="azure", pod_cidr="10.240.0.0/14")), WARNING),
    Case("1.9", "network.plugin_mode", "at most 5000 nodes", nodes(5000, replace(OVERLAY, pod_cidr="10.128.0.0/9"))),
    Case("1.9", "pools[0].vm_size", "DCsv2", pool(vm_size="Standard_DC2s_v2", size=None)),
    Case("1.9", "network.subnet_id", "64 characters", network(subnet=subnet(LONG))),
    Case("1.9", "network.subnet_id", "the virtual network's name has 64", network(subnet=Subnet(f"{VNET[:-4]}{LONG}/subnets/nodes"))),
    Case("1.9", "network.subnet_id", "the resource group's name has 64", network(subnet=Subnet(f"{VNET.replace('/net/', f'/{LONG}/')}/subnets/nodes"))),
    Case("1.10", "network.pod_subnet_id", "same subnet", in_subnet(pod_subnet=subnet())),
    Case("1.10", "network.pod_subnet_id", "needs a subnet for the nodes", in_subnet(subnet=None, pod_subnet=subnet("pods"))),
    Case("1.10", "network.pod_subnet_id", 'plugin_mode "overlay"', network(subnet=subnet(), pod_subnet=subnet("pods", "10.2.0.0/20"))),
    Case("1.10", "network.pod_subnet_id", "plugin is not given", in_subnet(plugin=None, pod_subnet=subnet("pods", "10.2.0.0/20"))),
    Case("1.10", "network.pod_ip_allocation", "pod_subnet_id, which is not given", network(pod_ip_allocation="StaticBlock")),
    Case("1.10", "network.pod_ip_allocation", "Kubernetes 1.28", replace(in_subnet(pod_subnet=subnet("pods", "10.2.0.0/16"), pod_ip_allocation="StaticBlock"), kubernetes_version="1.27")),
    Case("1.11", "network.subnet_id", "delegated to Microsoft.Web", in_subnet(subnet=subnet(delegations=("Microsoft.Web/serverFarms",)))),
    Case("1.11", "network.subnet_id", "northeurope", in_subnet(subnet=subnet(region="northeurope"))),
    Case("1.11", "network.subnet_id", "made in 1", replace(in_subnet(), subscription_id="1")),
    Case("1.11", "network.subnet_id", "not the resource id", in_subnet(subnet=Subnet("nodes"))),
    Case("1.11", "pools[0].subnet_id", 'virtual network "other"', replace(pool(subnet_id=f"{VNET[:-4]}other/subnets/n"), network=NODE_SUBNET)),
]  # fmt: skip

RANGE_CASES = [
    Case("2a", "network.service_cidr", "not an IPv4 range", network(service_cidr="10.0.0.0")),
    Case("2a", "network.service_cidr", "write 10.0.0.0/16", network(service_cidr="10.0.5.0/16")),
    Case("2a", "network.pod_cidr", "not an IPv4 range", network(pod_cidr="10.0.0.0/33")),
    Case("2a", "network.dns_service_ip", "not an IPv4 address", network(dns_service_ip="10.0.0.300")),
    Case("2a", "network.dns_servers[0]", "not an IPv4 address", network(dns_servers=("dns.local",))),
    Case("2.1", "network.dns_service_ip", "lies outside service_cidr 10.200.0.0/16; write 10.200.0.10", network(service_cidr="10.200.0.0/16", dns_service_ip="10.0.0.10")),
    Case("2.1", "network.dns_service_ip", "(the default) lies outside", network(service_cidr="10.200.0.0/16")),
    Case("2.2", "network.dns_service_ip", "is the first address", network(dns_service_ip="10.0.0.1")),
    Case("2.2", "network.dns_service_ip", "network address", network(dns_service_ip="10.0.0.0")),
    Case("2.2", "network.dns_service_ip", "last address", network(dns_service_ip="10.0.255.255")),
    Case("2.3", "network.service_cidr", "smaller than /12", network(service_cidr="10.16.0.0/12", dns_service_ip="10.16.0.10")),
    Case("2.4", "network.service_cidr", "overlaps the subnet of subnet_id, 10.0.4.0/22; write 10.1.0.0/16", in_subnet(subnet=subnet(cidr="10.0.4.0/22"))),
    Case("2.4", "network.service_cidr", 'subnet "vms" of the virtual network', in_subnet(other_subnets=(subnet("vms", "10.0.9.0/24"),))),
    Case("2.5", "network.service_cidr", "overlaps the virtual network 10.0.0.0/8", in_subnet(vnet_cidrs=("10.0.0.0/8",)), WARNING),
    Case("2.5", "network.service_cidr", "the connected network 10.0.3.0/24", in_subnet(connected_cidrs=("10.0.3.0/24",)), WARNING),
    Case("2.6", "network.service_cidr", "172.30.0.0/16, which AKS keeps", network(service_cidr="172.30.0.0/17", dns_service_ip="172.30.0.10")),
    Case("2.6", "network", "172.31.0.0/16, which AKS keeps", in_subnet(vnet_cidrs=("172.16.0.0/12",))),
    Case("2.6", "network.pod_cidr", "169.254.0.0/16", network(pod_cidr="169.254.0.0/16")),
    Case("2.7", "network.pod_cidr", "overlaps service_cidr 10.0.0.0/16", network(pod_cidr="10.0.0.0/14")),
    Case("2.7", "network.pod_cidr", "subnet of subnet_id, 10.244.1.0/24", network(subnet=subnet(cidr="10.244.1.0/24"))),
    Case("2.7", "network.pod_cidr", "the connected network 10.244.9.0/24", network(connected_cidrs=("10.244.9.0/24",))),
    Case("2.7", "network.pod_cidr", "the virtual network 10.240.0.0/12", network(vnet_cidrs=("10.240.0.0/12",)), WARNING),
    Case("2.3", "network.service_cidr", "write 10.1.0.0/16", network(service_cidr="10.0.0.0/11", subnet=subnet(cidr="10.0.0.0/24"))),
    Case("2.8", "network.pod_cidr", "public range", network(pod_cidr="11.0.0.0/16"), WARNING),
    Case("2b", "network.docker_bridge_cidr", "has no effect", network(docker_bridge_cidr="172.17.0.1/16"), WARNING),
    Case("2d", "network.pod_cidr", "has no meaning with Azure CNI node subnet", in_subnet(pod_cidr="10.244.0.0/16")),
    Case("2.14", "network", "/8 at most", in_subnet(vnet_cidrs=("8.0.0.0/7",))),
    Case("2.15", "access.api_server_subnet_id", "must be delegated", having(access=Access(vnet_integration=True, api_server_subnet=subnet("api", "10.7.0.0/28", delegations=())))),
    Case("2.15", "access.api_server_subnet_id", "/28 or larger", having(access=Access(vnet_integration=True, api_server_subnet=subnet("api", "10.7.0.0/29")))),
    Case("2.15", "access.api_server_subnet_id", "vnet_integration, which is off", having(access=Access(api_server_subnet=subnet("api", "10.7.0.0/28")))),
    Case("2.15", "access.api_server_subnet_id", "same subnet as subnet_id", replace(in_subnet(), access=Access(vnet_integration=True, api_server_subnet=subnet()))),
    Case("2.9", "network.pod_cidr", "/22 has 1,024; use /21", nodes(3, replace(OVERLAY, pod_cidr="10.240.100.0/22"))),
    Case("2.10", "network.subnet_id", "3 nodes and 1 more while upgrading need 124 addresses, /25 has 123; use /24", replace(in_subnet(subnet=subnet(cidr="10.1.0.0/25")), pools=(INFERENCE, ), existing=True)),
    Case("2.11", "network.subnet_id", "104 nodes and 12 more", nodes(101, replace(OVERLAY, subnet=subnet(cidr="10.1.0.0/26")))),
    Case("2.11", "network.subnet_id", "54 nodes and 7 more", having(network=replace(OVERLAY, subnet=subnet(cidr="10.1.0.0/26")), pools=(SYSTEM, replace(INFERENCE, count=51))), WARNING),
    Case("2.12", "network.pod_subnet_id", "use /24", in_subnet(subnet=subnet(cidr="10.1.0.0/24"), pod_subnet=subnet("pods", "10.2.0.0/26"))),
]  # fmt: skip

EGRESS_CASES = [
    Case("3a", "network.load_balancer_sku", 'several node pools would need "standard" in any case', network(load_balancer_sku="basic")),
    Case("3a", "network.load_balancer_sku", "not known", network(load_balancer_sku="gateway")),
    Case("3b", "egress.outbound_type", "preview", having(egress=Egress("block"))),
    Case("3b", "egress.outbound_type", 'write "loadBalancer"', having(egress=Egress("LoadBalancer"))),
    Case("3c", "egress.outbound_type", "subnet_id is not given", having(egress=Egress("userDefinedRouting"))),
    Case("3c", "egress.outbound_type", "there is none", replace(in_subnet(subnet=subnet(default_route="")), egress=Egress("userDefinedRouting"))),
    Case("3c", "egress.outbound_type", "leads to Internet", replace(in_subnet(subnet=subnet(default_route="Internet")), egress=Egress("userDefinedRouting"))),
    Case("3d", "egress.outbound_type", "subnet_id is nodes", replace(in_subnet(), egress=Egress("managedNATGateway"))),
    Case("3e", "egress.outbound_type", "subnet_id is not given", having(egress=Egress("userAssignedNATGateway"))),
    Case("3e", "egress.outbound_type", "needs a NAT gateway", replace(in_subnet(subnet=subnet(nat_gateway=False)), egress=Egress("userAssignedNATGateway"))),
    Case("3f", "egress.outbound_type", "network isolated", having(egress=Egress("none"))),
    Case("3g", "egress.managed_outbound_ip_count", "from 1 to 16", having(egress=Egress("managedNATGateway", managed_outbound_ip_count=17))),
    Case("3g", "egress.idle_timeout_minutes", "from 4 to 120", having(egress=Egress(idle_timeout_minutes=3))),
    Case("3g", "egress.allocated_outbound_ports", "use 96", having(egress=Egress(allocated_outbound_ports=100))),
    Case("3g", "egress.managed_outbound_ip_count", "not both", having(egress=Egress(managed_outbound_ip_count=1, outbound_ip_count=1))),
    Case("3h", "egress.allocated_outbound_ports", "8 nodes (with surge) need 64,064 ports, and 1 outbound address has 64,000; use 8000 ports, or 2 addresses", having(egress=Egress(allocated_outbound_ports=8008))),
    Case("3i", "egress.outbound_type", "RequestDisallowedByPolicy", having(egress=Egress(public_ips_denied=True))),
    Case("3i", "load_balancer_type", "scoring address would be public", having(egress=Egress(public_ips_denied=True))),
    Case("3i", "pools[0].node_public_ip", "RequestDisallowedByPolicy", replace(pool(node_public_ip=True), egress=Egress(public_ips_denied=True))),
]  # fmt: skip

ACCESS_CASES = [
    Case("4a", "access.authorized_ip_ranges", "does not go with private_cluster", private(authorized_ip_ranges=("203.0.113.0/24",))),
    Case("4b", "access.authorized_ip_ranges", "at most 200", having(access=Access(authorized_ip_ranges=tuple(f"203.0.113.{i}/32" for i in range(201))))),
    Case("4b", "access.authorized_ip_ranges", "at most 2,000", having(access=Access(vnet_integration=True, authorized_ip_ranges=tuple(f"203.0.{i // 200}.{i % 200}/32" for i in range(2001))))),
    Case("4b", "access.authorized_ip_ranges[0]", "write 203.0.113.0/24", having(access=Access(authorized_ip_ranges=("203.0.113.7/24",)))),
    Case("4b", "access.authorized_ip_ranges[1]", "not an IPv4 range", having(access=Access(authorized_ip_ranges=("203.0.113.7", "office")))),
    Case("4c", "access.authorized_ip_ranges", "add 198.51.100.9", having(access=Access(authorized_ip_ranges=("203.0.113.0/24",), operator_ip_ranges=("203.0.113.9", "198.51.100.9")))),
    Case("4d", "pools[0].node_public_ip", "prefix", replace(pool(node_public_ip=True), access=Access(authorized_ip_ranges=("203.0.113.0/24",)))),
    Case("4e", "access.private_dns_zone", "neither", private(private_dns_zone="privatelink.westeurope.azmk8s.io")),
    Case("4e", "access.private_dns_zone", "must be privatelink.westeurope.azmk8s.io", private(private_dns_zone=ZONE.format("northeurope"))),
    Case("4f", "access.private_dns_zone", "user-assigned", replace(private(private_dns_zone=ZONE.format("westeurope")), identity=Identity(user_assigned=False))),
    Case("4g", "access.fqdn_subdomain", 'which is "system"', private(fqdn_subdomain="scoring")),
    Case("4g", "access.fqdn_subdomain", "instead of dns_prefix", replace(private(private_dns_zone=ZONE.format("westeurope"), fqdn_subdomain="scoring"), dns_prefix="scoring")),
    Case("4h", "access.private_dns_zone", "no name at all", private(private_dns_zone="none", public_fqdn=False)),
    Case("4i", "access.private_dns_zone", "private_cluster, which is off", having(access=Access(private_dns_zone="system"))),
    Case("4j", "access.public_fqdn", "Azure ML", replace(private(), azure_ml=True), WARNING),
    Case("4l", "access.authorized_ip_ranges", "in westeurope and northeurope", having(azure_ml=True, access=Access(authorized_ip_ranges=("203.0.113.0/24",))), WARNING),
    Case("4m", "access.private_dns_zone", "in both", replace(private(private_dns_zone=ZONE.format("westeurope")), subscription_id="1"), WARNING),
    Case("4e", "access.private_dns_zone", "or <name>.privatelink", private(private_dns_zone=ZONE.format("westeurope").replace("privatelink", f"{'a' * 33}.privatelink"))),
    Case("4k", "access.vnet_integration", "qatarcentral", having(location="qatarcentral", access=Access(vnet_integration=True))),
    Case("12a", "access.azure_rbac", "entra_id, which is off", having(access=Access(azure_rbac=True))),
    Case("12a", "access.tenant_id", "the subscription's tenant, t2", having(access=Access(azure_rbac=True, entra_id=True, tenant_id="t1", subscription_tenant_id="t2"))),
    Case("12b", "access.local_accounts", "nobody could sign in", having(access=Access(local_accounts=False))),
    Case("12c", "access.local_accounts", "Azure ML", having(azure_ml=True, access=Access(local_accounts=False, entra_id=True)), WARNING),
    Case("12d", "security.workload_identity", "oidc_issuer, which is off", having(security=Security(workload_identity=True, oidc_issuer=False))),
    Case("12e", "security.workload_identity", "holds 20", having(identity=Identity(federated_credentials=21))),
    Case("12f", "identity.kubelet_identity_id", "control plane", having(identity=Identity(user_assigned=False, own_kubelet_identity=True))),
    Case("12g", "location", "no user-assigned identities", having(location="usdodeast")),
]  # fmt: skip

NAME_CASES = [
    Case("6a", "pools[0].name", 'for example "gpupool"', pool(name="GPU-pool")),
    Case("6a", "pools[0].name", "2 pools have this name", pool(name="system")),
    Case("6b", "name", "1 to 63", having(name="-scoring")),
    Case("6c", "dns_prefix", "1 to 54", having(dns_prefix="a.b")),
    Case("6d", "node_resource_group", "brackets", having(node_resource_group="nodes.")),
    Case("6d", "node_resource_group", "the default name MC_", having(resource_group="r" * 60)),
    Case(
        "6d",
        "node_resource_group",
        "is resource_group itself",
        having(resource_group="Nodes", node_resource_group="nodes"),
    ),
    Case("6e", "admin_username", "begin with a letter", having(admin_username="1st")),
    Case("6f", "location", "not in the list", having(location="westerneurope"), WARNING),
    Case("6g", "location", "the registry is in eastus", having(related_locations=(("registry", "eastus"),)), WARNING),
]

POOL_CASES = [
    Case("7a", "pools", "mode System", having(pools=(INFERENCE,))),
    Case("7a", "pools[0].mode", "neither System nor User", pool(mode="Gateway")),
    Case("7b", "system_pool.count", "fewer than 3 nodes", system(count=1), WARNING),
    Case("7b", "system_pool.min_count", "fewer than 3 nodes", system(autoscale=True, min_count=2, max_count=5), WARNING),
    Case("7c", "system_pool.vm_size", "2 vCPU and 4 GiB", system(size=VmSize("Standard_A1_v2", 1, 2, 0), vm_size="Standard_A1_v2")),
    Case("7c", "system_pool.vm_size", "4 vCPU", system(size=VmSize("Standard_D2s_v5", 2, 8, 0), vm_size="Standard_D2s_v5"), WARNING),
    Case("7c", "system_pool.vm_size", "B sizes", system(size=VmSize("Standard_B4s_v2", 4, 16, 0), vm_size="Standard_B4s_v2"), WARNING),
    Case("7d", "pools[0].vm_size", "2 vCPU and 2 GiB", pool(size=VmSize("Standard_A1_v2", 1, 2, 0), vm_size="Standard_A1_v2")),
    Case("7e", "pools[0].count", "0 to 1,000", pool(count=1001)),
    Case("7e", "system_pool.count", "1 to 1,000", system(count=0)),
    Case("7e", "pools", "at most 100 pools", having(pools=(SYSTEM, *(replace(INFERENCE, name=f"p{i}", count=0, path=("pools", i)) for i in range(100))))),
    Case("7e", "pools", 'tier "Free" allows 1,000', replace(nodes(998), tier="Free")),
    Case("7e", "pools", "at most 5,000", having(pools=(SYSTEM, *(replace(INFERENCE, name=f"p{i}", count=1000, path=("pools", i)) for i in range(5))))),
    Case("7e", "tier", "at most 10", replace(nodes(20), tier="Free"), WARNING),
    Case("7f", "pools[0].vm_size", "2028-05-01", pool(vm_size="Standard_D3_v2", size=VmSize("Standard_D3_v2", 4, 14, 0)), WARNING),
    Case("7f", "pools[0].vm_size", "retired this size on 2025-09-30", pool(vm_size="Standard_NC6s_v3", size=None)),
    Case("7g", "pools[0].os_type", "runs on Linux", pool(os_type="Windows")),
    Case("7h", "pools[0].vm_size", "arm64", pool(vm_size="Standard_D4ps_v5", size=VmSize("Standard_D4ps_v5", 4, 16, 0)), WARNING),
    Case("7i", "system_pool.spot", "cannot be spot", system(spot=True)),
    Case("7i", "pools[0].spot_max_price", "write 0.12346", pool(spot=True, spot_max_price=Decimal("0.1234567"))),
    Case("7i", "pools[0].spot_max_price", "write -1", pool(spot=True, spot_max_price=Decimal(0))),
    Case("7i", "pools[0].spot_max_price", "write -1", pool(spot=True, spot_max_price=Decimal("NaN"))),
    Case("7i", "pools[0].spot_max_price", "spot, which is off", pool(spot_max_price=Decimal("0.5"))),
    Case("7i", "pools[0].eviction_policy", "neither", pool(spot=True, eviction_policy="Stop")),
    Case("7j", "pools[0].eviction_policy", "keep their quota", pool(spot=True, eviction_policy="Deallocate"), WARNING),
    Case("7k", "pools[0].zones", "each once", pool(zones=("1", "1"))),
    Case("7k", "pools[0].zones", "northcentralus has no availability zones", replace(pool(zones=("1",)), location="North Central US")),
    Case("7l", "pools[0].os_disk_size_gb", "0 to 2,048", pool(os_disk_size_gb=4096)),
    Case("7l", "pools[0].node_soak_minutes", "0 to 30", pool(node_soak_minutes=31)),
    Case("2c", "pools[0].max_pods", "10 to 250", pool(max_pods=9)),
    Case("2c", "pools[0].max_pods", "2 nodes × 10 pods = 20", pool(max_pods=10, count=2)),
    Case("2.13", "pools[0].max_surge", "neither a number", pool(max_surge="a third")),
    Case("2.13", "pools[0].max_surge", "more than 100 %", pool(max_surge="150%")),
    Case("2.13", "pools[0].max_surge", "could never begin", pool(max_surge="0")),
    Case("2.13", "system_pool.max_unavailable", "cannot be set", system(max_unavailable="1")),
    Case("2.13", "pools[0].max_surge", "scale set", nodes(990, replace(OVERLAY, pod_cidr="10.128.0.0/9")), WARNING),
    Case("8a", "pools[0].vm_size", "NVv4", pool(vm_size="Standard_NV4as_v4", size=None)),
    Case("8b", "pools[0].gpu_driver", "has none", pool(gpu_driver="Install")),
    Case("8b", "pools[0].gpu_driver", "neither Install nor None", pool(gpu_driver="Managed", vm_size=T4.name, size=T4, taints=("sku=gpu:NoSchedule",))),
    Case("8b", "pools[0].gpu_instance_profile", "MIG1g, MIG2g", pool(gpu_instance_profile="MIG5g", vm_size=T4.name, size=T4, taints=("sku=gpu:NoSchedule",))),
    Case("8c", "pools[0].taints", "sku=gpu:NoSchedule", pool(vm_size=T4.name, size=T4), WARNING),
    Case("9a", "pools[0].max_count", "is needed with autoscale", pool(autoscale=True, min_count=1)),
    Case("9a", "pools[0].min_count", "more than max_count 3", pool(autoscale=True, min_count=5, max_count=3)),
    Case("9a", "system_pool.min_count", "at least 1", system(autoscale=True, min_count=0, max_count=3)),
    Case("9a", "pools[0].max_count", "from 1 to 1,000", pool(autoscale=True, min_count=0, max_count=1001)),
    Case("9b", "pools[0].min_count", "autoscale, which is off", pool(min_count=1)),
    Case("9c", "pools[0].autoscale", "scales nodes itself", replace(pool(autoscale=True, min_count=1, max_count=5), node_provisioning="Auto")),
    Case("9e", "autoscaler_profile.scale_down_uneeded_time", "did you mean `scale_down_unneeded_time`?", replace(AUTOSCALED, autoscaler_profile=(("scale_down_uneeded_time", "10m"),))),
    Case("9e", "autoscaler_profile.scan_interval", "seconds, such as 10s", replace(AUTOSCALED, autoscaler_profile=(("scan_interval", "1m"),))),
    Case("9e", "autoscaler_profile.scale_down_unneeded_time", "whole minutes", replace(AUTOSCALED, autoscaler_profile=(("scale_down_unneeded_time", "600s"),))),
    Case("9e", "autoscaler_profile.expander", "least-waste", replace(AUTOSCALED, autoscaler_profile=(("expander", "price"),))),
    Case("9e", "autoscaler_profile.scale_down_utilization_threshold", "from 0 to 1", replace(AUTOSCALED, autoscaler_profile=(("scale_down_utilization_threshold", "50"),))),
    Case("9e", "autoscaler_profile", "no pool has autoscale", having(autoscaler_profile=(("scan_interval", "10s"),)), WARNING),
    Case("9d", "pools[0].count", "lies outside min_count 4 and max_count 5; use 4", pool(autoscale=True, min_count=4, max_count=5)),
]  # fmt: skip

VERSION_CASES = [
    Case("10a", "kubernetes_version", "is no version", having(kubernetes_version="v1.35")),
    Case("10a", "pools[0].kubernetes_version", "is no version", pool(kubernetes_version="newest")),
    Case("10b", "kubernetes_version", "ended on 2026-07-31", having(kubernetes_version="1.33.2")),
    Case("10b", "kubernetes_version", "or tier \"Premium\" with support_plan", having(kubernetes_version="1.33")),
    Case("10b", "kubernetes_version", "new clusters: use 1.35 or 1.36", having(kubernetes_version="1.29")),
    Case("10b", "kubernetes_version", "ended on 2026-07-31", having(kubernetes_version="1.30", tier="Premium", support_plan="AKSLongTermSupport")),
    Case("10b", "kubernetes_version", "no longer offered", having(kubernetes_version="1.19")),
    Case("10b", "kubernetes_version", "is not in the calendar", having(kubernetes_version="1.50"), WARNING),
    Case("10b", "kubernetes_version", "planned for October 2026", having(kubernetes_version="1.37", today=date(2026, 8, 25)), WARNING),
    Case("10b", "kubernetes_version", "planned for June 2026", having(kubernetes_version="1.36", today=date(2026, 1, 1)), WARNING),
    Case("10b", "kubernetes_version", "in preview until June 2026", having(kubernetes_version="1.36", today=date(2026, 6, 1)), WARNING),
    Case("10c", "kubernetes_version", "ends on 2026-11-30, in 9 days", having(kubernetes_version="1.34"), WARNING),
    Case("10c", "kubernetes_version", "no new pools", having(kubernetes_version="1.33", existing=True), WARNING),
    Case("10c", "kubernetes_version", "az aks get-versions", having(kubernetes_version="1.37"), WARNING),
    Case("10d", "support_plan", 'tier is "Standard"', having(support_plan="AKSLongTermSupport")),
    Case("10d", "tier", 'support_plan is "KubernetesOfficial"', having(tier="Premium")),
    Case("10d", "support_plan", "not known", having(support_plan="Extended")),
    Case("10e", "upgrade_channel", "rapid, stable", having(upgrade_channel="fast")),
    Case("10e", "node_os_upgrade_channel", "NodeImage", having(node_os_upgrade_channel="node-image")),
    Case("10f", "upgrade_channel", "old form", having(upgrade_channel="node-image"), WARNING),
    Case("10f", "node_os_upgrade_channel", "sets it", having(upgrade_channel="node-image", node_os_upgrade_channel="None"), WARNING),
    Case("10f", "upgrade_channel", "newer minor versions", having(upgrade_channel="stable"), WARNING),
    Case("10f", "upgrade_channel", "write kubernetes_version 1.35", having(kubernetes_version="1.35.2"), WARNING),
    Case("10f", "upgrade_channel", "past the version", having(kubernetes_version=None, upgrade_channel="rapid", tier="Premium", support_plan="AKSLongTermSupport"), WARNING),
    Case("10g", "pools[0].kubernetes_version", "is newer than", pool(kubernetes_version="1.36")),
    Case("10g", "pools[0].kubernetes_version", "a new cluster's pools", pool(kubernetes_version="1.34")),
    Case("11a", "tier", "Free, Standard, Premium", having(tier="Paid")),
    Case("11a", "sku_name", "Base or Automatic", having(sku_name="Basic")),
    Case("11b", "sku_name", 'tier is "Free"', having(sku_name="Automatic", tier="Free")),
    Case("11b", "sku_name", "not offered in westus", having(sku_name="Automatic", location="westus")),
    Case("11b", "sku_name", "Azure Machine Learning", having(sku_name="Automatic", azure_ml=True)),
]  # fmt: skip

ADDON_CASES = [
    Case("13a", "security.container_insights", "log_analytics_workspace_id", having(security=Security(container_insights=True))),
    Case("13b", "security.managed_prometheus", "azure_monitor_workspace_id", having(security=Security(managed_prometheus=True))),
    Case("13c", "security.defender", "log_analytics_workspace_id", having(security=Security(defender=True))),
    Case("13d", "security.image_cleaner_interval_hours", "is needed", having(security=Security(image_cleaner=True))),
    Case("13d", "security.image_cleaner_interval_hours", "24 to 2,160", having(security=Security(image_cleaner=True, image_cleaner_interval_hours=12))),
    Case("13d", "security.image_cleaner_interval_hours", "which is off", having(security=Security(image_cleaner_interval_hours=24))),
    Case("13e", "security.kms_key_id", "is needed with kms", having(security=Security(kms=True))),
    Case("13e", "security.kms_key_id", "kms, which is off", having(security=Security(kms_key_id="k"))),
    Case("13e", "security.kms", "user-assigned", having(security=Security(kms=True, kms_key_id="k"), identity=Identity(user_assigned=False))),
    Case("13e", "security.kms_network_access", "kms_vault_id", having(security=Security(kms=True, kms_key_id="k", kms_network_access="Private"))),
    Case("13e", "security.kms_network_access", "vnet_integration, which is off", having(security=Security(kms=True, kms_key_id="k", kms_network_access="Private", kms_vault_id="v"))),
    Case("13e", "security.kms_network_access", "neither", having(security=Security(kms=True, kms_key_id="k", kms_network_access="Closed"))),
    Case("13e", "security.kms_vault_id", "goes only with", having(security=Security(kms=True, kms_key_id="k", kms_vault_id="v"))),
    Case("13f", "security.app_routing", "was supported until", having(security=Security(app_routing=True), today=date(2026, 12, 1)), WARNING),
    Case("13f", "security.app_routing", "is supported until 2026-11-30", having(security=Security(app_routing=True)), WARNING),
    Case("tls-a", "ssl_key_pem_file", "needed with ssl_cname and ssl_cert_pem_file", having(tls=Tls(cname="a.example", cert_pem_file="c.pem"))),
    Case("tls-a", "ssl_cname", "needed with ssl_key_vault_secret_id", having(tls=Tls(key_vault_secret_id="s"))),
    Case("tls-b", "leaf_domain_label", "ssl_cname is given too", having(tls=Tls("a.example", "c.pem", "k.pem", leaf_domain_label="scoring"))),
    Case("tls-b", "ssl_cert_pem_file", "not from both", having(tls=Tls("a.example", "c.pem", key_vault_secret_id="s"))),
    Case("tls-c", "leaf_domain_label", "InternalLoadBalancer", having(tls=Tls(leaf_domain_label="scoring", load_balancer_type="InternalLoadBalancer"))),
    Case("tls-d", "minimum_tls_version", "1.2 and 1.3", having(tls=Tls(minimum_version="1.1"))),
    Case("tls-e", "load_balancer_type", "PublicIp, InternalLoadBalancer", having(tls=Tls(load_balancer_type="Internal"))),
    Case("tls-e", "load_balancer_subnet", 'which is "PublicIp"', having(tls=Tls(load_balancer_subnet="aks-subnet"))),
    Case("tls-f", "leaf_domain_label", "lower-case", having(tls=Tls(leaf_domain_label="Scoring_1"))),
    Case("tls-f", "leaf_domain_label", "1 to 57", having(tls=Tls(leaf_domain_label="s" * 58))),
    Case("tls-g", "overwrite_existing_domain", "does nothing", having(tls=Tls(overwrite_existing_domain=True)), WARNING),
]  # fmt: skip

CASES = [
    *NETWORK_CASES,
    *RANGE_CASES,
    *EGRESS_CASES,
    *ACCESS_CASES,
    *NAME_CASES,
    *POOL_CASES,
    *VERSION_CASES,
    *ADDON_CASES,
]

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
    "isolated": replace(private(), egress=Egress("none", bootstrap_cache_registry_id="acr")),
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
        subscription_id="0",
    ),
    "entra": having(access=Access(entra_id=True, azure_rbac=True, local_accounts=False)),
    "workload identity": having(security=Security(workload_identity=True, oidc_issuer=True)),
    "every add-on": having(
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
