"""Load balancer, outbound type, ports and public addresses (aks-rules 3)."""

from collections.abc import Iterator

from aks_inference.cluster_rules.kinds import surge_nodes
from aks_inference.cluster_rules.model import Cluster, Egress
from aks_inference.cluster_rules.rulebook import RuleFinding, error
from aks_inference.findings import Severity

BASIC_BALANCER = error("3a", "no Basic load balancer", "Doc includes/basic-load-balancer-retirement.md")
WORDS = error(
    "3b", "outbound type is a word that the API knows", "Spec 2025-09-01; Doc egress-outboundtype.md 2026-08-05"
)
ROUTES = error(
    "3c",
    "userDefinedRouting: own subnet with a default route to an appliance or gateway",
    "Doc egress-outboundtype.md 2026-08-05",
)
MANAGED_NAT = error(
    "3d",
    "managedNATGateway only in a network that AKS manages",
    "Doc nat-gateway.md, egress-outboundtype.md 2026-08-05",
)
OWN_NAT = error(
    "3e",
    "userAssignedNATGateway only in an own subnet that has the gateway",
    "Doc nat-gateway.md, egress-outboundtype.md 2026-08-05",
)
ISOLATED = error(
    "3f",
    "outbound type none only for network isolated clusters",
    "Doc egress-outboundtype.md 2026-08-05, concepts-network-isolated.md",
)
NUMBERS = error(
    "3g",
    "bounds of outbound addresses, ports and idle timeouts",
    "Spec 2025-09-01; Doc configure-load-balancer-standard.md",
)
PORTS = error(
    "3h", "outbound ports suffice for all nodes", "Err invalidloadbalancerprofileallocatedoutboundports-error.md"
)
UNUSED = error(
    "3j",
    "settings of the load balancer or NAT gateway that the outbound type has",
    "Doc egress-outboundtype.md 2026-08-05",
)
PUBLIC_ADDRESSES = error("3i", "a policy denies public addresses", "Err requestdisallowedbypolicy-error.md 2025-03-13")

OUTBOUND_TYPES = ("loadBalancer", "userDefinedRouting", "managedNATGateway", "userAssignedNATGateway", "none")
PREVIEW_TYPES = ("managedNATGatewayV2", "block")
NEXT_HOPS = ("VirtualAppliance", "VirtualNetworkGateway", "VnetLocal", "Internet", "None")
"""Spec Microsoft.Network RouteNextHopType."""
PORTS_PER_ADDRESS = 64_000
_NAT = {"managedNATGateway", "userAssignedNATGateway"}
_WAYS_OUT = 'use @outbound_type "userDefinedRouting" (firewall), "userAssignedNATGateway" or "none"'


def check_egress(cluster: Cluster) -> Iterator[RuleFinding]:
    """All of section 3."""
    yield from _load_balancer(cluster)
    yield from _next_hop(cluster)
    yield from _outbound_type(cluster)
    yield from _bootstrap(cluster)
    yield from _numbers(cluster.egress)
    yield from _without_effect(cluster.egress)
    yield from _ports(cluster)
    if cluster.egress.public_ips_denied:
        yield from _public_addresses(cluster)


def _load_balancer(cluster: Cluster) -> Iterator[RuleFinding]:
    sku, path = cluster.network.load_balancer_sku, (*cluster.network.path, "load_balancer_sku")
    if sku is None or sku == "standard":
        return
    if sku != "basic":
        yield BASIC_BALANCER.broken(path, sku, "is not known to AKS", 'write "standard", or leave it out')
        return
    needs = {
        "several node pools": len(cluster.pools) > 1,
        "@authorized_ip_ranges": bool(cluster.access.authorized_ip_ranges),
        "@private_cluster": cluster.access.private_cluster,
        "spot pools": any(pool.spot for pool in cluster.pools),
        f"@outbound_type {cluster.egress.outbound_type}": cluster.egress.outbound_type not in {None, "loadBalancer"},
    }
    because = [what for what, there in needs.items() if there]
    also = f'; {", ".join(because)} would need "standard" in any case' if because else ""
    yield BASIC_BALANCER.broken(
        path,
        sku,
        f"Azure ended the Basic load balancer on 30 September 2025{also}",
        'write "standard", or leave it out',
    )


