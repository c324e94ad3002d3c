"""What Azure refuses beyond the form of a request. Written from the documents, each refusal with its rule's number.

Nothing here knows the package that the tests judge.
"""

import ipaddress
import math
import re
from datetime import date

from standin_identities import judge_identity
from standin_tables import named, table
from standin_world import Body, Refused, World
from standin_world import need as _need

RESERVED = [ipaddress.ip_network(text) for text in ("169.254.0.0/16", "172.30.0.0/16", "172.31.0.0/16", "192.0.2.0/24")]
DEFAULT_PODS = {"kubenet": 110, "overlay": 250, "pods": 110, "nodes": 30, "none": 250}


def judge_cluster(name: str, body: Body, world: World) -> None:
    """Raises Refused."""
    p: Body = body.get("properties") or {}
    np: Body = p.get("networkProfile") or {}
    pools = p.get("agentPoolProfiles") or []
    _names(name, p)
    judge_identity(body, p, world)
    _network(np, pools)
    _ranges(np)
    _egress(np, p, pools)
    _access(p, body)
    _addons(p, body)
    _versions(p, body, world)
    _need(any(pool.get("mode") == "System" for pool in pools), "MissingSystemPool", "a system pool is needed", "7")
    for pool in pools:
        judge_pool(str(pool.get("name")), pool, p, world)
    judge_nodes(np, pools, body)
    judge_subnets(np, pools, world)


def judge_pool(name: str, pool: Body, cluster: Body, world: World) -> None:
    """Raises Refused. `cluster`: the properties of its cluster."""
    np: Body = cluster.get("networkProfile") or {}
    system, spot = pool.get("mode") == "System", pool.get("scaleSetPriority") == "Spot"
    _need(re.fullmatch(r"[a-z][a-z0-9]{0,11}", name) is not None, "InvalidParameter", f"pool name {name!r}", "6")
    _need(not (system and spot), "InvalidParameter", "a system pool cannot be spot", "7")
    count, low, high = pool.get("count"), pool.get("minCount"), pool.get("maxCount")
    least = 1 if system else 0
    if pool.get("enableAutoScaling"):
        _need(low is not None and high is not None, "InvalidParameter", "minCount and maxCount are needed", "9")
        _need(least <= low <= high <= 1000 and high >= 1, "InvalidParameter", "minCount and maxCount", "9")
        _need(count is None or low <= count <= high, "InvalidParameter", "count is outside of the bounds", "9")
        auto = (cluster.get("nodeProvisioningProfile") or {}).get("mode") == "Auto"
        _need(not auto, "InvalidParameter", "enableAutoScaling with node provisioning", "9")
    else:
        _need(low is None and high is None, "InvalidParameter", "bounds without enableAutoScaling", "9")
        _need(count is None or least <= count <= 1000, "InvalidParameter", f"count {count}", "7")
    _size(pool, system, world)
    _pods(pool, np, system)
    _upgrade(pool, system)
    _need(spot or pool.get("spotMaxPrice") is None, "InvalidParameter", "spotMaxPrice needs Spot", "7")
    surge = (pool.get("upgradeSettings") or {}).get("maxSurge")
    _need(not spot or surge is None, "InvalidParameter", "Spot pools can't set max surge.", "7")
    _need(spot or pool.get("scaleSetEvictionPolicy") is None, "InvalidParameter", "eviction policy needs Spot", "7")
    price = pool.get("spotMaxPrice")
    if price is not None:
        _need(price == -1 or (price > 0 and round(price, 5) == price), "InvalidParameter", f"spotMaxPrice {price}", "7")
    zones = pool.get("availabilityZones") or []
    _need(set(zones) <= {"1", "2", "3"} and len(set(zones)) == len(zones), "InvalidParameter", "zones", "7")
    control, own = cluster.get("kubernetesVersion"), pool.get("orchestratorVersion")
    if control and own:
        newer = _minor(own) > _minor(control)
        _need(not newer, "NodePoolMcVersionIncompatible", f"{own} is newer than {control}", "10")
    prefix, ranges = pool.get("nodePublicIPPrefixID"), (cluster.get("apiServerAccessProfile") or {})
    if pool.get("enableNodePublicIP") and ranges.get("authorizedIPRanges"):
        _need(prefix is not None, "InvalidParameter", "node addresses with authorized ranges need a prefix", "4")


