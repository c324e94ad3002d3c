"""The network of a cluster, said flat or in a group (azureml-v1.md 1.1).

What the values must be is the business of `aks_inference.cluster_rules`; here is which of them go together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aks_inference.aks_cluster.groups import NetworkSpec
from aks_inference.cluster_rules.model import KNOWN_LATER, Subnet
from aks_inference.cluster_rules.model import Network as RuleNetwork
from aks_inference.findings import Finding, Path, under
from aks_inference.values import is_late, read

FLAT = (
    "vnet_resourcegroup_name",
    "vnet_name",
    "subnet_name",
    "service_cidr",
    "dns_service_ip",
    "docker_bridge_cidr",
)
"""Azure ML's six values."""
NAMES = FLAT[:3]


@dataclass(frozen=True)
class Network:
    """The network that the cluster will have."""

    plugin: str
    spec: NetworkSpec = field(default_factory=NetworkSpec)
    places: Mapping[Path, Path] = field(default_factory=dict)
    """Where the user wrote what the rules call `network.<name>`."""

    @property
    def subnet_id(self) -> object:
        """As given: a text, an output, or None."""
        return self.spec.subnet_id

    @property
    def names(self) -> tuple[str, str, str] | None:
        """Resource group, virtual network and subnet, where no id is given."""
        spec = self.spec
        return (spec.vnet_resourcegroup_name or "", spec.vnet_name, spec.subnet_name or "") if spec.vnet_name else None

    @property
    def in_subnet(self) -> bool:
        """Whether the nodes are in a subnet of the user's."""
        return self.subnet_id is not None or self.names is not None


def plan_network(flat: Mapping[str, object], group: Mapping[str, object] | None) -> tuple[Network, list[Finding]]:
    """The network from Azure ML's flat arguments or the group. Findings carry whole paths."""
    got = read(NetworkSpec, {**(group or {})})
    inside: Path = ("network",)
    findings = list(under(inside, got.findings))
    both = [name for name in FLAT if flat.get(name) is not None and getattr(got.spec, name) is not None]
    for name in both:
        findings.append(Finding((name,), f"is also given as network.@{name}", "give it once", flat[name]))
    given = {name: flat.get(name) for name in FLAT if flat.get(name) is not None}
    spec = got.spec.model_copy(update={name: value for name, value in given.items() if name not in both})
    flat_style = bool(given) and group is None
    prefix = {name: () if name in FLAT and (flat_style or name in given) else inside for name in spec_names()}
    findings += (_moved(finding, prefix) for finding in network_rules(spec))
    azure = spec.subnet_id is not None or spec.vnet_name or spec.plugin_mode or spec.dataplane
    plugin = spec.plugin or ("azure" if azure else "kubenet")
    places: dict[Path, Path] = {("network", name): (*place, name) for name, place in prefix.items()}
    if spec.vnet_name is not None and spec.subnet_id is None:
        # Azure ML's three names say what the rules call the subnet's id.
        places["network", "subnet_id"] = (*prefix["subnet_name"], "subnet_name")
    return Network(plugin, spec, places), findings


def spec_names() -> tuple[str, ...]:
    """The names of the group's fields."""
    return tuple(NetworkSpec.model_fields)


def network_rules(spec: NetworkSpec) -> Iterator[Finding]:
    """The rules of a network; paths relative to it."""
    named = [name for name in NAMES if getattr(spec, name) is not None]
    if named and spec.subnet_id is not None:
        yield Finding(("subnet_id",), f"is given beside @{named[0]}", "give the id or the three names")
    elif named and len(named) < len(NAMES):
        missing = " and ".join(f"@{name}" for name in NAMES if name not in named)
        rule = f"{missing} missing: a subnet needs " + ", ".join(f"@{name}" for name in FLAT[:5])
        yield Finding((named[0],), rule, "give all of them or none", getattr(spec, named[0]))
    yield from _without_subnet(spec, bool(named) or spec.subnet_id is not None)
    if len(named) == len(NAMES) or spec.subnet_id is not None:
        for name in ("service_cidr", "dns_service_ip"):
            if getattr(spec, name) is None:
                yield Finding((name,), "is required with a subnet", "for example 10.0.0.0/16 and 10.0.0.10")