def _next_hop(cluster: Cluster) -> Iterator[RuleFinding]:
    hop = cluster.network.subnet.default_route if cluster.network.subnet else None
    if not hop or hop in NEXT_HOPS:
        return
    close = {word.lower(): word for word in NEXT_HOPS}.get(hop.lower())
    yield ROUTES.broken(
        (*cluster.network.path, "subnet_default_route"),
        hop,
        "is no type of next hop",
        f'write "{close}"' if close else f"use one of {', '.join(NEXT_HOPS)}",
    )


def _outbound_type(cluster: Cluster) -> Iterator[RuleFinding]:
    egress, subnet = cluster.egress, cluster.network.subnet
    kind, path = egress.outbound_type, (*egress.path, "outbound_type")
    if kind is None or kind == "loadBalancer":
        return
    if kind in PREVIEW_TYPES:
        yield WORDS.broken(
            path, kind, "exists only in preview versions of the API", f"use one of {', '.join(OUTBOUND_TYPES)}"
        )
        return
    if kind not in OUTBOUND_TYPES:
        close = {word.lower(): word for word in OUTBOUND_TYPES}.get(kind.lower())
        yield WORDS.broken(
            path,
            kind,
            "is not known to AKS",
            f'write "{close}"' if close else f"use one of {', '.join(OUTBOUND_TYPES)}",
        )
        return
    if kind == "managedNATGateway" and subnet is not None:
        yield MANAGED_NAT.broken(
            path,
            kind,
            "works only in a network that AKS manages, and the nodes are in a subnet of yours",
            'use "userAssignedNATGateway" with a NAT gateway on that subnet, or leave the subnet out',
        )
    if kind in {"userDefinedRouting", "userAssignedNATGateway"} and subnet is None:
        rule = ROUTES if kind == "userDefinedRouting" else OWN_NAT
        yield rule.broken(path, kind, "needs an own subnet, and @subnet_id is not given", "give @subnet_id")
    elif kind == "userDefinedRouting" and subnet is not None and subnet.default_route is not None:
        if subnet.default_route in {"", "None"}:
            yield ROUTES.broken(
                path,
                kind,
                "needs a route table with a route for 0.0.0.0/0 on the subnet of @subnet_id, and there is none",
                "add one whose next hop is a firewall or gateway",
            )
        elif subnet.default_route == "Internet":
            yield ROUTES.broken(
                path,
                kind,
                "the subnet's route for 0.0.0.0/0 leads to Internet; AKS wants an appliance or a gateway there",
                'change its next hop to the firewall, or use @outbound_type "loadBalancer"',
            )
    elif kind == "userAssignedNATGateway" and subnet is not None and subnet.nat_gateway is False:
        yield OWN_NAT.broken(
            path,
            kind,
            "needs a NAT gateway on the subnet of @subnet_id, and there is none",
            "associate one with the subnet",
        )
    if kind == "none" and egress.bootstrap_cache_registry_id is None:
        yield ISOLATED.broken(
            path,
            kind,
            "is for network isolated clusters, whose images come from a private registry; "
            "@bootstrap_cache_registry_id is not given",
            "give a Premium registry with a private endpoint, or use another @outbound_type",
        )


def _bootstrap(cluster: Cluster) -> Iterator[RuleFinding]:
    """Doc network-isolated.md, "bring your own ACR": who pulls AKS's own images while the first node starts."""
    if cluster.egress.bootstrap_cache_registry_id is not None and not cluster.identity.own_kubelet_identity:
        yield ISOLATED.broken(
            (*cluster.egress.path, "bootstrap_cache_registry_id"),
            cluster.egress.bootstrap_cache_registry_id,
            "nodes pull AKS's own images from it as they start, and the identity that AKS makes for them has no right "
            "there yet",
            "give `identity.kubelet_identity_id` of one with AcrPull there, or let anyone pull from it",
            Severity.WARNING,
        )