def judge_nodes(np: Body, pools: list[Body], body: Body) -> None:
    """What all pools may have together."""
    most = sum(_most(pool) for pool in pools)
    with_surge = sum(_most(pool) + _surge(pool) for pool in pools)
    tier = (body.get("sku") or {}).get("tier", "Free")
    _need(most <= (1000 if tier == "Free" else 5000), "QuotaExceeded", f"{most} nodes", "7")
    _need(len(pools) <= 100, "QuotaExceeded", f"{len(pools)} pools", "7")
    if np.get("networkPlugin") == "kubenet":
        _need(most <= 400, "InvalidParameter", "kubenet holds 400 nodes", "1.4")
    if np.get("networkPluginMode") == "overlay":
        size = ipaddress.ip_network(np.get("podCidr") or "10.244.0.0/16").num_addresses
        needed = sum(_most(pool) + _surge(pool, 0) for pool in pools) * 256
        message = f"Pre-allocated IPs {needed} exceeds IPs available {size} in networkProfile.podCIDR"
        _need(needed <= size, "InsufficientSubnetSize", message, "2.9")
    balancer: Body = np.get("loadBalancerProfile") or {}
    ports = balancer.get("allocatedOutboundPorts") or 0
    addresses = len((balancer.get("outboundIPs") or {}).get("publicIPs") or []) or (
        balancer.get("managedOutboundIPs") or {}
    ).get("count", 1)
    code = "InvalidLoadBalancerProfileAllocatedOutboundPorts"
    _need(with_surge * ports <= 64_000 * addresses, code, f"{with_surge * ports} ports", "3")


def judge_subnets(np: Body, pools: list[Body], world: World) -> None:
    """Addresses of the subnets that Azure knows."""
    networks = {one.lower().rsplit("/subnets/", 1)[0] for pool in pools if (one := pool.get("vnetSubnetID"))}
    _need(len(networks) <= 1, "InvalidParameter", "all pools share a virtual network", "1.11")
    for subnet_id in {pool["vnetSubnetID"] for pool in pools if pool.get("vnetSubnetID")}:
        _need(_is_subnet(subnet_id), "LinkedInvalidPropertyId", f"{subnet_id} is no subnet", "1.11")
        subnet = world.subnet(subnet_id)
        if subnet is None:
            continue
        _need(not subnet.get("delegations"), "SubnetIsDelegated", subnet_id, "1.11")
        cidr = ipaddress.ip_network(subnet["addressPrefix"])
        service = ipaddress.ip_network(np.get("serviceCidr") or "10.0.0.0/16")
        code = "ServiceCidrOverlapExistingSubnetsCidr"
        _need(not cidr.overlaps(service), code, f"{service} is conflicted with {cidr}", "2.4")
        flat = np.get("networkPlugin") == "azure" and not np.get("networkPluginMode")
        inside = [pool for pool in pools if pool.get("vnetSubnetID") == subnet_id]
        needed = sum(
            (_most(pool) + _surge(pool, 0)) * (1 + (_max_pods(pool, np) if flat and not pool.get("podSubnetID") else 0))
            for pool in inside
        )
        message = f"Pre-allocated IPs {needed} exceeds IPs available {cidr.num_addresses - 5}"
        _need(needed <= cidr.num_addresses - 5, "InsufficientSubnetSize", message, "2.10")
        outbound = np.get("outboundType")
        if outbound == "userDefinedRouting":
            _need(bool(subnet.get("routeTable")), "ExistingRouteTableNotAssociatedWithSubnet", subnet_id, "3")
        if outbound == "userAssignedNATGateway":
            _need(bool(subnet.get("natGateway")), "InvalidUserAssignedNATGatewayNetworkConfiguration", subnet_id, "3")


def _names(name: str, p: Body) -> None:
    form = r"[a-zA-Z0-9]|[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]"
    _need(re.fullmatch(form, name) is not None, "InvalidParameter", f"cluster name {name!r}", "6")
    prefix = p.get("dnsPrefix")
    _need((prefix is None) != (p.get("fqdnSubdomain") is None), "InvalidParameter", "dnsPrefix or fqdnSubdomain", "4")
    form = r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,52}[a-zA-Z0-9])?"
    _need(prefix is None or re.fullmatch(form, prefix) is not None, "InvalidParameter", f"dnsPrefix {prefix!r}", "6")
    group = p.get("nodeResourceGroup") or ""
    _need(len(group) <= 80 and not group.endswith("."), "InvalidParameter", "nodeResourceGroup", "6")