_OF_SUBNET = (
    "subnet_cidr",
    "subnet_used_addresses",
    "subnet_region",
    "subnet_delegations",
    "subnet_default_route",
    "subnet_has_nat_gateway",
)
"""What is said of the nodes' subnet."""


def _without_subnet(spec: NetworkSpec, in_subnet: bool) -> Iterator[Finding]:
    """What is said of a subnet that is not there; nothing would be checked against it."""
    about = [(name, "subnet_id") for name in _OF_SUBNET if not in_subnet]
    about += [("pod_subnet_cidr", "pod_subnet_id")] * (spec.pod_subnet_id is None)
    for name, subnet in about:
        if name in spec.model_fields_set:
            value = getattr(spec, name)
            yield Finding((name,), f"is about @{subnet}, which is not given", f"give @{subnet}, or leave it out", value)


def rule_network(network: Network, subscription: str | None) -> RuleNetwork:
    """The network in the words of the rules."""
    spec = network.spec
    nodes, pods = _ids(network, subscription)
    others = (Subnet(f"{_network_of(nodes)}/subnets/{text}", text) for text in spec.other_subnet_cidrs)
    return RuleNetwork(
        plugin=network.plugin,
        plugin_mode=spec.plugin_mode,
        dataplane=spec.dataplane,
        policy=spec.policy,
        service_cidr=spec.service_cidr,
        dns_service_ip=spec.dns_service_ip,
        pod_cidr=spec.pod_cidr,
        docker_bridge_cidr=spec.docker_bridge_cidr,
        subnet=_subnet(nodes, spec) if nodes else None,
        pod_subnet=Subnet(pods, spec.pod_subnet_cidr) if pods else None,
        pod_ip_allocation=spec.pod_ip_allocation,
        vnet_cidrs=spec.vnet_cidrs,
        other_subnets=tuple(others),
        connected_cidrs=spec.connected_cidrs,
        load_balancer_sku=spec.load_balancer_sku or "standard",
        dns_servers=spec.dns_servers,
        own_route_table=spec.own_route_table or spec.route_table_id is not None,
        route_table_id=KNOWN_LATER if is_late(spec.route_table_id) else spec.route_table_id,
    )


def _subnet(subnet_id: str, spec: NetworkSpec) -> Subnet:
    return Subnet(
        id=subnet_id,
        cidr=spec.subnet_cidr,
        region=spec.subnet_region,
        delegations=spec.subnet_delegations,
        default_route=spec.subnet_default_route,
        nat_gateway=spec.subnet_has_nat_gateway,
        used_addresses=spec.subnet_used_addresses,
    )


def _ids(network: Network, subscription: str | None) -> tuple[str | None, str | None]:
    """Ids of the nodes' and the pods' subnets; one that is known only later gets a name that breaks no rule."""
    nodes, pods = network.subnet_id, network.spec.pod_subnet_id
    where = f"/subscriptions/{subscription or '-'}"
    if network.names is not None:
        group, vnet, subnet = network.names
        provider = f"resourceGroups/{group or '-'}/providers/Microsoft.Network/virtualNetworks/{vnet}"
        nodes = f"{where}/{provider}/subnets/{subnet or '-'}"
    if is_late(nodes):
        beside = _network_of(pods) if isinstance(pods, str) else None
        provider = "resourceGroups/-/providers/Microsoft.Network/virtualNetworks/-"
        nodes = f"{beside or f'{where}/{provider}'}/subnets/-nodes-"
    if is_late(pods):
        pods = f"{_network_of(nodes) or '-'}/subnets/-pods-"
    return (nodes if isinstance(nodes, str) else None), (pods if isinstance(pods, str) else None)


def _network_of(subnet_id: object) -> str | None:
    return subnet_id.rsplit("/subnets/", 1)[0] if isinstance(subnet_id, str) else None


def _moved(finding: Finding, prefix: Mapping[str, Path]) -> Finding:
    path = (*prefix.get(str(finding.path[0]), ()), *finding.path)
    return Finding(path, finding.rule, finding.mend, finding.value, finding.severity)