def _numbers(egress: Egress) -> Iterator[RuleFinding]:
    nat = egress.outbound_type in _NAT
    bounds = (
        ("managed_outbound_ip_count", egress.managed_outbound_ip_count, 1, 16 if nat else 100),
        ("idle_timeout_minutes", egress.idle_timeout_minutes, 4, 120),
        ("allocated_outbound_ports", egress.allocated_outbound_ports, 0, PORTS_PER_ADDRESS),
    )
    for name, value, low, high in bounds:
        if value is not None and not low <= value <= high:
            yield NUMBERS.broken(
                (*egress.path, name), value, f"must be from {low} to {high:,}", f"use {low if value < low else high}"
            )
    ports = egress.allocated_outbound_ports
    if ports is not None and 0 <= ports <= PORTS_PER_ADDRESS and ports % 8:
        yield NUMBERS.broken(
            (*egress.path, "allocated_outbound_ports"),
            ports,
            "must be a multiple of 8 (0: automatic)",
            f"use {ports - ports % 8}",
        )
    if egress.managed_outbound_ip_count is not None and egress.outbound_ip_count is not None:
        yield NUMBERS.broken(
            (*egress.path, "managed_outbound_ip_count"),
            egress.managed_outbound_ip_count,
            "addresses are either managed by AKS or your own (@outbound_ip_ids), not both",
            "leave out one of them",
        )


def _without_effect(egress: Egress) -> Iterator[RuleFinding]:
    """Settings of what the outbound type does not have: AKS would never see them."""
    kind = egress.outbound_type or "loadBalancer"
    if kind not in OUTBOUND_TYPES:
        return
    for name, value, kinds in (
        ("managed_outbound_ip_count", egress.managed_outbound_ip_count, ("loadBalancer", "managedNATGateway")),
        ("outbound_ip_ids", egress.outbound_ip_count, ("loadBalancer",)),
        ("allocated_outbound_ports", egress.allocated_outbound_ports, ("loadBalancer",)),
        ("idle_timeout_minutes", egress.idle_timeout_minutes, ("loadBalancer", "managedNATGateway")),
    ):
        if value is not None and kind not in kinds:
            where = " or ".join(f'"{one}"' for one in kinds)
            shown = None if name == "outbound_ip_ids" else value
            says = f'goes only with @outbound_type {where}, which is "{kind}"'
            yield UNUSED.broken((*egress.path, name), shown, says, "leave it out")


def _ports(cluster: Cluster) -> Iterator[RuleFinding]:
    egress = cluster.egress
    ports = egress.allocated_outbound_ports
    if egress.outbound_type not in {None, "loadBalancer"} or not ports or ports % 8 or ports > PORTS_PER_ADDRESS:
        return
    addresses = egress.outbound_ip_count or egress.managed_outbound_ip_count or 1
    nodes = sum(pool.most_nodes + surge_nodes(pool) for pool in cluster.pools)
    if nodes * ports <= PORTS_PER_ADDRESS * addresses:
        return
    enough = -(-nodes * ports // PORTS_PER_ADDRESS)
    fewer = PORTS_PER_ADDRESS * addresses // nodes // 8 * 8
    yield PORTS.broken(
        (*egress.path, "allocated_outbound_ports"),
        ports,
        f"{nodes} nodes (with surge) need {nodes * ports:,} ports, and {addresses} outbound address"
        f"{'es have' if addresses > 1 else ' has'} {PORTS_PER_ADDRESS * addresses:,}",
        f"use {fewer} ports, or {enough} addresses",
    )


def _public_addresses(cluster: Cluster) -> Iterator[RuleFinding]:
    egress = cluster.egress
    kind = egress.outbound_type or "loadBalancer"
    denied = "a policy of the subscription denies public addresses (RequestDisallowedByPolicy)"
    if kind in {"loadBalancer", "managedNATGateway"}:
        yield PUBLIC_ADDRESSES.broken(
            (*egress.path, "outbound_type"), kind, f"makes a public address, and {denied}", _WAYS_OUT
        )
    for pool in cluster.pools:
        if pool.node_public_ip:
            yield PUBLIC_ADDRESSES.broken(
                (*pool.path, "node_public_ip"), True, f"makes public addresses, and {denied}", "turn it off"
            )
    if cluster.tls.served and cluster.tls.load_balancer_type != "InternalLoadBalancer":
        yield PUBLIC_ADDRESSES.broken(
            (*cluster.tls.path, "load_balancer_type"),
            cluster.tls.load_balancer_type or "PublicIp",
            f"the scoring address would be public, and {denied}",
            "use InternalLoadBalancer",
        )