def _network(np: Body, pools: list[Body]) -> None:
    plugin, mode, policy, plane = (
        np.get(key) for key in ("networkPlugin", "networkPluginMode", "networkPolicy", "networkDataplane")
    )
    _need(mode is None or plugin == "azure", "InvalidParameter", "overlay needs networkPlugin azure", "1.1")
    if plugin == "kubenet":
        _need(policy not in {"azure", "cilium"}, "InvalidParameter", "kubenet and this network policy", "1.4")
        _need(plane != "cilium", "InvalidParameter", "kubenet and cilium", "1.4")
    _need(policy != "cilium" or plane == "cilium", "InvalidParameter", "policy cilium needs dataplane cilium", "1.7")
    if plane == "cilium":
        _need(plugin == "azure", "InvalidParameter", "dataplane cilium needs networkPlugin azure", "1.7")
        _need(policy in {None, "none", "cilium"}, "InvalidParameter", "dataplane cilium and this policy", "1.7")
    for pool in pools:
        pods = pool.get("podSubnetID")
        if pods is not None:
            _need(plugin == "azure" and mode is None, "InvalidParameter", "podSubnetID needs Azure CNI", "1.10")
            _need(pods != pool.get("vnetSubnetID"), "InvalidParameter", "podSubnetID is vnetSubnetID", "1.10")
            _need(pool.get("vnetSubnetID") is not None, "InvalidParameter", "podSubnetID needs vnetSubnetID", "1.10")
        alone = pool.get("podIPAllocationMode") is not None and pods is None
        _need(not alone, "InvalidParameter", "podIPAllocationMode needs podSubnetID", "1.10")


def _ranges(np: Body) -> None:
    try:
        service = ipaddress.ip_network(np.get("serviceCidr") or "10.0.0.0/16")
        dns = ipaddress.ip_address(np.get("dnsServiceIP") or "10.0.0.10")
        pods = ipaddress.ip_network(np["podCidr"]) if np.get("podCidr") else None
    except ValueError as error:
        raise Refused("InvalidParameter", str(error), "2") from None
    message = f"The DNS service IP {dns} is out of the range defined by service CIDR {service}."
    _need(dns in service, "DnsServiceIpOutOfServiceCidr", message, "2.1")
    _need(dns != service.network_address + 1, "InvalidParameter", "the first service address", "2.2")
    _need(service.prefixlen > 12, "InvalidParameter", "serviceCidr must be smaller than /12", "2.3")
    has_range = np.get("networkPlugin") == "kubenet" or np.get("networkPluginMode") == "overlay"
    _need(pods is None or has_range, "InvalidParameter", "podCidr needs overlay or kubenet", "2.7")
    pods = pods or (ipaddress.ip_network("10.244.0.0/16") if has_range else None)
    for one in filter(None, (service, pods)):
        _need(not any(one.overlaps(kept) for kept in RESERVED), "InvalidParameter", f"{one} is reserved", "2.6")
    _need(pods is None or not pods.overlaps(service), "InvalidParameter", "podCidr overlaps serviceCidr", "2.7")


def _egress(np: Body, p: Body, pools: list[Body]) -> None:
    outbound = np.get("outboundType") or "loadBalancer"
    own = any(pool.get("vnetSubnetID") for pool in pools)
    _need(str(np.get("loadBalancerSku", "standard")).lower() != "basic", "InvalidParameter", "Basic has ended", "3")
    if outbound in {"userDefinedRouting", "userAssignedNATGateway"}:
        _need(own, "InvalidParameter", f"{outbound} needs vnetSubnetID", "3")
    if outbound == "managedNATGateway":
        _need(not own, "InvalidParameter", "managedNATGateway needs an AKS-managed network", "3")
    if outbound == "none":
        cache = (p.get("bootstrapProfile") or {}).get("artifactSource") == "Cache"
        _need(cache, "InvalidParameter", "outboundType none needs a network isolated cluster", "3")
    balancer: Body = np.get("loadBalancerProfile") or {}
    gateway: Body = np.get("natGatewayProfile") or {}
    ports = balancer.get("allocatedOutboundPorts")
    fits = ports is None or (0 <= ports <= 64_000 and ports % 8 == 0)
    _need(fits, "InvalidParameter", "allocatedOutboundPorts", "3")
    for profile in (balancer, gateway):
        idle = profile.get("idleTimeoutInMinutes")
        _need(idle is None or 4 <= idle <= 120, "InvalidParameter", "idleTimeoutInMinutes", "3")
    count = (gateway.get("managedOutboundIPProfile") or {}).get("count")
    _need(count is None or 1 <= count <= 16, "InvalidParameter", "managedOutboundIPProfile.count", "3")


