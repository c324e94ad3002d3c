"""Address ranges: formats, overlaps, the DNS service address (aks-rules 2.1 – 2.8, 2.14, 2.15)."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, replace

from aks_inference.cluster_rules.addresses import (
    PRIVATE_RANGES,
    Range,
    free_range,
    overlaps,
    parse_range,
    within,
)
from aks_inference.cluster_rules.kinds import NetworkKind, network_kind, parse_subnet_id
from aks_inference.cluster_rules.model import KNOWN_LATER, Cluster, Network
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning
from aks_inference.findings import Path, Severity

_PLAN = "Doc concepts-network-ip-address-planning.md 2026-04-16"
FORMAT = error(
    "2a", "ranges are IPv4 ranges, addresses IPv4 addresses", "Spec 2025-09-01 ContainerServiceNetworkProfile"
)
DNS_INSIDE = error(
    "2.1", "DNS service address inside the service range", "Err dnsserviceipoutofservicecidr-error.md 2024-10-17"
)
DNS_FIRST = error("2.2", "DNS service address is not the first of the service range", _PLAN)
SERVICE_SIZE = error("2.3", "service range smaller than /12", _PLAN)
SERVICE_SUBNET = error(
    "2.4",
    "service range overlaps no subnet of the virtual network",
    "Err servicecidroverlapexistingsubnetscidr-error.md 2023-11-15",
)
SERVICE_NETWORK = warning(
    "2.5", "service range outside the virtual and connected networks", "Doc concepts-network-legacy-cni.md"
)
RESERVED = error("2.6", "no range overlaps those that AKS keeps", "Doc concepts-network-cni-overview.md 2026-07-10")
POD_OVERLAP = error("2.7", "pod range overlaps no other range", "Doc concepts-network-azure-cni-overlay.md 2026-07-31")
POD_PRIVATE = warning("2.8", "pod range is private", "Doc concepts-network-azure-cni-overlay.md 2026-07-31")
POD_RANGE = error("2d", "pod range only with overlay or kubenet", "Spec 2025-09-01 podCidr; Doc azure-cni-overlay.md")
DOCKER_BRIDGE = warning("2b", "docker bridge range no longer exists", "Spec 2025-09-01 (the property is absent)")
NETWORK_SIZE = error("2.14", "virtual network at most /8", _PLAN)
API_SUBNET = error(
    "2.15", "subnet of the API server: delegated, /28 or larger, not shared", "Doc api-server-vnet-integration.md"
)

DEFAULT_SERVICE = "10.0.0.0/16"
DEFAULT_DNS = "10.0.0.10"
DEFAULT_POD = "10.244.0.0/16"
"""Spec 2025-09-01."""
RESERVED_RANGES = tuple(
    map(ipaddress.IPv4Network, ("169.254.0.0/16", "172.30.0.0/16", "172.31.0.0/16", "192.0.2.0/24"))
)
LARGEST_SERVICE = 12
"""Prefix length; a service range is smaller."""
API_DELEGATION = "Microsoft.ContainerService/managedClusters"

_HAVE_POD_RANGE = {NetworkKind.OVERLAY, NetworkKind.KUBENET}


@dataclass(frozen=True)
class _Named:
    """A range with where it was declared and how texts call it."""

    path: Path
    called: str
    text: str
    range: Range
    connected: bool = False
    """Peered, or behind a gateway."""

    def __str__(self) -> str:
        return f"{self.called} {self.text}"


def check_ranges(cluster: Cluster) -> Iterator[RuleFinding]:
    """All findings about ranges."""
    network = cluster.network
    yield from _formats(network)
    service = _service(network)
    pod = _pod(network)
    subnets = _subnets(cluster)
    outside = _outside(network)
    moved = None
    if service is not None:
        told = list(_service_rules(service, subnets, outside))
        yield from told
        moved = _suggested(service, subnets, outside) if told else None
        yield from _dns(network, service, moved)
    if pod is not None:
        yield from _pod_rules(pod, service, subnets, outside, moved)
    elif network.pod_cidr is not None and network_kind(network) not in _HAVE_POD_RANGE:
        yield POD_RANGE.broken(
            (*network.path, "pod_cidr"),
            network.pod_cidr,
            f"has no meaning with {network_kind(network)}, whose pods get their addresses elsewhere",
            'leave it out, or write @plugin_mode "overlay"',
        )
    for named in [*filter(None, (service, pod)), *_named(network.vnet_cidrs, network.path, "the virtual network")]:
        yield from _reserved(named)
    if network.docker_bridge_cidr is not None:
        yield DOCKER_BRIDGE.broken(
            (*network.path, "docker_bridge_cidr"),
            network.docker_bridge_cidr,
            "has no effect: AKS nodes have no Docker bridge, and since 2025-09-01 the API has no such property",
            "leave it out",
        )
    for named in _named(network.vnet_cidrs, network.path, "the virtual network"):
        if named.range.version == 4 and named.range.prefixlen < 8:
            yield NETWORK_SIZE.broken(network.path, named.text, "a virtual network is /8 at most", "use a smaller one")
    yield from _api_server(cluster)


def _formats(network: Network) -> Iterator[RuleFinding]:
    for name in ("service_cidr", "pod_cidr", "docker_bridge_cidr"):
        text = getattr(network, name)
        parsed = parse_range(text)
        if text is None:
            continue
        if not isinstance(parsed, ipaddress.IPv4Network):
            yield FORMAT.broken(
                (*network.path, name),
                text,
                "is not an IPv4 range",
                "write it as address/length, for example 10.0.0.0/16",
            )
        elif name != "docker_bridge_cidr" and not text.startswith(f"{parsed.network_address}/"):
            yield FORMAT.broken(
                (*network.path, name), text, "does not begin at the first address of its range", f"write {parsed}"
            )
    yield from _declared(network)
    for index, text in enumerate((network.dns_service_ip, *network.dns_servers)):
        path: Path = ("dns_service_ip",) if index == 0 else ("dns_servers", index - 1)
        if text is not None and _address(text) is None:
            yield FORMAT.broken(
                (*network.path, *path), text, "is not an IPv4 address", "write four numbers from 0 to 255"
            )


def _declared(network: Network) -> Iterator[RuleFinding]:
    """What is said of networks that exist: a text that is no range would turn off what is checked against it."""
    one = (("subnet_cidr", network.subnet), ("pod_subnet_cidr", network.pod_subnet))
    texts: list[tuple[Path, str | None]] = [((name,), subnet.cidr if subnet else None) for name, subnet in one]
    for name, several in (
        ("vnet_cidrs", network.vnet_cidrs),
        ("other_subnet_cidrs", [subnet.cidr for subnet in network.other_subnets]),
        ("connected_cidrs", network.connected_cidrs),
    ):
        texts += [((name, index), text) for index, text in enumerate(several)]
    for path, text in texts:
        if text is not None and parse_range(text) is None:
            yield FORMAT.broken(
                (*network.path, *path), text, "is no range", "write it as address/length, for example 10.1.0.0/16"
            )


def _suggested(service: _Named, subnets: list[_Named], outside: list[_Named]) -> ipaddress.IPv4Network | None:
    """A service range that breaks no rule."""
    prefix = service.range.prefixlen if service.range.prefixlen > LARGEST_SERVICE else 16
    return free_range(prefix, [*RESERVED_RANGES, *(one.range for one in (*subnets, *outside))])


def _service_rules(service: _Named, subnets: list[_Named], outside: list[_Named]) -> Iterator[RuleFinding]:
    instead = _write(_suggested(service, subnets, outside))
    if service.range.prefixlen <= LARGEST_SERVICE:
        yield SERVICE_SIZE.broken(
            service.path, service.text, "is too large: a service range is smaller than /12", instead
        )
        return
    clashes = [subnet for subnet in subnets if overlaps(service.range, subnet.range)]
    for subnet in clashes:
        yield SERVICE_SUBNET.broken(service.path, service.text, f"overlaps {subnet}", instead)
    if clashes:
        return
    for other in outside:
        if overlaps(service.range, other.range):
            yield SERVICE_NETWORK.broken(
                service.path, service.text, f"overlaps {other}, whose addresses the pods then cannot reach", instead
            )


def _dns(network: Network, service: _Named, moved: ipaddress.IPv4Network | None) -> Iterator[RuleFinding]:
    """`moved`: the range that is suggested in place of the declared one."""
    text = network.dns_service_ip or DEFAULT_DNS
    address = _address(text)
    if address is None:
        return
    path = (*network.path, "dns_service_ip")
    first = service.range.network_address
    within_ = moved or service.range
    tenth = f"{within_.network_address + min(10, within_.num_addresses - 2)}" + (f" (of {moved})" if moved else "")
    if address not in service.range:
        given = "" if network.dns_service_ip is not None else "(the default) "
        yield DNS_INSIDE.broken(path, text, f"{given}lies outside @service_cidr {service.text}", f"write {tenth}")
    elif address in {first, first + 1}:
        says = "is the first address of" if address == first + 1 else "is the network address of"
        yield DNS_FIRST.broken(
            path,
            text,
            f"{says} @service_cidr {service.text}; the first one belongs to the API server",
            f"write {tenth}",
        )
    elif address == service.range.broadcast_address:
        yield DNS_FIRST.broken(path, text, f"is the last address of @service_cidr {service.text}", f"write {tenth}")


def _pod_rules(
    pod: _Named,
    service: _Named | None,
    subnets: list[_Named],
    outside: list[_Named],
    moved: ipaddress.IPv4Network | None,
) -> Iterator[RuleFinding]:
    others = [*([service] if service else []), *subnets]
    taken: list[Range] = [*RESERVED_RANGES, *(one.range for one in (*others, *outside))]
    instead = _write(free_range(pod.range.prefixlen, [*taken, *([moved] if moved else [])]))
    clashes = [other for other in others if overlaps(pod.range, other.range)]
    for other in clashes:
        yield POD_OVERLAP.broken(pod.path, pod.text, f"overlaps {other}", instead)
    for other in outside:
        if overlaps(pod.range, other.range) and (other.connected or not clashes):
            # A part of the virtual network without a subnet may be given one later.
            severity = Severity.ERROR if other.connected else Severity.WARNING
            yield POD_OVERLAP.broken(pod.path, pod.text, f"overlaps {other}", instead, severity)
    if not any(within(pod.range, private) for private in PRIVATE_RANGES):
        yield POD_PRIVATE.broken(
            pod.path,
            pod.text,
            "is a public range (neither RFC 1918 nor RFC 6598), which is outside AKS's support",
            instead,
        )


def _reserved(named: _Named) -> Iterator[RuleFinding]:
    for kept in RESERVED_RANGES:
        if overlaps(named.range, kept):
            yield RESERVED.broken(
                named.path,
                named.text,
                f"overlaps {kept}, which AKS keeps for itself",
                f"use a range apart from {', '.join(map(str, RESERVED_RANGES))}",
            )


def _api_server(cluster: Cluster) -> Iterator[RuleFinding]:
    access = cluster.access
    subnet, path = access.api_server_subnet, (*access.path, "api_server_subnet_id")
    if subnet is None:
        return
    if not access.vnet_integration:
        yield API_SUBNET.broken(
            path, subnet.id, "goes only with @vnet_integration, which is off", "turn it on, or leave the subnet out"
        )
        return
    ours, parsed_id = cluster.network.subnet, parse_subnet_id(subnet.id)
    if parsed_id is None and subnet.id != KNOWN_LATER:
        yield API_SUBNET.broken(
            path,
            subnet.id,
            "is not the resource id of a subnet",
            "write /subscriptions/…/resourceGroups/…/providers/Microsoft.Network/virtualNetworks/…/subnets/…",
        )
    elif ours is None:
        yield API_SUBNET.broken(
            path, subnet.id, "needs a subnet for the nodes in the same virtual network", "give @subnet_id"
        )
    elif parsed_id is not None and parse_subnet_id(ours.id) and _network_of(subnet.id) != _network_of(ours.id):
        yield API_SUBNET.broken(
            path,
            subnet.id,
            f'lies in the virtual network "{parsed_id.names[0][1]}", and @subnet_id in another',
            "use a subnet of the nodes' virtual network",
        )
    if subnet.delegations is not None and API_DELEGATION.lower() not in [name.lower() for name in subnet.delegations]:
        yield API_SUBNET.broken(path, subnet.id, f"must be delegated to {API_DELEGATION}", "delegate it")
    parsed = parse_range(subnet.cidr)
    if parsed is not None and parsed.version == 4 and parsed.prefixlen > 28:
        yield API_SUBNET.broken(
            path, subnet.id, f"has the range {subnet.cidr}; the API server needs /28 or larger", "use a larger subnet"
        )
    for name, other in (("subnet_id", cluster.network.subnet), ("pod_subnet_id", cluster.network.pod_subnet)):
        if other is not None and other.id.lower() == subnet.id.lower():
            yield API_SUBNET.broken(path, subnet.id, f"is the same subnet as @{name}", "use a subnet of its own")


def _network_of(subnet_id: str) -> str:
    return subnet_id.lower().rsplit("/subnets/", 1)[0]


def _service(network: Network) -> _Named | None:
    text = network.service_cidr or DEFAULT_SERVICE
    parsed = parse_range(text)
    if parsed is None or parsed.version != 4:
        return None  # said by the rule of formats
    return _Named((*network.path, "service_cidr"), "@service_cidr", text, parsed)


def _pod(network: Network) -> _Named | None:
    kind = network_kind(network)
    text = network.pod_cidr or (DEFAULT_POD if kind in _HAVE_POD_RANGE else None)
    parsed = parse_range(text)
    if text is None or parsed is None or parsed.version != 4 or kind not in _HAVE_POD_RANGE:
        return None
    return _Named((*network.path, "pod_cidr"), "@pod_cidr", text, parsed)


def _subnets(cluster: Cluster) -> list[_Named]:
    network = cluster.network
    known = {"subnet_id": network.subnet, "pod_subnet_id": network.pod_subnet}
    found = [
        _Named((*network.path, name), f"the subnet of @{name},", subnet.cidr, parsed)
        for name, subnet in known.items()
        if subnet is not None and subnet.cidr is not None and (parsed := parse_range(subnet.cidr)) is not None
    ]
    seen = {subnet.id.lower() for subnet in known.values() if subnet is not None}
    others = [*network.other_subnets, *filter(None, [cluster.access.api_server_subnet])]
    for subnet in others:
        parsed = parse_range(subnet.cidr)
        if subnet.cidr is not None and parsed is not None and subnet.id.lower() not in seen:
            # One that is declared by its range alone has no name.
            nameless = subnet.id.endswith(f"/subnets/{subnet.cidr}")
            called = "another subnet" if nameless else f'the subnet "{subnet.id.rsplit("/", 1)[-1]}"'
            called = f"{called} of the virtual network,"
            found.append(_Named(network.path, called, subnet.cidr, parsed))
    return found


def _outside(network: Network) -> list[_Named]:
    connected = _named(network.connected_cidrs, network.path, "the connected network")
    return [
        *_named(network.vnet_cidrs, network.path, "the virtual network"),
        *(replace(one, connected=True) for one in connected),
    ]


def _named(texts: tuple[str, ...], path: Path, called: str) -> list[_Named]:
    return [_Named(path, called, text, parsed) for text in texts if (parsed := parse_range(text)) is not None]


def _write(free: ipaddress.IPv4Network | None) -> str:
    return f"write {free}" if free else "use a smaller range apart from those"


def _address(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None