def _access(p: Body, body: Body) -> None:
    access: Body = p.get("apiServerAccessProfile") or {}
    private, zone = bool(access.get("enablePrivateCluster")), access.get("privateDNSZone")
    ranges = access.get("authorizedIPRanges") or []
    _need(not (private and ranges), "InvalidParameter", "authorizedIPRanges with a private cluster", "4")
    for text in ranges:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise Refused("InvalidParameter", f"authorizedIPRanges {text}", "4") from None
    _need(len(ranges) <= (2000 if access.get("enableVnetIntegration") else 200), "InvalidParameter", "ranges", "4")
    if not private:
        _need(zone is None, "InvalidParameter", "privateDNSZone needs enablePrivateCluster", "4")
        public = access.get("enablePrivateClusterPublicFQDN")
        _need(public is None, "InvalidParameter", "public FQDN needs enablePrivateCluster", "4")
    own = zone not in (None, "system", "none")
    if own:
        name = str(zone).rsplit("/", 1)[-1]
        region = str(body.get("location") or "").replace(" ", "").lower()
        word = "private" if access.get("enableVnetIntegration") else "privatelink"
        wanted = f"{word}.{region}.azmk8s.io"
        _need("/privatednszones/" in str(zone).lower(), "InvalidPrivateDnsZone", str(zone), "4")
        if region and not region.startswith(("usgov", "usdod", "china")):
            _need(name == wanted or name.endswith(f".{wanted}"), "InvalidPrivateDnsZone", name, "4")
        user = (body.get("identity") or {}).get("type") == "UserAssigned"
        _need(user, "CustomPrivateDNSZoneMissingPermission", "needs a user-assigned identity", "4")
    nameless = zone == "none" and access.get("enablePrivateClusterPublicFQDN") is False
    _need(not nameless, "InvalidParameter", "no name at all", "4")
    _need(p.get("fqdnSubdomain") is None or own, "InvalidParameter", "fqdnSubdomain needs a custom zone", "4")
    subnet = access.get("subnetId")
    _need(subnet is None or bool(access.get("enableVnetIntegration")), "InvalidParameter", "subnetId", "2.15")
    shared = any(subnet and subnet == pool.get("vnetSubnetID") for pool in p.get("agentPoolProfiles") or [])
    _need(not shared, "InvalidParameter", "the API server's subnet is shared", "2.15")
    entra: Body = p.get("aadProfile") or {}
    _need(not entra.get("enableAzureRBAC") or bool(entra.get("managed")), "InvalidParameter", "enableAzureRBAC", "12")
    _need(not p.get("disableLocalAccounts") or bool(entra), "InvalidParameter", "disableLocalAccounts", "12")


def _addons(p: Body, body: Body) -> None:
    security: Body = p.get("securityProfile") or {}
    issuer = bool((p.get("oidcIssuerProfile") or {}).get("enabled"))
    workload = bool((security.get("workloadIdentity") or {}).get("enabled"))
    _need(issuer or not workload, "InvalidParameter", "workloadIdentity needs oidcIssuerProfile", "12")
    defender: Body = security.get("defender") or {}
    if (defender.get("securityMonitoring") or {}).get("enabled"):
        _need(bool(defender.get("logAnalyticsWorkspaceResourceId")), "InvalidParameter", "defender", "13")
    cleaner: Body = security.get("imageCleaner") or {}
    if cleaner.get("enabled"):
        _need(24 <= (cleaner.get("intervalHours") or 0) <= 2160, "InvalidParameter", "intervalHours", "13")
    kms: Body = security.get("azureKeyVaultKms") or {}
    if kms.get("enabled"):
        _need(bool(kms.get("keyId")), "InvalidParameter", "azureKeyVaultKms needs keyId", "13")
        user = (body.get("identity") or {}).get("type") == "UserAssigned"
        _need(user, "InvalidParameter", "azureKeyVaultKms needs a user-assigned identity", "13")
        closed, vault = kms.get("keyVaultNetworkAccess") == "Private", kms.get("keyVaultResourceId")
        _need(closed == bool(vault), "InvalidParameter", "keyVaultResourceId", "13")
        reached = bool((p.get("apiServerAccessProfile") or {}).get("enableVnetIntegration"))
        _need(reached or not closed, "InvalidParameter", "a private vault needs API server VNet integration", "13")
    agent: Body = (p.get("addonProfiles") or {}).get("omsagent") or {}
    if agent.get("enabled"):
        workspace = (agent.get("config") or {}).get("logAnalyticsWorkspaceResourceID")
        _need(bool(workspace), "InvalidParameter", "omsagent needs a workspace", "13")


def _versions(p: Body, body: Body, world: World) -> None:
    sku: Body = body.get("sku") or {}
    tier, plan = sku.get("tier", "Free"), p.get("supportPlan") or "KubernetesOfficial"
    long_term = plan == "AKSLongTermSupport"
    _need(long_term == (tier == "Premium"), "InvalidParameter", "Premium and AKSLongTermSupport, or neither", "10")
    _need(sku.get("name") != "Automatic" or tier == "Standard", "InvalidParameter", "Automatic needs Standard", "11")
    version = p.get("kubernetesVersion")
    if version is None:
        return
    rows = table(world.data / "aks_kubernetes_versions.csv")
    row = next((row for row in rows if _minor(row[named(row, "minor")]) == _minor(version)), None)
    if row is None:
        return  # newer than the table
    column = named(row, "lts") if long_term else named(row, "end_of_life")
    if row[column]:
        _need(world.today <= date.fromisoformat(row[column]), "K8sVersionNotSupported", version, "10")


def _size(pool: Body, system: bool, world: World) -> None:
    name = str(pool.get("vmSize") or "").lower()
    row = next((row for row in table(world.data / "azure_vm_sizes.csv") if row["name"].lower() == name), None)
    if row is None:
        return
    vcpus, memory = float(row["vcpus"]), float(row["memory_gib"])
    _need(vcpus >= 2 and memory >= (4 if system else 2), "AgentPoolSKUNotAllowed", name, "7")
    if float(row["gpus"]) == 0:
        _need(pool.get("gpuProfile") is None, "InvalidParameter", "gpuProfile needs a GPU", "8")
        _need(pool.get("gpuInstanceProfile") is None, "InvalidParameter", "gpuInstanceProfile needs a GPU", "8")


def _pods(pool: Body, np: Body, system: bool) -> None:
    given = pool.get("maxPods")
    _need(given is None or 10 <= given <= 250, "InvalidParameter", "maxPods must be from 10 to 250", "2")
    nodes, each = _most(pool), _max_pods(pool, np)
    if nodes and (system or given is not None):
        _need(nodes * each >= 30, "InvalidParameter", "the pool must have room for 30 pods", "2")


def _upgrade(pool: Body, system: bool) -> None:
    settings: Body = pool.get("upgradeSettings") or {}
    surge, missing = settings.get("maxSurge"), settings.get("maxUnavailable")
    for text in filter(None, (surge, missing)):
        _need(re.fullmatch(r"[0-9]+%?", text) is not None, "InvalidParameter", f"{text}", "2.13")
    none = surge in {"0", "0%"} and missing in {None, "0", "0%"}
    _need(not none, "InvalidParameter", "maxSurge and maxUnavailable cannot both be 0", "2.13")
    _need(not (system and missing not in {None, "0", "0%"}), "InvalidParameter", "maxUnavailable", "2.13")


def _max_pods(pool: Body, np: Body) -> int:
    kind = "overlay" if np.get("networkPluginMode") else "pods" if pool.get("podSubnetID") else "nodes"
    plugin = np.get("networkPlugin")
    return int(pool.get("maxPods") or DEFAULT_PODS[plugin if plugin in {"kubenet", "none"} else kind])


def _most(pool: Body) -> int:
    return int((pool.get("maxCount") if pool.get("enableAutoScaling") else pool.get("count")) or 0)


def _surge(pool: Body, percent: int = 10) -> int:
    text = (pool.get("upgradeSettings") or {}).get("maxSurge")
    nodes = _most(pool)
    if text is None:
        return min(nodes, max(1, math.ceil(nodes * percent / 100)))
    return min(nodes, math.ceil(nodes * int(text[:-1]) / 100) if text.endswith("%") else int(text))


def _is_subnet(text: str) -> bool:
    form = r"/subscriptions/[^/]+/resourcegroups/[^/]+/providers/microsoft.network/virtualnetworks/[^/]+/subnets/[^/]+"
    return re.fullmatch(form, text.lower()) is not None


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
